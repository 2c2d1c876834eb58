"""λ = ln SNR is normal, whatever the path: p(t) ∝ N(λ; mean, deviation)·|dλ/dt| (Karras et al. 2022, table 1).

Parameters: ``log_snr_mean`` and ``log_snr_deviation``, both 2.4 by default: there ln σ = −λ/2 has −1.2 and 1.2.
"""

import torch


def density(schedule):
    """Return p(t) ∝ exp(−((λ − mean)/deviation)²/2)·|dλ/dt|, shape (T,)."""
    mean, deviation = schedule.get("log_snr_mean", 2.4), schedule.get("log_snr_deviation", 2.4)
    ratio = schedule["sqrt_alpha"] / schedule["sqrt_one_minus_alpha"]
    lam = 2 * ratio[ratio > 0].log()
    (slope,) = torch.gradient(lam)
    density = torch.exp(-(((lam - mean) / deviation) ** 2) / 2) * slope.abs()
    return torch.cat([density, ratio[len(lam) :]])  # 0 where the SNR is, at the last step
