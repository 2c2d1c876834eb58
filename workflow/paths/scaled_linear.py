"""ᾱ_t = Π (1 − β_s) with sqrt(β) rising linearly (Rombach et al. 2022): a = sqrt(ᾱ), b = sqrt(1 − ᾱ)."""

import torch


def coefficients(timesteps, options):
    """Return a and b at every time step, each (T,) fp64."""
    first, last = options["beta_start"] ** 0.5, options["beta_end"] ** 0.5
    betas = torch.linspace(first, last, timesteps, dtype=torch.float32) ** 2
    alphas_cumprod = (1 - betas).cumprod(dim=0).double()  # fp32 so far: the bits of diffusers
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
