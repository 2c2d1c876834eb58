"""The numbers that a study has of its cells, and whether its claims are about these."""

from collections.abc import Mapping
from typing import Any

from targetwise.errors import UserError, nearest
from targetwise.recipe import claims, kinds, metrics, probes
from targetwise.recipe.claims import Claim
from targetwise.recipe.predictions import DIVERGED

#: Of a training, beside the numbers of the metrics; what each is, docs/claims.md and report/quantities.py say.
TRAINING_QUANTITIES = (
    "clipped_share",
    DIVERGED,
    "final_loss",
    "images_per_second",
    "loss_spikes",
    "memory_peak_bytes",
)


def check(config: Mapping[str, Any]) -> None:
    """Make sure that the study says something about each of its claims.

    Raises:
        UserError: at the first scale, sampling or quantity that is not the study's.
    """
    axes = config["grid"]
    samplings = list(axes.get("samplings") or [])
    offered = known(config)
    for claim in claims.of(config):
        for field in ("at", "change"):
            for axis, names in claim.content.get(field, {}).items():
                own = axes["scales"] if axis == "scale" else samplings
                for name in names:
                    if name not in own:
                        choice = nearest(name, own) if own else "it names none"
                        raise UserError(
                            f"{claims.file_of(claim.name)}: {field}.{axis} names '{name}', which is not in the "
                            f"study's grid.{axis}s; {choice}"
                        )
        if claim.quantity not in offered:
            owners = {number: probe for probe in kinds.known("probes") for number in probes.gives(probe)}
            missing = f"add {owners[claim.quantity]} to probes" if claim.quantity in owners else None
            raise UserError(
                f"{claims.file_of(claim.name)}: quantity is '{claim.quantity}', which this study does not measure; "
                f"{missing or nearest(claim.quantity, offered)}"
            )
        _check_sides(config, claim)


def _check_sides(config: Mapping[str, Any], claim: Claim) -> None:
    """Refuse what could only mislead: cells against themselves, a best of what is not better when it is lower."""
    path, of_samples = claims.file_of(claim.name), claim.quantity in config["metric"]["names"]
    sides = [names for _, names in claim.terms]
    if len(set(sides)) < len(sides):
        raise UserError(f"{path}: two sides are the same cells of this study, {' or '.join(sides[-1])}")
    if not of_samples and any("sampling" in claim.content.get(field, {}) for field in ("at", "change")):
        raise UserError(f"{path}: {claim.quantity} is of a training, so it is the same in every sampling")
    if any(len(names) > 1 for names in sides) and not (of_samples and metrics.better(claim.quantity) == "lower"):
        raise UserError(
            f"{path}: each stands for the variant with the lowest number, but {claim.quantity} is not better when "
            "it is lower"
        )


def known(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that a study has of its cells."""
    return [*config["metric"]["names"], *TRAINING_QUANTITIES, *probed(config)]


def probed(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that a study's probes give."""
    return [number for probe in config["probes"] for number in probes.gives(probe)]
