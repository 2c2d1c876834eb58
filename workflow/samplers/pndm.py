"""PNDM without its Runge-Kutta steps (Liu et al. 2022, arXiv:2202.09778, eq. 13; PLMS), handed ε̂, on any path.

x_s is DDIM's with the mean of ε̂ over the step by Adams and Bashforth: through the last four, if the steps are of one
length. The first step, like diffusers', is Heun's: it asks for a second estimate.
"""

WEIGHTS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def step(x_t, x_0, now, then, memory, denoise):
    """Return x at ``then``."""
    length = memory.setdefault("length", now.t - then.t)
    if then.t > 0 and abs(now.t - then.t - length) > 1:
        raise ValueError("PNDM's steps are of one length; take spacing leading, trailing or linspace")
    epsilon = (x_t - now.a * x_0) / now.b
    x = then.a * x_0 + then.b * epsilon
    last = memory["last"] = [epsilon, *memory.get("last", [])][:4]
    if not now.a or (len(last) == 1 and not then.b):
        return x
    if len(last) == 1:
        there, x_0_there = denoise(x, then)
        mean = (epsilon + (there - then.a * x_0_there) / then.b) / 2
    else:
        mean = sum(weight * each for weight, each in zip(WEIGHTS[len(last)], last, strict=True))
    return x + (then.b - then.a * now.sigma) * (mean - epsilon)
