"""density: in how many balls of real images a sample is, on average, over k = 5: Σ_j Σ_i [y_j inside B_i] / (k·n).

B_i reaches from real image i to its k-th nearest other one. Naeem et al. 2020, arXiv:2002.09797, section 3.2, and their
code (<). From 0, higher is better; 1 is expected of samples of the real distribution, whatever their number, and samples
that crowd where real images are dense have more.
"""

from targetwise.metric.neighbours import K, balls

BETTER = "higher"


def measure(features, reference):
    """Return the density of features (n, D) among a reference's."""
    return {"density": balls(features, reference.features).inside.mean() / K}


def title(extractor):
    """Return what the number is called in tables."""
    return "density" if extractor == "inception" else f"density ({extractor} features)"
