"""EDM's stochastic sampler (Karras et al. 2022, algorithm 2), on any path; σ = b/a. Two evaluations a step.

Each step is Heun's down to σ_s/(1 + γ), γ = min(s_churn/n, √2 − 1), and from there up to σ_s by fresh noise. The
paper's step begins with the noise that ours ends with; so no estimate is made in vain. σ_s/(1 + γ) is that of the
nearest time step; where it is not within s_tmin … s_tmax, no noise is added. Constants: table 5, CIFAR-10, VP.
Heun's method is that of heun.py, in the time b/(a + c·b).
"""

import math


def step(
    x_t, x_0, now, then, memory, denoise, noise, path, steps, s_churn=30, s_tmin=0.01, s_tmax=1, s_noise=1.007, c=1
):
    """Return x at ``then``."""
    low, target = then, then.sigma / (1 + min(s_churn / steps, math.sqrt(2) - 1))
    nearest = min((point for point in path if point.t <= then.t), key=lambda p: abs(p.sigma - target), default=then)
    if s_tmin <= nearest.sigma <= s_tmax:
        low = nearest
    epsilon = (x_t - now.a * x_0) / now.b
    x = low.a * x_0 + low.b * epsilon
    if low.b and now.a + c * now.b:
        there, x_0_there = denoise(x, low)
        change = (there - low.a * x_0_there) / low.b - epsilon - c * (x_0_there - x_0)
        x = x + (low.b - now.b * (low.a + c * low.b) / (now.a + c * now.b)) / 2 * change
    return x if low == then else then.a * (x / low.a + s_noise * math.sqrt(then.sigma**2 - low.sigma**2) * noise)
