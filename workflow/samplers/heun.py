"""Heun's method (Karras et al. 2022, algorithm 1) in the time τ = b/(a + c·b), on any path. Two evaluations a step.

y = x/(a + c·b) has dy/dτ = ε̂ − c·x̂_0 = d. Euler's step is DDIM's whatever c is, and from there a second estimate gives
d': x_s + (a_s + c·b_s)·(τ_s − τ_t)·(d' − d)/2. ``c`` 1 is flow matching's time; 0 is EDM's σ = b/a, which takes a path
that ends in almost pure noise badly. The last step, to b = 0, is DDIM's.
"""


def step(x_t, x_0, now, then, memory, denoise, c=1.0):
    """Return x at ``then``."""
    epsilon = (x_t - now.a * x_0) / now.b
    x = then.a * x_0 + then.b * epsilon
    if not then.b or now.a + c * now.b == 0:
        return x
    there, x_0_there = denoise(x, then)
    change = (there - then.a * x_0_there) / then.b - epsilon - c * (x_0_there - x_0)
    return x + (then.b - now.b * (then.a + c * then.b) / (now.a + c * now.b)) / 2 * change
