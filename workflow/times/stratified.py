"""One time step from each of as many equal parts of the axis as there are images (Owen 2013, chapter 8).

As uniform, but no batch has many steps from one end by chance, so the gradient varies less from batch to batch.
"""

import numpy as np
import torch


def density(schedule):
    """Return p(t) ∝ 1, shape (T,)."""
    return torch.ones_like(schedule["sqrt_alpha"])


def draw(random, count, schedule):
    """Draw ``count`` time steps, the k-th from the k-th part."""
    places = (np.arange(count) + random.random(count)) / count
    return (places * len(schedule["sqrt_alpha"])).astype(np.int64)
