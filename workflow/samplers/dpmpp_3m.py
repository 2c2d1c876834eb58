"""DPM-Solver++(3M): x̂_0 as the parabola in λ = ln(a/b) through the last three estimates (Lu et al. 2022, section 4).

x_s = (b_s/b_t)·x_t + a_s·∫₀ʰ e^(δ−h)·x̂_0(λ_t + δ) dδ, h = λ_s − λ_t, solved exactly for x̂_0 + c₁·δ + c₂·δ². The first two
steps have fewer estimates, and the last one, to b = 0, is DDIM's. The widespread code of this solver counts c₂ by
half, and is of second order (docs/library.md).
"""

import math


def step(x_t, x_0, now, then, memory):
    """Return x at ``then``."""
    h = math.log(then.a / then.b * now.b / now.a) if then.b and now.a else math.inf
    integral = (1 - then.b / then.a * now.a / now.b) * x_0  # 1 − e^(−h), also where h is infinite
    if memory and h < math.inf:
        first = (x_0 - memory["x_0"]) / memory["h"]
        slope, bend = first, 0.0
        if "first" in memory:
            bend = (first - memory["first"]) / (memory["h"] + memory["h_before"])
            slope = first + memory["h"] * bend
        decay = math.exp(-h)
        integral = integral + (h - 1 + decay) * slope + (h**2 - 2 * h + 2 - 2 * decay) * bend
        memory["first"] = first
    memory |= {"h_before": memory.get("h"), "h": h, "x_0": x_0}
    return then.b / now.b * x_t + then.a * integral
