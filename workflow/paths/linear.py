"""ᾱ_t = Π (1 − β_s) with β rising linearly (Ho et al. 2020, section 4): a = sqrt(ᾱ), b = sqrt(1 − ᾱ)."""

import torch


def coefficients(timesteps, options):
    """Return a and b at every time step, each (T,) fp64."""
    betas = torch.linspace(options["beta_start"], options["beta_end"], timesteps, dtype=torch.float32)
    alphas_cumprod = (1 - betas).cumprod(dim=0).double()  # fp32 so far: the bits of diffusers
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
