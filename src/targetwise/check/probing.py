"""What an unknown parameterization is, found by probing: coefficients, gradient, other paths, known objectives.

Beside the check, which refuses, and whose result is kept: nothing here decides whether a variant may be trained.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targetwise.check.purity import enforced
from targetwise.check.roundtrip import CHANNELS, IMAGES_PER_STEP, check, probing_images
from targetwise.diffusion import parameterization
from targetwise.diffusion.effective import Profile, described, effective_weight
from targetwise.diffusion.loss import FLAT, Objective, mean_under, weight_in_x0_space
from targetwise.diffusion.parameterization import Parameterization
from targetwise.diffusion.schedule import Schedule, make_schedule
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError
from targetwise.recipe import kinds

#: By block of output channels, p as ``epsilon`` and q as ``x_0``, each (T,).
Coefficients = list[dict[str, list[float]]]

#: A target is affine if no value of it is further from p·ε + q·x_0 than this share of the largest.
ROUNDING = 1e-6


def describe(target: Parameterization, loss_space: Parameterization, variant: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a variant that passed the check.

    Args:
        target: the space the network predicts in.
        loss_space: the space its error is measured in.
        variant: as for :func:`targetwise.check.roundtrip.check`.

    Returns:
        ``coefficients``: p and q by time step, one pair for each block of as many channels as the image has, or None
        where the target is not affine; ``known_outputs``: the names of those that have the same;
        ``gradient_at_start`` by time step; ``known_objectives``: the effective weight of a flat loss on each known
        output; ``paths``: for each known path what the check finds, or why it refuses.
    """
    schedule = make_schedule(variant["diffusion"], variant["parameters"], dtype=torch.float64)
    objective = Objective.of(target, loss_space, variant["weighting"], schedule, mean_under(variant))
    own = coefficients(target, schedule)
    known = _known()
    return {
        "coefficients": own,
        "known_outputs": known_outputs(own, known, schedule) if own else [],
        "gradient_at_start": gradient_at_start(objective).tolist(),
        "known_objectives": known_objectives(known, variant["diffusion"]),
        "paths": {name: _on_path(target, loss_space, variant, name) for name in kinds.known("paths")},
    }


def coefficients(target: Parameterization, schedule: Schedule) -> Coefficients | None:
    """Return p and q of y = p·ε + q·x_0 at each time step, found with images of one value.

    Returns:
        A pair for each block of output channels, ``{"epsilon": p, "x_0": q}``, each (T,); None if random images show
        that the target is another function.
    """
    x_0, noise, _, timesteps = probing_images(schedule)
    T = len(schedule["sqrt_alpha"])
    steps = torch.arange(T)
    one = torch.ones(T, *x_0.shape[1:], dtype=x_0.dtype)
    p = target.compute_training_target(0 * one, one, steps, schedule)
    q = target.compute_training_target(one, 0 * one, steps, schedule)
    y = target.compute_training_target(x_0, noise, timesteps, schedule)
    blocks, rest = divmod(y.shape[1], CHANNELS)
    if rest:
        return None
    found = [(p[:, first, 0, 0], q[:, first, 0, 0]) for first in range(0, y.shape[1], CHANNELS)]
    for block, (of_noise, of_image) in zip(y.chunk(blocks, dim=1), found, strict=True):
        explained = of_noise[timesteps].view(-1, 1, 1, 1) * noise + of_image[timesteps].view(-1, 1, 1, 1) * x_0
        off, size = (each.abs().view(T, -1).amax(dim=1) for each in (block - explained, block))
        if (off > ROUNDING * (1 + size)).any():
            return None
    return [{"epsilon": of_noise.tolist(), "x_0": of_image.tolist()} for of_noise, of_image in found]


def _known() -> list[Parameterization]:
    """Return the outputs of the library, with the constants that their files fall back on; one that fails is none."""
    found = []
    for name in kinds.known("parameterizations"):
        with suppress(UserError):
            found.append(enforced(parameterization.load(name)))
    return found


def known_outputs(own: Coefficients, known: Sequence[Parameterization], schedule: Schedule) -> list[str]:
    """Return the names of the known outputs whose coefficients are these."""
    found = []
    for each in known:
        try:
            other = coefficients(each, schedule)
        except UserError:
            continue
        if other and np.shape(_values(other)) == np.shape(_values(own)) and np.allclose(_values(other), _values(own)):
            found.append(each.name)
    return found


def _values(blocks: Coefficients) -> list[list[float]]:
    return [block[of] for block in blocks for of in ("epsilon", "x_0")]


def gradient_at_start(objective: Objective) -> Tensor:
    """Return the size of the gradient that the network's output gets before it has learned anything, shape (T,).

    It is the root mean square, over images, of the loss's derivative by one number of the output, times how many
    numbers the loss is a mean of, at an output of 0. A flat loss of ε has 2 at every time step. Where the loss does
    not exist, as at b = 0 in another space than the target, it is NaN.
    """
    x_0, noise, x_t, timesteps = probing_images(objective.schedule)
    truth = objective.target.compute_training_target(x_0, noise, timesteps, objective.schedule)
    output = torch.zeros_like(truth, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(output, x_0, noise, x_t, timesteps).sum(), output)
    compared = objective.loss_space.compute_training_target(x_0, noise, timesteps, objective.schedule)
    size = gradient.view(-1, IMAGES_PER_STEP * truth[0].numel()).square().mean(dim=1).sqrt()
    return compared[0].numel() * size


def known_objectives(known: Sequence[Parameterization], diffusion: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the effective weight of a flat loss on each known output, on a path and under its density of steps.

    One that does not work there is left out.
    """
    schedule = make_schedule(diffusion, dtype=torch.float64)
    probability = probabilities(diffusion["times"], schedule)
    path = [schedule[name].numpy() for name in ("sqrt_alpha", "sqrt_one_minus_alpha")]
    found = {}
    for each in known:
        try:
            weight = weight_in_x0_space(each, FLAT, schedule)
        except UserError:
            continue
        if weight.isfinite().all():
            found[each.name] = described(*effective_weight(weight.numpy(), probability, *path))
    return found


def _on_path(
    target: Parameterization, loss_space: Parameterization, variant: Mapping[str, Any], name: str
) -> dict[str, Any]:
    try:
        return check(target, loss_space, {**variant, "diffusion": {**variant["diffusion"], "schedule": name}}, [])
    except UserError as error:
        return {"refused": str(error)}
