"""The metrics that a configuration names: that they are there, and that the study has what they need.

A metric's file says in constants which direction is better and what it needs. They are read without running the file,
because Snakemake parses the configuration in every job.
"""

from collections.abc import Mapping
from typing import Any

from targetwise.data.digests import CLASSES
from targetwise.errors import UserError, nearest
from targetwise.recipe import kinds

#: What a metric's ``BETTER`` may be; without it, lower is.
DIRECTIONS = ("lower", "higher", "neither")

#: What a metric's ``NEEDS`` may hold; without it, it needs nothing but features.
NEEDS = ("images", "labels", "training images")


def better(name: str) -> str:
    """Return which direction of a metric's number is better, one of :data:`DIRECTIONS`.

    Raises:
        UserError: if its file says something else.
    """
    found = kinds.constant("metrics", name, "BETTER", "lower")
    if found not in DIRECTIONS:
        raise UserError(
            f"{kinds.file_of('metrics', name)}: BETTER is {found!r}, but must be one of {', '.join(DIRECTIONS)}"
        )
    return str(found)


def needs(name: str) -> tuple[str, ...]:
    """Return what a metric needs beside features, of :data:`NEEDS`.

    Raises:
        UserError: if its file says something else.
    """
    found = tuple(kinds.constant("metrics", name, "NEEDS", ()))
    unknown = next((need for need in found if need not in NEEDS), None)
    if unknown is not None:
        raise UserError(f"{kinds.file_of('metrics', name)}: NEEDS names {unknown!r}; {nearest(str(unknown), NEEDS)}")
    return found


def check(config: Mapping[str, Any]) -> None:
    """Make sure that the metrics exist and have what they need, and that verdicts can be about the first one.

    Raises:
        UserError: at the first thing that is wrong.
    """
    names = config["metric"]["names"]
    for index, name in enumerate(names):
        where = f"metric.names.{index}"
        kinds.require_known("metrics", name, where)
        direction = better(name)
        if direction != "lower" and index == 0:
            lower = ", ".join(each for each in kinds.known("metrics") if better(each) == "lower")
            raise UserError(
                f"configuration: {where} is '{name}', of which {direction} is better, but verdicts are about the "
                f"first metric and take the lower number for the better one; name one of these before it: {lower}"
            )
        _check_needs(config, name, where)


def _check_needs(config: Mapping[str, Any], name: str, where: str) -> None:
    needed = needs(name)
    dataset, reference = config["data"]["dataset"], config["metric"]["reference"]
    kind = config["datasets"][dataset]["kind"]
    if "labels" in needed and kind not in CLASSES:
        raise UserError(
            f"configuration: {where} is '{name}', which needs labels, but datasets.{dataset} of kind {kind} has "
            f"none; kinds with labels: {', '.join(sorted(CLASSES))}"
        )
    if "training images" in needed and (reference["split"], reference.get("first")) != ("train", None):
        raise UserError(
            f"configuration: {where} is '{name}', which compares with all training images; metric.reference must be "
            "{split: train}, without first"
        )
