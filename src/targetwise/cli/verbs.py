"""The register of verbs: what comes after ``targetwise``, and the arguments that it takes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from targetwise import errors

Study = dict[str, Any]

DAY = 86400


@dataclass(frozen=True)
class Verb:
    """One word after ``targetwise``: what it does with a study, and the arguments it takes."""

    function: Callable[..., None]
    explanation: str
    arguments: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]


VERBS: dict[str, Verb] = {}


def argument(*names: str, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what ``argparse.add_argument`` takes."""
    return names, options


def verb(explanation: str, *arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[..., Any]:
    """Make a function the verb of its name, with - for _ and without the _ that keeps it from being a keyword."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        VERBS[function.__name__.rstrip("_").replace("_", "-")] = Verb(function, explanation, arguments)
        return function

    return register


def interval(option: str) -> Callable[[str], float]:
    """Return what reads the seconds of an option that does something again and again."""

    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= DAY:
            raise errors.UserError(f"{option} is {text}; it must be a number of seconds above 0 and at most {DAY}")
        return seconds

    return read
