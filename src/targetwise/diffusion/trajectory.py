"""Where on the noise path a sampler's steps begin and end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from targetwise.diffusion.schedule import make_schedule
from targetwise.errors import UserError


@dataclass(frozen=True)
class Point:
    """A place on the noise path, x = a·x_0 + b·ε, and its time step t; −1 is the noise-free end."""

    a: float
    b: float
    t: int

    @property
    def sigma(self) -> float:
        """Return σ = b/a, the noise of x/a; infinite where nothing is left of the image."""
        return self.b / self.a if self.a else math.inf


def points(diffusion: Mapping[str, Any], parameters: Mapping[str, float]) -> list[Point]:
    """Return the points of a noise path, t = 0 … T−1; see :func:`trajectory`."""
    path = make_schedule(diffusion, parameters, dtype=torch.float64)
    a, b = path["sqrt_alpha"].tolist(), path["sqrt_one_minus_alpha"].tolist()
    return [Point(*coefficients, t) for t, coefficients in enumerate(zip(a, b, strict=True))]


def trajectory(
    diffusion: Mapping[str, Any], parameters: Mapping[str, float], options: Mapping[str, Any]
) -> list[Point]:
    """Return the points that a sampler goes through, from noise to the image.

    Args:
        diffusion: the noise path.
        parameters: the variant's constants, which the path may use.
        options: ``steps`` (n) of T; ``spacing``: ``leading`` is every (T // n)-th time step from 0 up, ``trailing``
            begins at T − 1, ``linspace`` has both T − 1 and 0 (these as in diffusers), and so has ``lambda_uniform``,
            which is even in λ = ln SNR; ``last_alpha_is_one``, whether the end is an image without noise or t = 0.

    Raises:
        UserError: if λ is not finite where it must be.
    """
    path = points(diffusion, parameters)
    timesteps = _time_steps(path, options["spacing"], options["steps"], diffusion["schedule"])
    end = Point(1.0, 0.0, -1) if options["last_alpha_is_one"] else path[0]
    # Where a path has no noise, x_t is the image already and says nothing of ε: no step begins there.
    return [*(path[t] for t in timesteps if path[t].b > 0), end]


def _time_steps(path: list[Point], spacing: str, steps: int, schedule: str) -> list[int]:
    T = len(path)
    match spacing:
        case "leading":
            return [T // steps * step for step in reversed(range(steps))]
        case "trailing":
            return [round(T - step * T / steps) - 1 for step in range(steps)]
        case "linspace":
            timesteps: list[int] = np.linspace(0, T - 1, steps).round().astype(int)[::-1].tolist()
            return timesteps
    for point in path:
        if not (point.a and point.b):
            raise UserError(
                f"spacing lambda_uniform needs a finite SNR at every time step, and path '{schedule}' has none at "
                f"t = {point.t}; take another spacing"
            )
    half_lambda = -np.log([point.sigma for point in path])
    even = np.linspace(half_lambda[-1], half_lambda[0], steps)
    found: list[int] = []
    for step, t in enumerate(np.abs(even[:, None] - half_lambda).argmin(1).tolist()):
        # Where time steps are sparser in λ than the steps, several have one nearest: then each takes the one below
        # the last, and leaves one for each that follows.
        below = found[-1] - 1 if found else T - 1
        found.append(max(min(t, below), steps - 1 - step))
    return found
