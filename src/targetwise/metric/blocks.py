"""The standard error of a kernel distance, by disjoint blocks of samples.

A block's part of the distance is U(block) − 2·mean k(x, y), with U the mean of k(x, x') over its pairs and y the same
reference images for each block: the reference counts as fixed. Over blocks of m samples it varies by A/m + B/m², over
half blocks by 2A/m + 4B/m², which gives A and B. The number itself, a mean over R random subsets of s samples and s
reference images (Bińkowski et al. 2018), varies by

    A·(1/n + (1/s − 1/n)/R) + B·(1/n² + (1/s² − 1/n²)/R + 2/(R·s²))

The last term is what the pairs of a subset's samples with its reference images add, if both scatter alike.
"""

import numpy as np

from targetwise.metric.contributions import Contributions, NoErrorKnown, Part, shuffled
from targetwise.metric.distance import SUBSET, SUBSETS, kernel

METHOD = "disjoint blocks and their halves"

#: Blocks, as far as each then has as many samples as ``LEAST``; at least ``FEWEST``.
BLOCKS, FEWEST, LEAST = 50, 10, 20

#: Reference images that blocks are compared with, at most.
COMPARED = 5000


def kernel_contributions(features: np.ndarray, other: np.ndarray) -> Contributions:
    """Return the contributions of blocks of samples to their kernel distance from a reference.

    Args:
        features: of the samples, (n, D).
        other: of the reference, (N, D).

    Raises:
        NoErrorKnown: if there are too few samples.
    """
    count = len(features)
    if count < FEWEST * LEAST:
        raise NoErrorKnown(f"{count:,} samples are fewer than {FEWEST * LEAST}")
    blocks = max(min(BLOCKS, count // LEAST), count // SUBSET)
    size = count // blocks // 2 * 2
    order, digest = shuffled(count)
    compared = other[shuffled(len(other))[0][:COMPARED]]
    whole, halves = [], []
    for place in range(blocks):
        block = features[order[place * size : (place + 1) * size]]
        within, across = kernel(block, block), kernel(block, compared).mean(axis=1, dtype=np.float64)
        whole.append(_unbiased(within, across))
        for half in (slice(size // 2), slice(size // 2, size)):
            halves.append(_unbiased(within[half, half], across[half]))
    linear, quadratic = (_variance(count, min(count, len(other), SUBSET), power) for power in (1, 2))
    # Of what the whole blocks' and the half blocks' mean vary by, A/(m·K) + B/(m²·K) and A/(m·K) + 2B/(m²·K).
    a, b = linear * size * blocks, quadratic * size**2 * blocks
    parts = (Part(2 * a - b, np.array(whole)), Part(b - a, np.array(halves)))
    return Contributions(METHOD, digest, parts, least=min(a, b), most=max(a, b))


def _unbiased(within: np.ndarray, across: np.ndarray) -> float:
    count = len(within)
    pairs = (within.sum(dtype=np.float64) - np.trace(within, dtype=np.float64)) / (count * (count - 1))
    return float(pairs - 2 * across.mean())


def _variance(count: int, subset: int, power: int) -> float:
    """Return the factor of A (power 1) or B (power 2)."""
    whole, part = float(count) ** -power, float(subset) ** -power
    return whole + (part - whole) / SUBSETS + (2 * part / SUBSETS if power == 2 else 0.0)
