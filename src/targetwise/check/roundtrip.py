"""Check that a parameterization's two functions are inverses of each other, before any training is paid for.

Over the whole grid of time steps: predict_x0(compute_training_target(x_0, ε, t), x_t, t) = x_0. The verdict is
taken in fp64. Lower precisions are reported and not judged, because a sound parameterization may be
ill-conditioned at some steps: epsilon recovers x_0 at t = 999 with an error near 1 in bf16.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from targetwise.check.purity import enforced
from targetwise.diffusion.effective import described, effective_weight
from targetwise.diffusion.loss import mean_under, weight_in_x0_space
from targetwise.diffusion.parameterization import Parameterization, probe_output_channels
from targetwise.diffusion.schedule import Schedule, add_noise, make_schedule, preserves_variance
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError

PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

IMAGES_PER_STEP = 4
CHANNELS, SIZE = 3, 8

#: How many roundings, each magnified by the known gain, a sound pair of functions may be off by.
ROUNDINGS = 64

#: Where an error in the network's output is magnified more than this on its way to x0, we call it ill-conditioned.
LARGE_GAIN = 10.0

#: How many images, at time steps over the whole grid, are given to the functions one at a time too.
ALONE = 32

CURVE_POINTS = 101

#: The error reported where an estimate is not finite, or where a function does not exist in a precision.
NOT_FINITE = 1e30


def check(
    target: Parameterization, loss_space: Parameterization, variant: Mapping[str, Any], precisions: list[str]
) -> dict[str, Any]:
    """Check one variant and describe it.

    Args:
        target: the space the network predicts in.
        loss_space: the space its error is measured in.
        variant: ``weighting``, ``diffusion`` and ``parameters``, and ``uncertainty`` where the weight is learned.
        precisions: names out of :data:`PRECISIONS` to report beside fp64 and fp32.

    Returns:
        Round-trip errors by precision, the gain from output to x0, the weight in x0 space, and the effective weight;
        where the weight is learned, the one it begins with, and no effective weight, which only the training tells.
        Depends on the variant and its files only: no time, no version.

    Raises:
        UserError: if the functions break a rule of :mod:`targetwise.check.purity`, do not fit together, or give
            values that are not finite.
    """
    target, loss_space = enforced(target), enforced(loss_space)
    double = _schedule(variant, torch.float64)
    channels = probe_output_channels(target, CHANNELS, SIZE, double)
    with _CoarsestType() as seen:
        exact = round_trip(target, double)
    gain = gain_to_x0(target, double)
    _require_use_of_output(target, gain, double)
    _require_each_image_by_itself(target, double, gain)
    if loss_space.name != target.name:
        _require_each_image_by_itself(loss_space, double)
    _judge(target, exact, gain, seen.dtype, double)
    weight = weight_in_x0_space(loss_space, variant["weighting"], double, mean_under(variant))
    what = f"parameterization {loss_space.name}: the weight {variant['weighting']} in x0 space"
    _require_finite(weight, what, why=lambda t: "" if double["sqrt_alpha"][t] else "; there the SNR is zero")
    # Training hands fp32 to the functions, so they must at least run in it.
    round_trips = {
        "fp64": exact,
        "fp32": round_trip(target, _schedule(variant, torch.float32)),
    }
    for name in precisions:
        if name not in round_trips:
            round_trips[name] = _round_trip_if_it_runs(target, _schedule(variant, PRECISIONS[name]))

    probability = probabilities(variant["diffusion"]["times"], double)
    path = (double[name].numpy() for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
    asked = weight.numpy() * (not variant.get("uncertainty"))
    objective = described(*effective_weight(asked, probability, *path))

    largest = int(gain.argmax())
    ill = (gain > LARGE_GAIN).nonzero().flatten().tolist()
    curve = torch.linspace(0, len(gain) - 1, min(CURVE_POINTS, len(gain))).long()
    return {
        "target": target.name,
        "target_digest": target.digest,
        "loss_space": loss_space.name,
        "loss_space_digest": loss_space.digest,
        "weighting": f"{variant['weighting']} × learned" if variant.get("uncertainty") else variant["weighting"],
        **({"uncertainty": True} if variant.get("uncertainty") else {}),
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
        "objective": objective,
        "mean_weight_in_x0_space": weight.mean().item(),
    }


def round_trip(target: Parameterization, schedule: Schedule) -> Tensor:
    """Return the largest |x_0 estimate − x_0| at each time step, shape (T,) fp64, computed in the schedule's type.

    A value that is not finite counts as :data:`NOT_FINITE`.

    Raises:
        UserError: if something is not finite in fp64.
    """
    x_0, noise, x_t, timesteps = probing_images(schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    estimate = target.predict_x0(y, x_t, timesteps, schedule)
    if x_0.dtype == torch.float64:
        what = f"parameterization {target.name}:"
        _require_finite(y, f"{what} compute_training_target", len(schedule["sqrt_alpha"]))
        _require_finite(estimate, f"{what} predict_x0", len(schedule["sqrt_alpha"]), partial(_unread, schedule))
    error = (estimate.double() - x_0.double()).abs().view(len(schedule["sqrt_alpha"]), -1).amax(dim=1)
    return error.nan_to_num(nan=NOT_FINITE, posinf=NOT_FINITE)


def gain_to_x0(target: Parameterization, schedule: Schedule) -> Tensor:
    """Return how much an error in the network's output is magnified on its way to x0, shape (T,).

    Each channel of the output is moved by itself, starting from the target of an image, and the moves of x0 are
    added in squares, because errors of two channels are independent.
    """
    x_0, noise, x_t, timesteps = probing_images(schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    still = target.predict_x0(y, x_t, timesteps, schedule)
    step = 1e-3
    squares = torch.zeros_like(x_0)
    for channel in range(y.shape[1]):
        moved_y = y.clone()
        moved_y[:, channel] += step
        squares += ((target.predict_x0(moved_y, x_t, timesteps, schedule) - still) / step).square()
    gain = squares.sqrt().reshape(len(schedule["sqrt_alpha"]), -1).amax(dim=1)
    _require_finite(gain, f"parameterization {target.name}: predict_x0")
    return gain


def _schedule(variant: Mapping[str, Any], dtype: torch.dtype) -> Schedule:
    return make_schedule(variant["diffusion"], variant["parameters"], dtype=dtype)


def probing_images(schedule: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x_0 in [-1, 1], ε, x_t and t for some images at every time step, always the same ones."""
    T, dtype = len(schedule["sqrt_alpha"]), schedule["sqrt_alpha"].dtype
    generator = torch.Generator().manual_seed(0)
    shape = (T * IMAGES_PER_STEP, CHANNELS, SIZE, SIZE)
    x_0 = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    timesteps = torch.arange(T).repeat_interleave(IMAGES_PER_STEP)
    return x_0, noise, add_noise(x_0, noise, timesteps, schedule), timesteps


def _round_trip_if_it_runs(target: Parameterization, schedule: Schedule) -> Tensor:
    """Return the round trip in a precision that is only reported; not every function exists in every one."""
    try:
        return round_trip(target, schedule)
    except UserError:
        return torch.full((len(schedule["sqrt_alpha"]),), NOT_FINITE, dtype=torch.float64)


class _CoarsestType(TorchFunctionMode):
    """Notes the coarsest floating-point type in which anything is computed meanwhile.

    A function may compute in fp32 whatever it is given; it is held to fp32 then. (A dispatch mode would do as well,
    but imports PyTorch's compiler, which takes seconds.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float64

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self.dtype = max(self.dtype, leaf.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        return result


def _require_finite(
    values: Tensor, what: str, steps: int | None = None, why: Callable[[int], str] = lambda t: ""
) -> None:
    bad = (~values.isfinite()).reshape(steps or len(values), -1).any(dim=1)
    if bad.any():
        t = int(bad.nonzero()[0])
        raise UserError(f"{what} is not finite at t = {t}{why(t)}")


def _unread(schedule: Schedule, t: int) -> str:
    """Return why x0 may be wrong at t: where the SNR is zero, x_t holds nothing of it; elsewhere nothing is known."""
    if schedule["sqrt_alpha"][t] > 0:
        return ""
    return (
        f"; at t = {t} the SNR is zero and x_0 cannot be read from its output; take an output that says x_0 where "
        "x_t is noise alone, like v or x0"
    )


def _require_each_image_by_itself(space: Parameterization, schedule: Schedule, gain: Tensor | None = None) -> None:
    """Hold a batch of all time steps against its images one at a time; with ``gain``, in predict_x0 too.

    A round trip does not show it when both functions take, say, the first image's time step for the whole batch: the
    second undoes the first's mistake. Training and sampling do not call both on one batch.
    """
    x_0, noise, x_t, timesteps = probing_images(schedule)
    T = len(schedule["sqrt_alpha"])

    def compare(function: str, first: Tensor, second: Tensor, gain: Tensor) -> Tensor:
        run = getattr(space, function)
        with _CoarsestType() as seen:
            whole = run(first, second, timesteps, schedule)
        _require_finite(whole, f"parameterization {space.name}: {function}", T)
        for index in torch.linspace(0, len(timesteps) - 1, ALONE).long().tolist():
            one, t = slice(index, index + 1), int(timesteps[index])
            alone = run(first[one], second[one], timesteps[one], schedule)
            off = (alone - whole[one]).abs().max().item()
            if not off <= _rounding(seen.dtype, gain[t] + alone.abs().max()):
                raise UserError(
                    f"parameterization {space.name}: {function} gives another result for an image at t = {t} alone "
                    f"than in a batch of all time steps (off by {off:.3g}); it must treat each image by itself, at "
                    "its own time step"
                )
        return whole

    y = compare("compute_training_target", x_0, noise, torch.zeros(T))
    if gain is not None:
        compare("predict_x0", y, x_t, gain)


def _require_use_of_output(target: Parameterization, gain: Tensor, schedule: Schedule) -> None:
    """Refuse an estimate that the network has no part in.

    A gain can be 0 because a target is so large that our small step is lost in rounding: twice the target is not.
    At single steps a gain of 0 is no fault: where a path has no noise, b = 0, x_t says what x_0 is, and a coarse type
    may round our small step away. Where there is noise, x_t does not suffice, so the round trip shows a mistake.
    """
    if gain.any():
        return
    x_0, noise, x_t, timesteps = probing_images(schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    once, twice = (target.predict_x0(output, x_t, timesteps, schedule) for output in (y, 2 * y))
    if torch.equal(once, twice):
        raise UserError(
            f"parameterization {target.name}: predict_x0 does not depend on model_output at any time step; no "
            "training could change its estimate"
        )


def _rounding(dtype: torch.dtype, gain: Tensor) -> Tensor:
    """Return by how much rounding in ``dtype`` may put x0 off where errors are magnified by ``gain``."""
    # x_0 and ε are of size 1 to 5, and x_t is rounded once more before it is magnified.
    return ROUNDINGS * torch.finfo(dtype).eps * 5 * (1 + gain)


def _judge(target: Parameterization, error: Tensor, gain: Tensor, dtype: torch.dtype, schedule: Schedule) -> None:
    allowed = _rounding(dtype, gain)
    wrong = error > allowed
    if wrong.any():
        t = int((error / allowed).argmax())
        a, b = schedule["sqrt_alpha"], schedule["sqrt_one_minus_alpha"]
        why = _unread(schedule, t)
        if not preserves_variance(a, b):
            why += "; on this path a² + b² is not 1, so no inverse may rely on it"
        raise UserError(
            f"parameterization {target.name}: predict_x0 does not invert compute_training_target: at t = {t} "
            f"x0 is off by {error[t].item():.3g} where rounding explains {allowed[t].item():.1g} "
            f"({int(wrong.sum())} of {len(error)} time steps are wrong){why}"
        )


def _ranges(steps: list[int]) -> list[list[int]]:
    """Return [first, last] of each run."""
    ranges: list[list[int]] = []
    for step in steps:
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    return ranges
