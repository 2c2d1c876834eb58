"""Ancestral sampling (DDPM; Ho et al. 2020, eq. 7), on any path: x_s drawn from q(x_s | x_t, x̂_0).

With q = (a_t/b_t)/(a_s/b_s) and ε̂ = (x_t − a_t·x̂_0)/b_t it is normal of mean a_s·x̂_0 + q·b_s·ε̂ and deviation
b_s·sqrt(1 − q²): DDPM's smaller variance. ``eta`` scales the deviation (Song et al. 2021, eq. 16); 0 is DDIM.
"""

import math


def step(x_t, x_0, now, then, memory, noise, eta=1.0):
    """Return x at ``then``."""
    epsilon = (x_t - now.a * x_0) / now.b
    deviation = eta * then.b * math.sqrt(1 - (now.a * then.b / (now.b * then.a)) ** 2)
    return then.a * x_0 + math.sqrt(then.b**2 - deviation**2) * epsilon + deviation * noise
