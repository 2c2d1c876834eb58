"""What the section ``sampling`` decides together with a sampler's file, and what is refused of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from targetwise.errors import UserError, nearest
from targetwise.recipe import kinds
from targetwise.text import listed

#: The arguments of every ``step``, by position: x_t, x_0, now, then, memory.
ALWAYS = 5

#: What a ``step`` receives besides if it asks for it by name (docs/extending.md).
OFFERED = ("denoise", "noise", "path", "steps")


def further_arguments(sampler: kinds.Source) -> tuple[set[str], set[str]]:
    """Return what a sampler's ``step`` asks for of :data:`OFFERED`, and its constants: arguments with a default.

    Raises:
        UserError: if it asks for something else.
    """
    more = list(inspect.signature(sampler["step"]).parameters.values())[ALWAYS:]
    asked = {each.name for each in more if each.name in OFFERED}
    constants = {each.name for each in more if each.default is not each.empty} - asked
    for each in more:
        if each.name not in asked | constants:
            file = kinds.file_of("samplers", sampler.name)
            raise UserError(
                f"{file}: step asks for '{each.name}', which has no default; {nearest(each.name, OFFERED)}"
            )
    return asked, constants


def check_sampling(sampling: Mapping[str, Any], timesteps: int, where: str = "") -> None:
    """Check a section ``sampling`` for a path of ``timesteps``; ``where`` says whose it is.

    Raises:
        UserError: at the first thing that is wrong.
    """
    kinds.require_known("samplers", sampling["sampler"], f"{where}sampling.sampler")
    check_steps(sampling, timesteps, where)
    if sampling.get("parameters"):
        _, constants = further_arguments(kinds.load("samplers", sampling["sampler"]))
        for name in sampling["parameters"]:
            if name not in constants:
                choice = nearest(name, constants) if constants else "it has none"
                raise UserError(
                    f"configuration: {where}sampling.parameters holds '{name}', which is no constant of sampler "
                    f"'{sampling['sampler']}'; {choice}"
                )


def check_steps(sampling: Mapping[str, Any], timesteps: int, where: str = "") -> None:
    """Refuse steps that a spacing cannot lay over a path without a trap."""
    steps = sampling["steps"]
    if steps > timesteps:
        raise UserError(
            f"configuration: {where}sampling.steps is {steps}; it must be at most diffusion.timesteps, {timesteps}"
        )
    stride, rest = divmod(timesteps, steps)
    if sampling["spacing"] == "trailing" and rest:
        # A DDIM step of diffusers goes T // steps down, which is not where the next step is then: the spread of the
        # samples would be wrong by up to a third, and for some numbers of steps a last one at t = −1 is added.
        raise UserError(
            f"configuration: {where}sampling.steps is {steps}; with spacing trailing it must divide "
            f"diffusion.timesteps, {timesteps}"
        )
    if sampling["spacing"] == "leading" and rest >= stride:
        # Pure noise belongs to t = T − 1; with 600 steps of 1,000 diffusers' "leading" would begin at t = 599.
        raise UserError(
            f"configuration: {where}sampling.steps is {steps}; with spacing leading it would begin at "
            f"t = {stride * (steps - 1)} of {timesteps - 1}; take a divisor of diffusion.timesteps, {timesteps}"
        )
    if sampling["spacing"] == "linspace" and steps == 1:
        raise UserError(
            f"configuration: {where}sampling.steps is 1; with spacing linspace it would begin at t = 0 of "
            f"{timesteps - 1}; take at least 2, or spacing trailing"
        )


def check_snapshots(training: Mapping[str, Any], where: str = "") -> None:
    """Refuse snapshots that a training, the section ``training`` of a variant, never comes to."""
    steps, snapshots = training["steps"], training.get("snapshots", [])
    if snapshots != sorted(snapshots):
        raise UserError(  # another order would be another recipe, and train everything again for the same weights
            f"configuration: {where}training.snapshots is {snapshots}; it must ascend: {sorted(snapshots)}"
        )
    for each in snapshots:
        if each >= steps:
            raise UserError(
                f"configuration: {where}training.snapshots holds {each}; each must be below training.steps, {steps}, "
                "after which the weights are kept anyway"
            )


def check_snapshot(training: Mapping[str, Any], sampling: Mapping[str, Any], where: str = "") -> None:
    """Refuse to sample from weights that a training, the section ``training`` of a variant, does not keep."""
    if "snapshot" not in sampling:
        return
    snapshot, kept = sampling["snapshot"], [*training.get("snapshots", ()), training["steps"]]
    if snapshot not in kept:
        raise UserError(
            f"configuration: {where}sampling.snapshot is {snapshot}; weights are kept after step "
            f"{listed([str(each) for each in sorted(kept)])} (training.snapshots and training.steps)"
        )
    if "ema_length" in sampling:
        raise UserError(
            f"configuration: {where}sampling.snapshot and sampling.ema_length are both set; an average of another "
            "length is known for the end of the training only, so leave one out"
        )


def way(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return in what a sampling of the grid differs from others but for how far the training was: its snapshot."""
    if name not in config["grid"].get("samplings", []):
        return {"name": name}
    return {field: value for field, value in config["samplings"][name].items() if field != "snapshot"}
