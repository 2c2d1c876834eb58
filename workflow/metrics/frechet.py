"""frechet: ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2·(C₁C₂)^½), the distance of two Gaussians; with Inception features the FID.

Dowson & Landau 1982; Heusel et al. 2017, arXiv:1706.08500, section 3.
"""

from targetwise.metric.distance import FRECHET, moments


def measure(features, reference):
    """Return the distance of features (n, D) to a reference, by the reference's implementation."""
    distance = FRECHET[reference.facts["implementation"]]
    return {"frechet": distance(*moments(features), reference.mean, reference.covariance)}


def title(extractor):
    """Return what the number is called in tables."""
    return "FID" if extractor == "inception" else f"FD ({extractor} features)"
