"""ᾱ_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + 0.008)/1.008), with β at most 0.999 (Nichol & Dhariwal 2021, eq. 17).

a = sqrt(ᾱ), b = sqrt(1 − ᾱ).
"""

import math

import torch


def coefficients(timesteps, options):
    """Return a and b at every time step, each (T,) fp64."""
    f = [math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(timesteps + 1)]
    betas = torch.tensor([min(1 - f[t + 1] / f[t], 0.999) for t in range(timesteps)], dtype=torch.float32)
    alphas_cumprod = (1 - betas).cumprod(dim=0).double()  # fp32 so far: the bits of diffusers
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
