"""DEIS (Zhang & Chen 2023, arXiv:2204.13902): ε̂ as a polynomial in ln σ through the last estimates, on any path.

With σ = b/a and h = ln(σ_t/σ_s), dx/a = ε̂ dσ is solved exactly for ε̂ + c₁·δ + c₂·δ², δ = ln(σ_t/σ):
x_s = a_s·x̂_0 + b_s·ε̂ − b_s·((e^h − 1 − h)·c₁ + (2e^h − h² − 2h − 2)·c₂). ``order`` 1 is DDIM, 2 leaves c₂ out. The
first steps have fewer estimates, and the last one, to b = 0, is DDIM's.
"""

import math


def step(x_t, x_0, now, then, memory, order=3):
    """Return x at ``then``."""
    if order not in (1, 2, 3):
        raise ValueError(f"order is {order}; it must be 1, 2 or 3")
    epsilon = (x_t - now.a * x_0) / now.b
    x = then.a * x_0 + then.b * epsilon
    h = math.log(then.a / then.b * now.b / now.a) if then.b and now.a else math.inf
    if order > 1 and memory and h < math.inf:
        first = (epsilon - memory["epsilon"]) / memory["h"]
        slope, bend = first, 0.0
        if order > 2 and "first" in memory:
            bend = (first - memory["first"]) / (memory["h"] + memory["h_before"])
            slope = first + memory["h"] * bend
        x = x - then.b * ((math.expm1(h) - h) * slope + (2 * math.expm1(h) - h**2 - 2 * h) * bend)
        memory["first"] = first
    memory |= {"h_before": memory.get("h"), "h": h, "epsilon": epsilon}
    return x
