"""UniPC-2 (Zhao et al. 2023, arXiv:2302.04867, B₂), on any path; the last step, to b = 0, is DDIM's.

Predictor: with λ = ln(a/b), h = λ_s − λ_t, D = x̂_0 + (h/2)·(slope of x̂_0 over the step before), x_s = (b_s/b_t)·x_t +
a_s·(1 − e^(−h))·D, which is DPM-Solver++(2M). Corrector, with the next step's estimate: the same step with the
parabola through three estimates, ∫₀ʰ e^(δ−h)·x̂_0(λ_t + δ) dδ, in place of (1 − e^(−h))·D; after the first step, D is
the mean of two.
"""

import math


def step(x_t, x_0, now, then, memory):
    """Return x at ``then``."""
    slope = 0.0
    if memory:
        h, change = memory["h"], x_0 - memory["x_0"]
        slope, before, decay = change / h, memory["slope"], math.exp(-h)
        if memory["h_before"] is None:
            missed = (1 - decay) / 2 * change
        else:
            bend = (slope - before) / (h + memory["h_before"])
            exact = (h - 1 + decay) * (slope - h * bend) + (h**2 - 2 * h + 2 - 2 * decay) * bend
            missed = exact - (1 - decay) * h / 2 * before
        x_t = x_t + now.a * missed
    h = math.log(then.a / then.b * now.b / now.a) if then.b and now.a else math.inf
    extrapolated = x_0 + h / 2 * slope if memory and h < math.inf else x_0
    memory |= {"h_before": memory.get("h"), "h": h, "x_0": x_0, "slope": slope}
    return then.b / now.b * x_t + (then.a - now.a * then.b / now.b) * extrapolated
