"""−dλ/dτ·SNR·sigmoid(β − λ), λ = ln SNR, τ = (t + ½)/T (Kingma & Gao 2023, arXiv:2303.00848, section 3).

There sigmoid(β − λ) weighs the epsilon loss under an integral over λ. SNR turns it into a weight of the x0 error, and the
slope of λ brings it to time steps drawn uniformly, so the objective is the same on every path. The parameter ``beta``
is β, −3 by default (Hoogeboom et al. 2024, arXiv:2410.19324, for small images).
"""

import torch


def weight(schedule):
    """Return −dλ/dτ·SNR·sigmoid(β − λ), shape (T,)."""
    snr = schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2
    lam = snr[snr > 0].log()
    (slope,) = torch.gradient(lam, spacing=1 / len(snr))
    weight = -slope * snr[: len(lam)] * torch.sigmoid(schedule.get("beta", -3.0) - lam)
    return torch.cat([weight, snr[len(lam) :]])  # 0 where the SNR is, at the last step
