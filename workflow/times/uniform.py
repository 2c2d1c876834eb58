"""Every time step is as likely as any other (Ho, Jain & Abbeel 2020, algorithm 1)."""

import numpy as np
import torch


def density(schedule):
    """Return p(t) ∝ 1, shape (T,)."""
    return torch.ones_like(schedule["sqrt_alpha"])


def draw(random, count, schedule):
    """Draw ``count`` time steps."""
    return random.integers(0, len(schedule["sqrt_alpha"]), size=count, dtype=np.int64)
