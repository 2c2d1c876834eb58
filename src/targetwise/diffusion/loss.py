"""The training objective: what the network outputs, where its error is measured, how time steps are weighted.

Three separate choices (a variant's ``target``, ``loss_space`` and ``weighting``). Conversions between spaces go
through (x_0, ε), so they need nothing but the two functions of each parameterization.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from targetwise.diffusion import table
from targetwise.diffusion.parameterization import Parameterization
from targetwise.diffusion.schedule import at
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError
from targetwise.recipe import kinds

#: A flat loss in the loss space, whatever weight in x0 space that amounts to; every other name has a file.
FLAT = "constant"


def named_weight(weighting: str, schedule: Mapping[str, Tensor]) -> Tensor:
    """Return the weight in x0 space that ``workflow/weightings/<weighting>.py``, or ``.csv``, defines, (T,) fp64.

    Raises:
        UserError: if there is no such file, or it fails, or gives something other than T values from 0 up.
    """
    double = {name: value.double() for name, value in schedule.items()}
    file, shape = kinds.file_of("weightings", weighting), schedule["sqrt_alpha"].shape
    if file.suffix == kinds.TABLE:
        weight = torch.from_numpy(table.read(file, len(schedule["sqrt_alpha"]))).to(schedule["sqrt_alpha"].device)
    else:
        weight = kinds.load("weightings", weighting).call("weight", double)
    if not isinstance(weight, Tensor) or weight.shape != shape:
        found = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise UserError(f"{file}: weight returned {found}; it must return a tensor of shape {tuple(shape)}")
    if (weight < 0).any():
        raise UserError(f"{file}: weight is negative at t = {int((weight < 0).nonzero()[0])}")
    return weight.double()


def slope_of_target(space: Parameterization, schedule: Mapping[str, Tensor]) -> Tensor:
    """Return |∂y/∂x_0| of a space's target at fixed x_t, root mean square over its channels, shape (T,).

    At fixed x_t a change d of x_0 changes ε by −(a/b)·d. For an affine target y = p·ε + q·x_0 the slope is |D/b|
    with D = p·a − q·b, and its square is the weight in x0 space that a flat loss on y, a mean over all its channels,
    amounts to.
    """
    timesteps = torch.arange(len(schedule["sqrt_alpha"]), device=schedule["sqrt_alpha"].device)
    a, b = at(schedule, timesteps)
    one, zero = torch.ones_like(a), torch.zeros_like(a)
    moved = space.compute_training_target(one, -a / b, timesteps, schedule)
    still = space.compute_training_target(zero, zero, timesteps, schedule)
    return (moved - still).square().mean(dim=(1, 2, 3)).sqrt()


def mean_under(variant: Mapping[str, Any]) -> str | None:
    """Return the density of time steps under which a variant's factor has a mean of 1; None if it is left alone."""
    return str(variant["diffusion"]["times"]) if variant.get("normalize_weight") else None


def multiplier(
    space: Parameterization, weighting: str, schedule: Mapping[str, Tensor], times: str | None = None
) -> Tensor:
    """Return the factor on the squared error in ``space`` at each time step, shape (T,), in fp64.

    A named weighting is a weight in x0 space, as in the literature: the loss is that weight times the squared x0
    error, whatever the space, so the space's own weight is divided out. Where nothing is asked for the factor is 0,
    also if the space cannot tell of x0 there, as ε cannot where the SNR is 0.

    With ``times`` it is scaled so that its mean over the time steps that are drawn is 1, as it is for a flat loss. It
    is the factor that is scaled, and not the weight in x0 space: a loss, and what a clip of its gradient sees, is as
    large as the factor makes it, and a flat loss of v has an x0 weight of 32 on average.

    Raises:
        UserError: as :func:`named_weight`; or if a factor that is 0 wherever ``times`` draws has to be scaled.
    """
    double = {name: value.double() for name, value in schedule.items()}
    if weighting == FLAT:
        return torch.ones_like(double["sqrt_alpha"])
    weight = named_weight(weighting, schedule)
    factor = torch.where(weight == 0, 0, weight / slope_of_target(space, double).square())
    if times is None:
        return factor
    mean = factor @ torch.from_numpy(probabilities(times, double)).to(factor.device)
    if mean == 0:
        raise UserError(
            f"weighting {weighting} is 0 wherever times {times} draws; nothing can scale it to a mean of 1"
        )
    return factor / mean


def weight_in_x0_space(
    space: Parameterization, weighting: str, schedule: Mapping[str, Tensor], times: str | None = None
) -> Tensor:
    """Return the weight on the squared x0 error that the choice amounts to, shape (T,), in fp64."""
    double = {name: value.double() for name, value in schedule.items()}
    return multiplier(space, weighting, schedule, times) * slope_of_target(space, double).square()


@dataclass(frozen=True)
class Objective:
    """The loss of one variant."""

    target: Parameterization
    loss_space: Parameterization
    factor: Tensor  # (T,) fp32, on the schedule's device
    schedule: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        target: Parameterization,
        loss_space: Parameterization,
        weighting: str,
        schedule: Mapping[str, Tensor],
        times: str | None = None,
    ) -> "Objective":
        """Build the objective of a variant on the schedule's device; see :func:`multiplier`."""
        return cls(target, loss_space, multiplier(loss_space, weighting, schedule, times).float(), schedule)

    def __call__(self, output: Tensor, x_0: Tensor, noise: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the loss of each image, shape (B,): factor(t) times the mean squared error in the loss space.

        Args:
            output: the network's, (B, C', H, W), fp32.
            x_0: clean images in [-1, 1], (B, C, H, W).
            noise: ε, (B, C, H, W).
            x_t: the noisy images the network saw, (B, C, H, W).
            timesteps: (B,) int64.
        """
        if self.loss_space.name == self.target.name:
            estimate = output
        else:
            x_0_estimate = self.target.predict_x0(output, x_t, timesteps, self.schedule)
            a, b = at(self.schedule, timesteps)
            noise_estimate = (x_t - a * x_0_estimate) / b
            estimate = self.loss_space.compute_training_target(x_0_estimate, noise_estimate, timesteps, self.schedule)
        truth = self.loss_space.compute_training_target(x_0, noise, timesteps, self.schedule)
        return self.factor[timesteps] * (estimate - truth).square().mean(dim=(1, 2, 3))
