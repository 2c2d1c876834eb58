"""mind: 3D·E_u[W₂²(uᵀx, uᵀy)], the mean over random directions u of the squared distance of one-dimensional projections.

Berthet et al. 2026, arXiv:2605.06797 (Monge Inception Distance), with their α = 3D; 1,000 directions, the same for all.
From 0, lower is better. W₂ is exact for sets of two sizes, none is cut to the other's. It is biased: two sets of n images
of one distribution are some 3·tr(C)·c(n) apart, C their covariance and c(n) the mean W₂² of two standard normal samples:
0.0063 for n = 1,000, 0.00069 for 10,000, 0.00014 for 50,000; of n and m, (c(n) + c(m))/2. So compare at one n, and with
the floor (`bounds: true`).
"""

import numpy as np

DIRECTIONS, BATCH, SEED = 1000, 50, 0


def measure(features, reference):
    """Return the distance of features (n, D) to a reference's (m, D)."""
    x, y = features.astype(np.float64), reference.features.astype(np.float64)
    directions = np.random.RandomState(SEED).standard_normal((DIRECTIONS, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    shares, i, j = transport(len(x), len(y))
    total = 0.0
    for u in np.split(directions, DIRECTIONS // BATCH):
        moved = np.sort(x @ u.T, axis=0)[i] - np.sort(y @ u.T, axis=0)[j]
        total += (shares @ moved**2).sum()
    return {"mind": 3 * x.shape[1] * total / DIRECTIONS}


def transport(n, m):
    """Return which share of the mass goes from the i-th smallest of n to the j-th smallest of m: shares, i and j."""
    edges = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # of the mass, in parts of 1/(n·m)
    return np.diff(edges, prepend=0) / (n * m), (edges - 1) // m, (edges - 1) // n


def title(extractor):
    """Return what the number is called in tables."""
    return "MIND" if extractor == "inception" else f"MIND ({extractor} features)"
