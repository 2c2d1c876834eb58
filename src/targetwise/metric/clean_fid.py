"""What we take from clean-fid (Parmar et al. 2022, arXiv:2104.11222): its resizing and its two distances.

This is the only module that knows the package.
"""

import contextlib
import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import linalg

from targetwise.errors import UserError

#: clean-fid's name of its protocol: bicubic, antialiased, in floats, by Pillow.
MODE = "clean"

#: Seed of the subsets of the kernel distance, so that a KID can be had again.
KID_SEED = 0


def resize(images: np.ndarray, output: np.ndarray, threads: int = 1) -> None:
    """Fill ``output`` (B, 299, 299, 3) fp32 with images (B, H, W, 3) uint8 in 0 … 255, each resized by Pillow.

    Each thread writes what it has resized: one that stacks them all would take as long as twelve that resize.
    """
    from cleanfid.resize import build_resizer

    resizer = build_resizer(MODE)

    def fill(index: int) -> None:
        output[index] = resizer(images[index])

    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(fill, range(len(images))))


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Return the squared Fréchet distance of two Gaussians by a Schur matrix square root.

    Args:
        mean: (D,) fp64.
        covariance: (D, D) fp64.
        other_mean: (D,) fp64.
        other_covariance: (D, D) fp64.

    Raises:
        UserError: if the square root has an imaginary part, which singular covariances can give it.
    """
    from cleanfid.fid import frechet_distance as distance

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # It prints when it adds a ridge; scipy warns that it is called in the old way, and of singular
            # covariances, which the row's marks say in words.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", linalg.LinAlgWarning)
            return float(distance(mean, covariance, other_mean, other_covariance))
    except ValueError as error:
        raise UserError(
            f"clean-fid's square root failed ({error}); metric.implementation: fast does not need it"
        ) from error


def kernel_distance(features: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased kernel distance (KID, Bińkowski et al. 2018, arXiv:1801.01401) of features (n, D) fp64."""
    from cleanfid.fid import kernel_distance as distance

    state = np.random.get_state()  # noqa: NPY002 (clean-fid draws its subsets from numpy's global stream)
    try:
        np.random.seed(KID_SEED)  # noqa: NPY002
        return float(distance(other, features))
    finally:
        np.random.set_state(state)  # noqa: NPY002
