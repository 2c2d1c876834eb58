"""Require a parameterization's two functions to be pure: a tensor comes out, and nothing else happens.

Training and sampling rely on it in each of their steps: a run that was resumed, shared by other processes or compiled
has the bits of one that was not, but only if the functions neither keep a state nor change that of the process.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targetwise.diffusion.parameterization import Parameterization
from targetwise.errors import UserError, in_one_line

#: What each function calls its first two arguments.
ARGUMENTS = {"compute_training_target": ("x_0", "noise"), "predict_x0": ("model_output", "x_t")}

#: What a file could change for all that runs after it in its process.
SETTINGS: dict[str, Callable[[], Any]] = {
    "torch's default type": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's grad mode": torch.is_grad_enabled,
    "torch's number of threads": torch.get_num_threads,
    "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "torch's matmul precision": torch.get_float32_matmul_precision,
    "torch's autocast on the CPU": lambda: torch.is_autocast_enabled("cpu"),
    "torch's autocast on CUDA": lambda: torch.is_autocast_enabled("cuda"),
    "cuDNN's deterministic": lambda: torch.backends.cudnn.deterministic,
    "cuDNN's benchmark": lambda: torch.backends.cudnn.benchmark,
    "the working directory": os.getcwd,
}
RANDOM_STATES: dict[str, Callable[[], Any]] = {
    "torch's global random state": lambda: torch.get_rng_state().numpy().tobytes(),
    "NumPy's global random state": lambda: [
        part.tobytes() if isinstance(part, np.ndarray) else part
        for part in np.random.get_state()  # noqa: NPY002 -- the state that must not be used
    ],
    "Python's global random state": random.getstate,
}


def enforced(space: Parameterization) -> Parameterization:
    """Return the parameterization with functions that raise where a call breaks a rule.

    The rules: the function returns, and twice the same for the same arguments, which it leaves alone, as it leaves
    the process (:func:`process_kept`); the result is a floating-point tensor of the images' shape, except that a
    target may have another number of channels.

    Returns:
        The parameterization, each of whose functions raises UserError with its name and the rule.
    """
    return replace(
        space,
        compute_training_target=partial(_call, space, "compute_training_target"),
        predict_x0=partial(_call, space, "predict_x0"),
    )


@contextmanager
def process_kept(what: str) -> Iterator[None]:
    """Refuse a block that leaves the process's settings or global random states changed.

    Raises:
        UserError: beginning with ``what``.
    """
    states = {**SETTINGS, **RANDOM_STATES}
    before = {name: read() for name, read in states.items()}
    yield
    for name, read in states.items():
        now = read()
        if now != before[name]:
            how = "by drawing or seeding" if name in RANDOM_STATES else f"from {before[name]} to {now}"
            raise UserError(f"{what} changes {name} {how}; a parameterization must leave the process as it found it")


def _call(
    space: Parameterization,
    function: str,
    first: Tensor,
    second: Tensor,
    timesteps: Tensor,
    schedule: Mapping[str, Tensor],
) -> Tensor:
    what = f"parameterization {space.name}: {function}"
    before = {name: value.clone() for name, value in _arguments(function, first, second, timesteps, schedule).items()}

    def answer() -> Tensor:
        try:
            return getattr(space, function)(first, second, timesteps, schedule)
        except (Exception, SystemExit) as error:
            raise UserError(f"{what} fails for {_batch(timesteps)}: {in_one_line(error)}") from error

    with process_kept(what):
        result = answer()
    after = _arguments(function, first, second, timesteps, schedule)
    for name in {**before, **after}:
        if name not in before or name not in after or not _same(before[name], after[name]):
            raise UserError(f"{what} changes its argument {name} in place; it must leave its arguments alone")
    _require_images(what, function, result, second)
    if not _same(result, answer()):
        raise UserError(
            f"{what} returns another result when it is called again with the same arguments; its result must "
            "depend on nothing else"
        )
    return result


def _arguments(
    function: str, first: Tensor, second: Tensor, timesteps: Tensor, schedule: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    named = dict(zip(ARGUMENTS[function], (first, second), strict=True))
    return {**named, "timesteps": timesteps, **{f'schedule["{name}"]': value for name, value in schedule.items()}}


def _batch(timesteps: Tensor) -> str:
    first, last = int(timesteps.min()), int(timesteps.max())
    if len(timesteps) == 1:
        return f"1 image (t = {first})"
    return f"{len(timesteps)} images (t = {first} … {last})"


def _require_images(what: str, function: str, result: Any, images: Tensor) -> None:
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise UserError(f"{what} returned {kind}; it must return a floating-point tensor")
    found, wanted = list(result.shape), list(images.shape)
    free = "; only the number of channels may differ" if function == "compute_training_target" else ""
    if free and len(found) == len(wanted):
        wanted[1] = found[1]
    if found != wanted:
        raise UserError(
            f"{what} returned shape {tuple(result.shape)} for images of shape {tuple(images.shape)}{free}"
        )


def _same(one: Tensor, other: Any) -> bool:
    """Compare bit by bit, but for the kinds of NaN: in the coarse precisions of a report some values may be NaN."""
    if not isinstance(other, Tensor) or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
