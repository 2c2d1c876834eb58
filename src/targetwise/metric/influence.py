"""The standard error of a Fréchet distance, by its influence function.

With z_i = x_i − μ, the reference (m, S) and T = S^½(S^½ΣS^½)^(−½)S^½, sample i moves the distance by ψ_i/n, where

    ψ_i = 2(μ − m)·z_i + z_i·(I − T)z_i − tr((I − T)Σ)

(the gradient of the squared Bures–Wasserstein distance). The plain estimate V(n) = var(ψ)/n is too large, because T
comes from the samples themselves: in the terms of Hoeffding's decomposition it is C₁ + 2C₂ + …, where the variance is
C₁ + C₂ + …, with C₁ ∝ 1/n and C₂ ∝ 1/n². With half the samples it is 2C₁ + 8C₂ + …, so

    1.5·V(n) − 0.25·V(n/2) = C₁ + C₂ + …

and C₁, C₂ ≥ 0 bound it to V(n)/2 … V(n). docs/errors.md says where this holds.
"""

import numpy as np
from scipy import linalg

from targetwise.metric.contributions import Contributions, NoErrorKnown, Part, shuffled
from targetwise.metric.distance import moments

METHOD = "influence on whole and halves"

#: Samples whose contributions are computed at a time.
CHUNK = 4096


def frechet_contributions(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> Contributions:
    """Return the contributions of samples to their Fréchet distance from a reference, which counts as fixed.

    Args:
        features: of the samples, (n, D).
        mean: the reference's, (D,) fp64.
        covariance: (D, D) fp64.

    Raises:
        NoErrorKnown: if half of the samples have no covariance of full rank.
    """
    count, dimensions = features.shape
    if count < 2 * (dimensions + 1):
        raise NoErrorKnown(f"{count:,} samples are fewer than {2 * (dimensions + 1):,}, twice the features and two")
    return split(features, mean, root_of(covariance))


def split(features: np.ndarray, mean: np.ndarray, root: np.ndarray) -> Contributions:
    """Return the same for the reference's S^½, of however few samples; see :func:`frechet_contributions`."""
    order, digest = shuffled(len(features))
    samples = features[order]
    whole = influence(samples, mean, root)
    halves = [influence(half, mean, root) for half in np.array_split(samples, 2)]
    parts = (Part(1.5, whole), *(Part(-0.125, half) for half in halves))
    return Contributions(METHOD, digest, parts, least=0.5, most=1.0)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a covariance (D, D) fp64."""
    values, vectors = linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def influence(features: np.ndarray, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return ψ (n,) of samples, with the moments of these very samples.

    Args:
        features: (n, D).
        mean: the reference's, (D,) fp64.
        root: S^½ of the reference's covariance, (D, D) fp64.
    """
    own, covariance = moments(features)
    remaining = np.eye(len(own)) - _transport(covariance, root)
    psi = np.empty(len(features))
    for first in range(0, len(features), CHUNK):
        z = features[first : first + CHUNK] - own
        psi[first : first + CHUNK] = 2 * z @ (own - mean) + np.einsum("ij,ij->i", z @ remaining, z)
    return psi - psi.mean()


def _transport(covariance: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return T; directions in which a covariance has no extent are left out."""
    values, vectors = linalg.eigh(root @ covariance @ root)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    half = root @ (vectors[:, kept] * values[kept] ** -0.25)
    return half @ half.T
