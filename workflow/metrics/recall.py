"""recall: the share of real images within the ball of some sample, which reaches to its 5th nearest other one (≤).

Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 1 and 2, of the features of any extractor. From 0 to 1, higher is
better. One sample far from the others has a large ball and can raise it (Naeem et al. 2020); compare `coverage`.
"""

from targetwise.metric.neighbours import balls

BETTER = "higher"


def measure(features, reference):
    """Return the recall of a reference's features by features (n, D)."""
    return {"recall": (balls(reference.features, features).within > 0).mean()}


def title(extractor):
    """Return what the number is called in tables."""
    return "recall" if extractor == "inception" else f"recall ({extractor} features)"
