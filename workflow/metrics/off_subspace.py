"""off_subspace: the share of the samples' energy outside the subspace that holds the reference's.

Energy is the squared distance to the reference's mean, summed over samples. The subspace is spanned by the reference's
leading principal directions, as few as hold 99.9 % of its own energy: for a spiral two, with what rounding to 256 levels
leaves outside far below 0.1 %. From 0 to 1, lower is better; new real images have up to about 0.001, and where data
fill all dimensions it is 0 for all. It says how much noise is left where data have none, which is what a network that is
too narrow to predict noise cannot take away (Li & He 2025, arXiv:2511.13720, Fig. 2).
"""

import numpy as np

HELD = 0.999


def measure(features, reference):
    """Return the share of features (n, D)."""
    energies, directions = np.linalg.eigh(reference.covariance)
    energies, directions = energies[::-1].clip(min=0), directions[:, ::-1]
    count = 1 + int((np.cumsum(energies) < HELD * energies.sum()).sum())
    centred = features.astype(np.float64) - reference.mean
    outside = centred @ directions[:, count:]
    total = np.square(centred).sum()
    return {"off_subspace": np.square(outside).sum() / total if total else 0.0}


def title(extractor):
    """Return what the number is called in tables."""
    return "off the subspace" if extractor == "inception" else f"off the subspace ({extractor} features)"
