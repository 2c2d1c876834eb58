"""Which class features belong to, by a linear discriminant of the reference's labelled images.

p(c | x) ∝ π_c·exp(μ_cᵀC⁻¹x − ½μ_cᵀC⁻¹μ_c), C the covariance within classes (Hastie, Tibshirani & Friedman 2009,
equation 4.10), as scikit-learn's LinearDiscriminantAnalysis has it. Nothing is to be chosen or random.
"""

import numpy as np
from scipy import linalg, special

from targetwise.errors import UserError
from targetwise.metric.reference import Reference, describe, images_of


def posterior(features: np.ndarray, reference: Reference) -> np.ndarray:
    """Return the probability of each class, fp64 (n, classes), of features (n, D).

    Raises:
        UserError: if the reference's images have no labels or are others now, or are too few for the covariance.
    """
    x, labels = reference.features.astype(np.float64), labels_of(reference)
    known, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(known) < 2:
        raise UserError(f"the images of {describe(reference.facts)} are of one class; classes need labels")
    if len(x) - len(known) < x.shape[1]:
        raise UserError(
            f"classes by {x.shape[1]:,} features need as many labelled images and more, but "
            f"{describe(reference.facts)} has {len(x):,}"
        )
    means = np.stack([x[own == c].mean(axis=0) for c in range(len(known))])
    within = x - means[own]
    weights = linalg.solve(within.T @ within / len(x), means.T, assume_a="pos")
    offsets = np.log(counts / len(x)) - (means.T * weights).sum(axis=0) / 2
    return np.asarray(special.softmax(features.astype(np.float64) @ weights + offsets, axis=1))


def shares(features: np.ndarray, reference: Reference) -> np.ndarray:
    """Return the share of features (n, D) whose most probable class is each, (classes,); see :func:`posterior`."""
    probabilities = posterior(features, reference)
    return np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(features)


def labels_of(reference: Reference) -> np.ndarray:
    """Return the labels of a reference's images, (n,) int64.

    Raises:
        UserError: if the data set is missing, or holds other images than the reference was made of.
    """
    return images_of(reference).labels
