"""Most time steps in the middle: logit(u) is normal, u = (t + 1/2)/T (Esser et al. 2024, section 3.1).

Parameters: ``logit_mean``, by default 0 (below it, less noise), and ``logit_deviation``, by default 1.
"""

import torch


def density(schedule):
    """Return p(t) ∝ exp(−(logit(u) − mean)²/(2·deviation²)) / (u·(1 − u)), shape (T,)."""
    mean, deviation = schedule.get("logit_mean", 0.0), schedule.get("logit_deviation", 1.0)
    steps = len(schedule["sqrt_alpha"])
    u = (torch.arange(steps, dtype=torch.float64, device=schedule["sqrt_alpha"].device) + 0.5) / steps
    return torch.exp(-(((torch.logit(u) - mean) / deviation) ** 2) / 2) / (u * (1 - u))
