"""Distances in feature space: of nearest neighbours, in balls around them, and the mean of all.

Every pair's distance is computed, in fp64 and by blocks, on a GPU where there is one. A pass over n × m pairs takes
2nmD operations, 10¹³ for 50,000 × 50,000 in 2,048 dimensions, and some 500 MB beside the features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from targetwise.errors import UserError
from targetwise.files import sha256_of_array
from targetwise.progress import Progress

if TYPE_CHECKING:  # takes seconds, and the report loads the files of metrics for their titles only
    from torch import Tensor

#: The neighbour that a ball reaches to, as in Naeem et al. 2020 and dgm-eval (Stein et al. 2023, arXiv:2306.04675).
K = 5

#: Distances in a block, at most.
BLOCK = 2**24

#: A squared distance |x|² + |y|² − 2x·y counts as equal to another number that it misses by less than this share of
#: |x|² + |y|². Rounding in fp64 makes it miss by less, so < and ≤ differ where images are copies, on every machine.
TIE = 1e-11


@dataclass(frozen=True)
class Balls:
    """Which of n points are in which of m balls, counted.

    Attributes:
        within: of each point, in how many balls it is, their surfaces included (≤), (n,).
        inside: the same without their surfaces (<), (n,).
        held: of each ball, how many points are inside it (<), (m,).
    """

    within: np.ndarray
    inside: np.ndarray
    held: np.ndarray


def kth_neighbours(points: np.ndarray, k: int, others: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's squared distance to its k-th nearest neighbour, fp64 (n,), and which that is, int64 (n,).

    Args:
        points: (n, D).
        k: from 1.
        others: that are its neighbours, (m, D). By default the other points: a point is no neighbour of itself, but a
            copy of it is one.

    Raises:
        UserError: if there are fewer than k neighbours, or values that are not finite.
    """
    found = points if others is None else others
    count = len(found) - (others is None)
    if count < k:
        raise UserError(f"{k} nearest neighbours were asked for, but there are {count} images to be one")
    distances, indices = np.empty(len(points)), np.empty(len(points), np.int64)
    for first, block, _ in _blocks(points, found):
        if others is None:
            block.diagonal(first).fill_(np.inf)
        rows = slice(first, first + len(block))
        indices[rows] = block.topk(k, dim=1, largest=False).indices[:, -1].cpu()
        distances[rows] = np.square(points[rows] - found[indices[rows]].astype(np.float64)).sum(axis=1)
    return distances, indices


def mean_distance(points: np.ndarray, others: np.ndarray) -> float:
    """Return the mean Euclidean distance over all pairs, in equal sets also of a point with itself.

    Args:
        points: (n, D).
        others: (m, D).

    Raises:
        UserError: if there are values that are not finite.
    """
    blocks = _blocks(points, others)
    total = sum(float(block.masked_fill_(block <= ties, 0).sqrt_().sum()) for _, block, ties in blocks)
    return total / (len(points) * len(others))


#: The last counts, by what they are of; a study that asks for all four metrics needs two.
_counted: dict[tuple[Any, ...], Balls] = {}


def balls(points: np.ndarray, centres: np.ndarray, k: int = K) -> Balls:
    """Count which points are in the balls that reach from each centre to its k-th nearest other centre.

    Args:
        points: (n, D).
        centres: (m, D).
        k: from 1.

    Raises:
        UserError: if there are at most k centres, or values that are not finite.
    """
    key = (*((some.shape, some.dtype, sha256_of_array(some)) for some in (points, centres)), k)
    if key not in _counted:
        while len(_counted) > 1:
            _counted.pop(next(iter(_counted)))
        _counted[key] = _count(points, centres, kth_neighbours(centres, k)[0])
    return _counted[key]


def _count(points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray) -> Balls:
    within, inside = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    held = np.zeros(len(centres), np.int64)
    for first, block, ties in _blocks(points, centres):
        block -= block.new_tensor(squared_radii)
        rows = slice(first, first + len(block))
        within[rows] = (block <= ties).sum(1).cpu()
        interior = block < -ties
        inside[rows] = interior.sum(1).cpu()
        held += interior.sum(0).cpu().numpy()
    return Balls(within, inside, held)


def _blocks(points: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, "Tensor", "Tensor"]]:
    """Yield squared distances (b, m) of b points from the first one on, and which differences of theirs are none."""
    import torch

    if not (np.isfinite(points).all() and np.isfinite(others).all()):
        raise UserError("the features hold values that are not finite")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    middle = others.mean(axis=0, dtype=np.float64)  # far from it, the norms would be large and TIE coarse
    columns = torch.from_numpy(others - middle).to(device)
    norms = columns.square().sum(1)
    size = max(1, BLOCK // max(others.shape))
    with Progress("neighbours", len(points), "image", silent=len(points) <= size) as progress:
        for first in range(0, len(points), size):
            rows = torch.from_numpy(points[first : first + size] - middle).to(device)
            sums = rows.square().sum(1, keepdim=True) + norms
            yield first, torch.addmm(sums, rows, columns.T, alpha=-2), sums.mul_(TIE)
            progress.advance(len(rows))
