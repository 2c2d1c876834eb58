"""The standard error of a Fréchet distance: a jackknife of all samples, corrected by those of their halves.

With z_i = x_i − μ, the reference (m, S), and the eigenvalues s² and eigenvectors u of S^½ΣS^½, let y_i = uᵀS^½z_i and
w = y². To second order, n times what leaving out sample i takes from the distance is, up to a constant,

    φ_i = 2(μ − m)·z_i + z_i·z_i − (1 + 1/2n) Σ_j w_ij/s_j − 1/2n Σ_jk w_ij w_ik / (s_j s_k (s_j + s_k))

Without 1/n this is the influence function ψ_i = 2(μ − m)·z_i + z_i·(I − T)z_i, the gradient of the squared
Bures–Wasserstein distance, with T = S^½(S^½ΣS^½)^(−½)S^½; with it, half of what a sample does to T itself is taken
back. V(n) = var(φ)/n is the jackknife's variance. It is too large (Efron & Stein 1981): in Hoeffding's components it
is C₁ + 2C₂ + …, where the variance is C₁ + C₂ + …, with C₁ ∝ 1/n and C₂ ∝ 1/n². With half of the samples it is
2C₁ + 8C₂ + …, so

    1.5·V(n) − 0.25·V(n/2) = C₁ + C₂ + …

and C₁, C₂ ≥ 0 bound it to V(n)/2 … V(n). docs/errors.md says where this holds.
"""

import numpy as np
from scipy import linalg

from targetwise.metric.contributions import Contributions, NoErrorKnown, Part, shuffled
from targetwise.metric.distance import moments

METHOD = "jackknife of whole and halves"

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
    whole = left_out(samples, mean, root)
    halves = [left_out(half, mean, root) for half in np.array_split(samples, 2)]
    parts = (Part(1.5, whole), *(Part(-0.125, half) for half in halves))
    return Contributions(METHOD, digest, parts, least=0.5, most=1.0)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a covariance (D, D) fp64."""
    values, vectors = linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def left_out(features: np.ndarray, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return φ (n,) of samples, with the moments of these very samples, less its mean.

    Directions in which the samples have no extent are left out.

    Args:
        features: (n, D).
        mean: the reference's, (D,) fp64.
        root: S^½ of the reference's covariance, (D, D) fp64.
    """
    own, covariance = moments(features)
    values, vectors = linalg.eigh(root @ covariance @ root)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    s, axes = np.sqrt(values[kept]), root @ vectors[:, kept]
    among = 1 / (np.outer(s, s) * np.add.outer(s, s))
    share = 1 / (2 * len(features))
    phi = np.empty(len(features))
    for first in range(0, len(features), CHUNK):
        z = features[first : first + CHUNK] - own
        w = (z @ axes) ** 2
        linear = 2 * z @ (own - mean) + np.einsum("ij,ij->i", z, z) - (1 + share) * (w @ (1 / s))
        phi[first : first + CHUNK] = linear - share * np.einsum("ij,ij->i", w @ among, w)
    return phi - phi.mean()
