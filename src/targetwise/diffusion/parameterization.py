"""Load a parameterization file: two pure tensor functions, and nothing else is asked of it.

The signature is that of the reference task, so a file written for it runs here unchanged::

    compute_training_target(x_0, noise, timesteps, schedule) -> target   # all (B, C, H, W); timesteps (B,) int64
    predict_x0(model_output, x_t, timesteps, schedule) -> x0 estimate
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from targetwise.config import parameterization_file
from targetwise.errors import UserError, in_one_line
from targetwise.files import sha256_of_file

FUNCTIONS = ("compute_training_target", "predict_x0")


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
    return load_file(parameterization_file(target))


def load_file(path: Path) -> Parameterization:
    """Load a parameterization from any file; see :func:`load`."""
    spec = importlib.util.spec_from_file_location(f"targetwise_parameterization_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} does not run: {in_one_line(error)}") from error
    for function in FUNCTIONS:
        if not callable(getattr(module, function, None)):
            raise UserError(f"{path} must define {' and '.join(FUNCTIONS)}; {function} is not there")
    return Parameterization(path.stem, sha256_of_file(path), module.compute_training_target, module.predict_x0)


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
