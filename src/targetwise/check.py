"""Prove that a parameterization's two functions are inverse to each other, before any training is paid for.

Over the whole grid of time steps: predict_x0(compute_training_target(x_0, ε, t), x_t, t) = x_0. The verdict is
taken in fp64. Lower precisions are reported and not judged, because a sound parameterization may be
ill-conditioned at some steps: epsilon recovers x_0 at t = 999 with an error near 1 in bf16.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from targetwise.errors import UserError
from targetwise.loss import weight_in_x0_space
from targetwise.parameterization import Parameterization, probe_output_channels
from targetwise.schedule import add_noise, make_schedule

PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

IMAGES_PER_STEP = 4
CHANNELS, SIZE = 3, 8

#: How many roundings, each magnified by the known gain, a sound pair of functions may be off by.
ROUNDINGS = 64

#: Where an error in the network's output is magnified more than this on its way to x0, we call it ill-conditioned.
LARGE_GAIN = 10.0

CURVE_POINTS = 101


def check(
    target: Parameterization, loss_space: Parameterization, variant: Mapping[str, Any], precisions: list[str]
) -> dict[str, Any]:
    """Check one variant and describe it.

    Args:
        target: the space the network predicts in.
        loss_space: the space its error is measured in.
        variant: ``weighting``, ``diffusion`` and ``parameters``.
        precisions: names out of :data:`PRECISIONS` to report beside fp64 and fp32.

    Returns:
        Round-trip errors by precision, the gain from output to x0, and the weight in x0 space. Depends on the
        variant and its files only: no time, no version.

    Raises:
        UserError: if the functions do not fit together, or change shape, or give values that are not finite.
    """
    diffusion = variant["diffusion"]
    double = make_schedule(diffusion, variant["parameters"], dtype=torch.float64)
    try:
        channels = probe_output_channels(target, CHANNELS, SIZE, double)
        round_trips = {
            name: round_trip(target, variant, PRECISIONS[name])
            for name in dict.fromkeys(("fp64", "fp32", *precisions))
        }
        gain = gain_to_x0(target, double, channels)
        _judge(target, round_trips["fp64"], gain)
        weight = weight_in_x0_space(loss_space, variant["weighting"], double)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        message = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"parameterization {target.name} fails: {type(error).__name__}: {message}") from error

    largest = int(gain.argmax())
    ill = (gain > LARGE_GAIN).nonzero().flatten().tolist()
    curve = torch.linspace(0, len(gain) - 1, min(CURVE_POINTS, len(gain))).long()
    return {
        "target": target.name,
        "target_digest": target.digest,
        "loss_space": loss_space.name,
        "loss_space_digest": loss_space.digest,
        "weighting": variant["weighting"],
        "output_channels_per_image_channel": channels / CHANNELS,
        "round_trip": {
            name: {"largest_error": error.max().item(), "at_t": int(error.argmax())}
            for name, error in round_trips.items()
        },
        "gain_to_x0": {"largest": gain[largest].item(), "at_t": largest},
        "ill_conditioned": {"gain_above": LARGE_GAIN, "steps": len(ill), "ranges": _ranges(ill)},
        "curve": {
            "t": curve.tolist(),
            "gain_to_x0": gain[curve].tolist(),
            "weight_in_x0_space": weight[curve].tolist(),
        },
        "mean_weight_in_x0_space": weight.mean().item(),
    }


def round_trip(target: Parameterization, variant: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """Return the largest |x_0 estimate − x_0| at each time step, shape (T,) fp64, computed in ``dtype``.

    Raises:
        UserError: if an estimate has another shape than the images or is not finite.
    """
    schedule = make_schedule(variant["diffusion"], variant["parameters"], dtype=dtype)
    T = len(schedule["sqrt_alpha"])
    generator = torch.Generator().manual_seed(0)
    shape = (T * IMAGES_PER_STEP, CHANNELS, SIZE, SIZE)
    x_0 = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    timesteps = torch.arange(T).repeat_interleave(IMAGES_PER_STEP)
    x_t = add_noise(x_0, noise, timesteps, schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    estimate = target.predict_x0(y, x_t, timesteps, schedule)
    if estimate.shape != x_0.shape:
        raise UserError(
            f"parameterization {target.name}: predict_x0 returned shape {tuple(estimate.shape)} "
            f"for images of shape {tuple(x_0.shape)}"
        )
    error = (estimate.double() - x_0.double()).abs().view(T, -1).amax(dim=1)
    if dtype == torch.float64 and not error.isfinite().all():
        t = int((~error.isfinite()).nonzero()[0])
        raise UserError(f"parameterization {target.name}: predict_x0 is not finite at t = {t}")
    return error.nan_to_num(nan=1e30, posinf=1e30)


def gain_to_x0(target: Parameterization, schedule: Mapping[str, Tensor], channels: int) -> Tensor:
    """Return how much an error in the network's output is magnified on its way to x0, shape (T,)."""
    T = len(schedule["sqrt_alpha"])
    timesteps = torch.arange(T)
    dtype = schedule["sqrt_alpha"].dtype
    y = torch.zeros(T, channels, SIZE, SIZE, dtype=dtype)
    x_t = torch.zeros(T, CHANNELS, SIZE, SIZE, dtype=dtype)
    step = 1e-3
    moved = target.predict_x0(y + step, x_t, timesteps, schedule)
    still = target.predict_x0(y, x_t, timesteps, schedule)
    return ((moved - still).abs() / step).reshape(T, -1).amax(dim=1)


def _judge(target: Parameterization, error: Tensor, gain: Tensor) -> None:
    # x_0 and ε are of size 1 to 5, and x_t is rounded once more before it is magnified.
    allowed = ROUNDINGS * torch.finfo(torch.float64).eps * 5 * (1 + gain)
    wrong = error > allowed
    if wrong.any():
        t = int((error / allowed).argmax())
        raise UserError(
            f"parameterization {target.name}: predict_x0 does not invert compute_training_target: at t = {t} "
            f"x0 is off by {error[t].item():.3g} where rounding explains {allowed[t].item():.1g} "
            f"({int(wrong.sum())} of {len(error)} time steps are wrong)"
        )


def _ranges(steps: list[int]) -> list[list[int]]:
    """Return [first, last] of each run of consecutive steps."""
    ranges: list[list[int]] = []
    for step in steps:
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    return ranges
