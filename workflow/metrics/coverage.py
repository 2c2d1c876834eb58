"""coverage: the share of real images whose ball, which reaches to the k-th nearest other one (k = 5), has a sample inside.

Naeem et al. 2020, arXiv:2002.09797, section 3.2, and their code (<). From 0 to 1, higher is better. Of m samples of the
distribution of n real images, 1 − Π_{i=1…k} (n − i)/(n + m − i) is expected, 0.97 where n = m: fewer samples cover less.
"""

from targetwise.metric.neighbours import balls

BETTER = "higher"


def measure(features, reference):
    """Return the coverage of a reference's features by features (n, D)."""
    return {"coverage": (balls(features, reference.features).held > 0).mean()}


def title(extractor):
    """Return what the number is called in tables."""
    return "coverage" if extractor == "inception" else f"coverage ({extractor} features)"
