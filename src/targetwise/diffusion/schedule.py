"""Noise schedules: x_t = a·x_0 + b·ε with a = sqrt(ᾱ_t), b = sqrt(1 − ᾱ_t), t = 0 … T−1.

The values come from diffusers, so that training and its samplers share every bit.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

#: Our names for the schedules, and what diffusers calls them.
BETA_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}

Schedule = dict[str, Tensor]


def diffusers_options(diffusion: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the configuration's ``diffusion`` section into arguments of a diffusers scheduler."""
    return {
        "num_train_timesteps": diffusion["timesteps"],
        "beta_schedule": BETA_SCHEDULES[diffusion["schedule"]],
        "beta_start": diffusion["beta_start"],
        "beta_end": diffusion["beta_end"],
    }


def make_schedule(
    diffusion: Mapping[str, Any],
    parameters: Mapping[str, float] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Schedule:
    """Build the mapping that both functions of a parameterization receive.

    Args:
        diffusion: ``schedule``, ``timesteps`` (T), ``beta_start``, ``beta_end``.
        parameters: a variant's own constants (``sigma_data``, an angle, …), added as 0-d tensors.
        dtype: of the tensors; the values are the fp32 ones of diffusers, widened or narrowed.
        device: where the tensors live.

    Returns:
        1-D tensors of length T ``alphas_cumprod`` (ᾱ), ``sqrt_alpha`` (a), ``sqrt_one_minus_alpha`` (b), and
        the parameters.
    """
    alphas_cumprod = DDIMScheduler(**diffusers_options(diffusion)).alphas_cumprod.to(device, dtype)
    schedule = {
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alpha": alphas_cumprod.sqrt(),
        "sqrt_one_minus_alpha": (1 - alphas_cumprod).sqrt(),
    }
    for name, value in (parameters or {}).items():
        if name in schedule:
            raise ValueError(f"a parameter called {name} would hide the schedule's own")
        schedule[name] = torch.tensor(value, dtype=dtype, device=device)
    return schedule


def at(schedule: Mapping[str, Tensor], timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b at ``timesteps`` (B,), each shaped (B, 1, 1, 1)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return a, b


def add_noise(x_0: Tensor, noise: Tensor, timesteps: Tensor, schedule: Mapping[str, Tensor]) -> Tensor:
    """Return x_t = a·x_0 + b·ε; images (B, C, H, W) in [-1, 1], ``timesteps`` (B,) int64."""
    a, b = at(schedule, timesteps)
    return a * x_0 + b * noise
