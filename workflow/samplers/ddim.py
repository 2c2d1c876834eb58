"""DDIM with η = 0 (Song et al. 2021, eq. 12): x_s = a_s·x̂_0 + b_s·ε̂, ε̂ = (x_t − a_t·x̂_0) / b_t, on any path."""


def step(x_t, x_0, now, then, memory):
    """Return x at ``then``."""
    return then.a * x_0 + then.b * (x_t - now.a * x_0) / now.b
