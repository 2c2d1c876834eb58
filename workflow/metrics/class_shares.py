"""class_shares: ½·Σ_c |p_c − q_c|, the total variation distance of class shares: whether some classes are drawn too often.

p_c and q_c are the shares of samples and of the reference's images that the same linear discriminant takes for class c
(`targetwise.metric.classes`), so what it mistakes in both cancels. From 0 to 1, lower is better. n samples of the real
distribution of m images are some ½·Σ_c √(2·q_c·(1 − q_c)·(1/n + 1/m)/π) away, 0.06 for 512 digits.
"""

from targetwise.metric.classes import shares

NEEDS = ("labels",)


def measure(features, reference):
    """Return the distance of features (n, D) to a reference whose data set has labels."""
    return {"class_shares": abs(shares(features, reference) - shares(reference.features, reference)).sum() / 2}


def title(extractor):
    """Return what the number is called in tables."""
    return f"class shares ({extractor} features)"
