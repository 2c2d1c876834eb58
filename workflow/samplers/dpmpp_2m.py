"""DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2), on any path; the last step to b = 0 is DDIM's.

With λ = ln(a/b), h = λ_s − λ_t, h' and x̂' of the step before: D = x̂_0 + h/(2h')·(x̂_0 − x̂'), and
x_s = (b_s/b_t)·x_t + (a_s − a_t·b_s/b_t)·D.
"""

import math


def step(x_t, x_0, now, then, memory):
    """Return x at ``then``."""
    h = math.log(then.a / then.b * now.b / now.a) if then.b and now.a else math.inf
    extrapolated = x_0
    if memory and h < math.inf:
        extrapolated = x_0 + h / (2 * memory["h"]) * (x_0 - memory["x_0"])
    memory |= {"h": h, "x_0": x_0}
    return then.b / now.b * x_t + (then.a - now.a * then.b / now.b) * extrapolated
