"""Distances between two sets of features: the Fréchet distance of their Gaussians, and a kernel distance.

‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2·(C₁C₂)^½), Dowson & Landau 1982; with Inception features it is the FID (Heusel et al.
2017, arXiv:1706.08500). The kernel distance is the KID (Bińkowski et al. 2018, arXiv:1801.01401).
"""

from collections.abc import Callable

import numpy as np
from scipy import linalg

from targetwise.errors import UserError
from targetwise.metric import clean_fid

#: Over how many subsets the kernel distance is a mean, and of how many images each is at most.
SUBSETS, SUBSET = 100, 1000


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (D,) and unbiased covariance (D, D) of features (n, D), in fp64.

    Raises:
        UserError: for fewer than two rows, or values that are not finite.
    """
    if len(features) < 2:
        raise UserError(f"a covariance needs at least two images, not {len(features)}")
    if not np.isfinite(features).all():
        raise UserError("the features hold values that are not finite")
    return features.mean(axis=0, dtype=np.float64), np.cov(features, rowvar=False, dtype=np.float64)


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Return the squared Fréchet distance of two Gaussians by symmetric eigenvalues.

    C₁C₂ and S·C₂·S with S = C₁^½ have the same eigenvalues, and the latter is symmetric: no complex numbers, exact
    where a covariance is singular, and several times faster than a matrix square root of C₁C₂.

    Args:
        mean: (D,) fp64.
        covariance: (D, D) fp64.
        other_mean: (D,) fp64.
        other_covariance: (D, D) fp64.
    """
    values, vectors = linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(linalg.eigvalsh(root @ other_covariance @ root).clip(0)).sum()
    difference = mean - other_mean
    return float(difference @ difference + np.trace(covariance) + np.trace(other_covariance) - 2 * cross)


def kernel_distance(features: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased squared MMD of features (n, D) fp64, mean over the subsets that clean-fid draws.

    NumPy takes more than ten times as long for a cube that is written as a power.
    """
    random = np.random.RandomState(clean_fid.KID_SEED)
    size = min(len(features), len(other), SUBSET)
    total = 0.0
    for _ in range(SUBSETS):
        x, y = (some[random.choice(len(some), size, replace=False)] for some in (features, other))
        within = kernel(x, x) + kernel(y, y)
        total += (within.sum() - np.trace(within)) / (size - 1) - 2 * kernel(x, y).sum() / size
    return float(total / SUBSETS / size)


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (x·y / D + 1)³ of features (n, D) and (N, D), (n, N)."""
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


#: By the name of ``metric.implementation``.
FRECHET: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]] = {
    "clean-fid": clean_fid.frechet_distance,
    "fast": frechet_distance,
}
KERNEL: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "clean-fid": clean_fid.kernel_distance,
    "fast": kernel_distance,
}
