"""Where on the noise path a sampler's steps begin and end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from targetwise.diffusion.schedule import make_schedule


@dataclass(frozen=True)
class Point:
    """A place on the noise path, x = a·x_0 + b·ε, and its time step t; −1 is the noise-free end."""

    a: float
    b: float
    t: int


def trajectory(
    diffusion: Mapping[str, Any], parameters: Mapping[str, float], options: Mapping[str, Any]
) -> list[Point]:
    """Return the points that a sampler goes through, from noise to the image.

    Args:
        diffusion: the noise path.
        parameters: the variant's constants, which the path may use.
        options: ``steps`` (n) of T; ``spacing``, as diffusers has it: ``leading`` is every (T // n)-th time step from
            0 up, ``trailing`` begins at T − 1; ``last_alpha_is_one``, whether the end is an image without noise or
            t = 0.
    """
    path = make_schedule(diffusion, parameters, dtype=torch.float64)
    T, steps = diffusion["timesteps"], options["steps"]
    if options["spacing"] == "leading":
        timesteps = [T // steps * step for step in reversed(range(steps))]
    else:
        timesteps = [round(T - step * T / steps) - 1 for step in range(steps)]
    points = [Point(path["sqrt_alpha"][t].item(), path["sqrt_one_minus_alpha"][t].item(), t) for t in timesteps]
    end = Point(1.0, 0.0, -1)
    if not options["last_alpha_is_one"]:
        end = Point(path["sqrt_alpha"][0].item(), path["sqrt_one_minus_alpha"][0].item(), 0)
    # Where a path has no noise, x_t is the image already and says nothing of ε: no step begins there.
    return [*(point for point in points if point.b > 0), end]
