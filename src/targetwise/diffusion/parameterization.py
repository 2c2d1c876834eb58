"""Load a parameterization file: two pure tensor functions, and nothing else is needed.

The signature is that of the reference task, so a file written for it runs here unchanged::

    compute_training_target(x_0, noise, timesteps, schedule) -> target   # all (B, C, H, W); timesteps (B,) int64
    predict_x0(model_output, x_t, timesteps, schedule) -> x0 estimate
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from targetwise.errors import UserError
from targetwise.recipe import kinds


@dataclass(frozen=True)
class Parameterization:
    """What the network outputs, and how x0 is read from it."""

    name: str
    digest: str
    compute_training_target: Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    predict_x0: Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def load(target: str) -> Parameterization:
    """Load ``workflow/parameterizations/<target>.py``.

    Raises:
        UserError: if the file is missing, fails to run, or lacks one of the two functions.
    """
    return _of(kinds.load("parameterizations", target))


def load_file(path: Path) -> Parameterization:
    """Load a parameterization from any file; see :func:`load`."""
    return _of(kinds.load_file("parameterizations", path))


def _of(source: kinds.Source) -> Parameterization:
    return Parameterization(source.name, source.digest, source["compute_training_target"], source["predict_x0"])


def probe_output_channels(
    parameterization: Parameterization, channels: int, image_size: int, schedule: Mapping[str, Tensor]
) -> int:
    """Return how many channels the network must output, read off the target's shape.

    Raises:
        UserError: if the target is not (B, C', H, W) with the images' B, H and W.
    """
    image = torch.zeros(2, channels, image_size, image_size)
    target = parameterization.compute_training_target(image, image, torch.tensor([0, 1]), schedule)
    wanted = (2, image_size, image_size)
    if target.ndim != 4 or (target.shape[0], *target.shape[2:]) != wanted:
        raise UserError(
            f"{parameterization.name}: compute_training_target returned shape {tuple(target.shape)} for images "
            f"of shape {tuple(image.shape)}; only the number of channels may differ"
        )
    return target.shape[1]
