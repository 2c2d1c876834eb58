"""frechet_infinity: FD∞, what the Fréchet distance of infinitely many samples would be: the intercept of a line over 1/n.

Chong & Forsyth 2020, arXiv:1911.07023, section 4. Fifteen sizes from n/10 to n, each the first samples of one random
order. It takes out what few samples add to the distance, and nothing of what a finite reference adds; lower is better,
and near 0 it may come out below. The sizes overlap, so that the line's own interval would mean nothing. It costs fifteen
distances.
"""

import numpy as np

from targetwise.metric.distance import frechet_distance, moments

SIZES, SMALLEST = 15, 10


def measure(features, reference):
    """Return the intercept for features (n, D), n ≥ 20."""
    ordered = features[np.lexsort(features.T)]  # whatever order the samples came in
    shuffled = ordered[np.random.default_rng(0).permutation(len(ordered))]
    sizes = np.linspace(max(len(features) // SMALLEST, 2), len(features), SIZES, dtype=int)
    distances = [frechet_distance(*moments(shuffled[:size]), reference.mean, reference.covariance) for size in sizes]
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return {"frechet_infinity": intercept}


def title(extractor):
    """Return what the number is called in tables."""
    return "FID∞" if extractor == "inception" else f"FD∞ ({extractor} features)"
