"""Which time steps a training draws: a file of ``workflow/times/``."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from targetwise.errors import UserError, in_one_line
from targetwise.recipe import kinds

#: From a generator and a number, so many time steps, (count,) int64 in 0 … T−1.
DrawTimes = Callable[[np.random.Generator, int], np.ndarray]


def probabilities(name: str, schedule: Mapping[str, Tensor]) -> np.ndarray:
    """Return the probability of each time step under ``workflow/times/<name>.py``, (T,) fp64.

    Raises:
        UserError: if there is no such file, or its density fails, or is no density on T steps.
    """
    density = kinds.load("times", name)["density"]
    try:
        found = torch.as_tensor(density(schedule)).double().cpu().numpy()
    except Exception as error:
        raise UserError(f"times {name}: density fails: {in_one_line(error)}") from error
    shape = tuple(schedule["sqrt_alpha"].shape)
    if found.shape != shape:
        raise UserError(f"times {name}: density has shape {found.shape}; it must be {shape}")
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise UserError(f"times {name}: density must be finite, nowhere negative and somewhere above 0")
    return np.asarray(found / found.sum())


def draws_of(name: str, schedule: Mapping[str, Tensor]) -> DrawTimes:
    """Return what draws time steps as ``workflow/times/<name>.py`` says: its own ``draw``, or by its density.

    Args:
        name: of the file.
        schedule: what the file's functions receive; on the CPU, so that no draw waits for a GPU.

    Raises:
        UserError: as :func:`probabilities`; and, while drawing, if its ``draw`` does not give time steps.
    """
    cumulative = np.cumsum(probabilities(name, schedule))
    cumulative /= cumulative[-1]  # exactly 1 at the end, so that no number below 1 is beyond it
    own = kinds.load("times", name).functions.get("draw")

    def draw(random: np.random.Generator, count: int) -> np.ndarray:
        if own is None:
            return np.searchsorted(cumulative, random.random(count), side="right").astype(np.int64)
        drawn = np.asarray(own(random, count, schedule))
        if drawn.shape != (count,) or drawn.dtype != np.int64 or drawn.min() < 0 or drawn.max() >= len(cumulative):
            range_ = f", {drawn.min()} to {drawn.max()}" if drawn.size else ""
            raise UserError(
                f"times {name}: draw returned {drawn.dtype} of shape {drawn.shape}{range_}; it must return "
                f"({count},) int64 from 0 to {len(cumulative) - 1}"
            )
        return drawn

    return draw
