"""The bounds of a claim: what supports it, and what contradicts it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.errors import UserError

#: A quantity that is judged by how often it happens.
DIVERGED = "diverged"

#: Weights are written with some digits, e.g. 0.333 and 0.667.
ROUNDING = 1e-6


def check(content: Mapping[str, Any], path: Path) -> None:
    """Make sure that a claim's bounds mean something.

    Args:
        content: of the claim's file.
        path: of it, for the message.

    Raises:
        UserError: at the first bound that is wrong.
    """
    if "provided" in content:
        _check_premise(content, path)
    if content.get("quantity") == DIVERGED:
        _check_shares(content, path)
        return
    of_ratio = content.get("unit", "ratio") == "ratio"
    of_deviation = content.get("statistic") == "deviation"
    if of_deviation and "within" in content["predicts"]:
        raise UserError(f"{path}: predicts is within; a deviation can be less or greater than something")
    for field in ("predicts", "denied"):
        for word, value in content.get(field, {}).items():
            least = 1.0 if of_ratio and word == "within" else 0.0
            if (of_ratio or of_deviation or word == "within") and not (math.isfinite(value) and value > least):
                kinds = {
                    "a factor": least,
                    "a deviation": of_deviation,
                    "a ratio": of_ratio,
                    "a distance from 0": True,
                }
                meaning = next(name for name, is_it in kinds.items() if is_it)
                raise UserError(f"{path}: {field}.{word} is {value}; it must be above {least:g}, as {meaning}")
    if "denied" in content:
        _check_apart(content, path)
    if twice := content.get("at", {}).keys() & content.get("change", {}).keys():
        raise UserError(f"{path}: at and change both name a {min(twice)}; change alone says between which two")
    weights = [term["times"] for term in content.get("contrast", [])]
    if weights and not (any(weights) and abs(sum(weights)) < ROUNDING):
        raise UserError(
            f"{path}: the weights of contrast are {', '.join(f'{each:g}' for each in weights)}; they must add up to "
            "0, so that what all variants share drops out"
        )


def _check_premise(content: Mapping[str, Any], path: Path) -> None:
    if content.get("quantity") == DIVERGED or content.get("statistic") == "deviation" or "change" in content:
        raise UserError(f"{path}: provided is about a mean; it cannot go with diverged, deviation or change")
    check({"predicts": content["provided"]["predicts"], "unit": content.get("unit", "ratio")}, path)


def _check_shares(content: Mapping[str, Any], path: Path) -> None:
    """Make sure that what happens to a cell or not is compared by how often it does."""
    beyond = content.keys() & {"denied", "change", "statistic"}
    if "right" not in content or content["predicts"] not in ({"greater": 0}, {"less": 0}) or beyond:
        raise UserError(
            f"{path}: quantity diverged is compared by how often it happens; it takes left, right, and predicts "
            f"{{greater: 0}} or {{less: 0}}{f', and no {min(beyond)}' if beyond else ''}"
        )


def _check_apart(content: Mapping[str, Any], path: Path) -> None:
    """Refuse bounds of which a number could meet both: what supports a claim must not contradict it."""
    predicted, denied = (next(iter(content[field].items())) for field in ("predicts", "denied"))
    apart = {("less", "greater"): denied[1] >= predicted[1], ("greater", "less"): denied[1] <= predicted[1]}
    if not apart.get((predicted[0], denied[0]), False):
        raise UserError(
            f"{path}: denied is {denied[0]} {denied[1]:g} and predicts is {predicted[0]} {predicted[1]:g}; what "
            "supports a claim must not contradict it, and only less and greater can stand against each other"
        )
