"""a = cos(π·τ/2), b = sin(π·τ/2), τ = (t + ½)/T: the cosine path without an offset (Salimans & Ho 2022, section 3).

diffusers' cosine path is another one: it begins later, is made of β, and has them at most 0.999.
"""

import math

import torch


def coefficients(timesteps, options):
    """Return a and b at every time step, each (T,) fp64."""
    angle = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps * math.pi / 2
    return angle.cos(), angle.sin()
