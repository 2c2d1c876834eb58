"""precision: the share of samples within the ball of some real image, which reaches to its 5th nearest other one (≤).

Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 1 and 2, of the features of any extractor. From 0 to 1, higher is
better.
"""

from targetwise.metric.neighbours import balls

BETTER = "higher"


def measure(features, reference):
    """Return the precision of features (n, D) by a reference's."""
    return {"precision": (balls(features, reference.features).within > 0).mean()}


def title(extractor):
    """Return what the number is called in tables."""
    return "precision" if extractor == "inception" else f"precision ({extractor} features)"
