"""Noise paths: x_t = a·x_0 + b·ε at the time steps t = 0 … T−1; ``workflow/paths/`` says what a and b are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from targetwise.errors import UserError
from targetwise.recipe import kinds

Schedule = dict[str, Tensor]


def make_schedule(
    diffusion: Mapping[str, Any],
    parameters: Mapping[str, float] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Schedule:
    """Build the mapping that both functions of a parameterization receive.

    Args:
        diffusion: ``schedule`` (the path's name), ``timesteps`` (T), and what else the path's file reads; with
            ``zero_terminal_snr`` the path is rescaled so that no image is left at t = T − 1.
        parameters: a variant's own constants (``sigma_data``, an angle, …), added as 0-d tensors; the path's file
            sees them too.
        dtype: of the tensors.
        device: where the tensors live.

    Returns:
        1-D tensors of length T ``alphas_cumprod`` (a²), ``sqrt_alpha`` (a), ``sqrt_one_minus_alpha`` (b), and the
        parameters.

    Raises:
        UserError: if the path's file is missing, fails, or gives no path from image to noise; or if it cannot be
            rescaled.
    """
    a, b = _coefficients(diffusion, parameters or {})
    alphas_cumprod = (a**2).to(device, dtype)
    if preserves_variance(a, b) and _is_of_fp32(a**2):
        # As diffusers computes them, in the type that was asked for: on its own paths we share every bit with it. Of
        # others this would lose what is smaller than the rounding of 1 − a².
        a, b = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
    schedule = {
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alpha": a.to(device, dtype),
        "sqrt_one_minus_alpha": b.to(device, dtype),
    }
    for name, value in (parameters or {}).items():
        if name in schedule:
            raise ValueError(f"a parameter called {name} would hide the schedule's own")
        schedule[name] = torch.tensor(value, dtype=dtype, device=device)
    return schedule


def preserves_variance(a: Tensor, b: Tensor) -> bool:
    """Return whether a² + b² = 1 at every time step, in fp64."""
    return bool(((a**2 + b**2 - 1).abs() < 1e-12).all())


def _is_of_fp32(values: Tensor) -> bool:
    """Return whether fp64 numbers are fp32 ones, but for the last bits of fp64."""
    return torch.allclose(values.float().double(), values, rtol=1e-14, atol=0)


def _coefficients(diffusion: Mapping[str, Any], parameters: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Return a and b of the path, and make sure that they are ones."""
    name, T = diffusion["schedule"], diffusion["timesteps"]
    path = kinds.load("paths", name)
    made = path.call("coefficients", T, {**diffusion, **parameters})
    file = kinds.file_of("paths", name)
    forms = [(each.dtype, each.shape) for each in made] if isinstance(made, tuple) else []
    if forms != 2 * [(torch.float64, (T,))]:
        raise UserError(f"{file}: coefficients must return a and b, two fp64 tensors of shape ({T},)")
    a, b = made
    for letter, values in (("a", a), ("b", b)):
        wrong = (~values.isfinite() | (values < 0)).nonzero()
        if len(wrong):
            t = int(wrong[0, 0])
            raise UserError(f"{file}: {letter} is {values[t].item():g} at t = {t}; it must be a number of at least 0")
    # a/b falls, written without a quotient, because b may be 0 at the first step.
    rising = (a[1:] * b[:-1] >= a[:-1] * b[1:]).nonzero()
    if len(rising):
        t = int(rising[0, 0])
        raise UserError(f"{file}: a/b does not fall from t = {t} to t = {t + 1}; noise must grow with t")
    return _without_image_at_the_end(a, b, file) if diffusion.get("zero_terminal_snr") else (a, b)


def _without_image_at_the_end(a: Tensor, b: Tensor, file: Path) -> tuple[Tensor, Tensor]:
    """Shift and stretch a: it ends at 0 and begins where it did (Lin et al. 2024, arXiv:2305.08891, algorithm 1).

    There the variance is preserved, which gives b. On other paths nothing says what b should be.
    """
    if a[-1] == 0:
        return a, b
    if not preserves_variance(a, b):
        raise UserError(
            f"{file}: a is {a[-1].item():.3g} at t = {len(a) - 1} and a² + b² is not 1; diffusion.zero_terminal_snr "
            "takes a path that preserves variance, or ends at a = 0 by itself"
        )
    a = (a - a[-1]) * a[0] / (a[0] - a[-1])
    return a, (1 - a**2).sqrt()


def at(schedule: Mapping[str, Tensor], timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b at ``timesteps`` (B,), each shaped (B, 1, 1, 1)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return a, b


def add_noise(x_0: Tensor, noise: Tensor, timesteps: Tensor, schedule: Mapping[str, Tensor]) -> Tensor:
    """Return x_t = a·x_0 + b·ε; images (B, C, H, W) in [-1, 1], ``timesteps`` (B,) int64."""
    a, b = at(schedule, timesteps)
    return a * x_0 + b * noise
