"""A spiral in a plane of a space of many dimensions: data whose own dimension is known, and small.

JiT's toy (Li & He 2025, arXiv:2511.13720, Fig. 2): two-dimensional points, embedded by a fixed matrix with
orthonormal columns. We found neither the spiral's formula nor its scale in the paper. Here it is
s(t) = t·(cos t, sin t)/(4.5π), t uniform from 1.5π to 4.5π: one and a half turns, the cross-section of scikit-learn's
Swiss roll. A point's image is

    x = REACH·√(D/2)·P·s,    P (D × 2), PᵀP = 1.

The factor √(D/2) keeps what a coordinate deviates by (0.39) the same for every D, where the paper's embedding keeps
the norm. So x fills the range of an image, its 256 levels are fine enough, and as with images the noise per
coordinate does not outgrow the data; in the plane they stand out of the noise √(D/2) times as far as in the paper.

P has rows of one length, √(2/D)·(cos φ_d, sin φ_d), so that one range holds every coordinate: the D angles are spaced
by π/D, which makes the columns orthonormal, with a random rotation, order and signs. A matrix uniform over all such
would have rows up to 2.5 times as long as they are on average (D = 512), and the data had to be as much smaller.
"""

import math

import numpy as np

#: From which angle to which the spiral goes.
TURNS = (1.5 * math.pi, 4.5 * math.pi)

#: The largest coordinate in [-1, 1]; beyond it samples have some room before they are cut off.
REACH = 0.8

#: Of the points, and of the plane; RandomState's stream is frozen by numpy's policy.
POINTS, PLANE = 0, 1


def points(count: int) -> np.ndarray:
    """Return ``count`` points of the plane, (count, 2) fp64, none longer than 1; the first are those of any count."""
    low, high = TURNS
    t = low + (high - low) * np.random.RandomState(POINTS).random_sample(count)
    return np.stack([np.cos(t), np.sin(t)], axis=1) * (t / high)[:, None]


def plane(dimensions: int) -> np.ndarray:
    """Return P: two orthonormal columns, (dimensions, 2) fp64."""
    random = np.random.RandomState(PLANE)
    angles = math.pi * (random.random_sample() + random.permutation(dimensions) / dimensions)
    signs = 2 * random.randint(2, size=dimensions) - 1
    rows: np.ndarray = np.stack([np.cos(angles), np.sin(angles)], axis=1) * signs[:, None]
    return rows * math.sqrt(2 / dimensions)


def levels(count: int, dimensions: int) -> np.ndarray:
    """Return the images of ``count`` points before they are rounded to levels 0 … 255, (count, dimensions) fp64."""
    embedded: np.ndarray = math.sqrt(dimensions / 2) * points(count) @ plane(dimensions).T
    return (REACH * embedded + 1) * 127.5


def images(count: int, dimensions: int) -> np.ndarray:
    """Return the images of ``count`` points, (count, 1, 1, dimensions) uint8."""
    return np.round(levels(count, dimensions)).astype(np.uint8)[:, None, None, :]
