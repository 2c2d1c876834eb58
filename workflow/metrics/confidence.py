"""confidence: E[max_c p(c | y)], how sure a linear discriminant of the real images is of a sample's class.

p is that of `targetwise.metric.classes`. From 1/classes to 1, and neither end is good: samples between two classes have
less than real images, samples that are all alike may have more. What real images have says the floor (`bounds: true`).
"""

from targetwise.metric.classes import posterior

BETTER = "neither"
NEEDS = ("labels",)


def measure(features, reference):
    """Return the mean confidence of features (n, D), by a reference whose data set has labels."""
    return {"confidence": posterior(features, reference).max(axis=1).mean()}


def title(extractor):
    """Return what the number is called in tables."""
    return f"confidence ({extractor} features)"
