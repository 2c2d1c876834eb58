"""The standard error of a metric's number from its own samples: what they contribute, and how that is weighed.

The variance of a number is estimated as Σ w·s²/m over a few lists of values, s² the sample variance of a list and m
its length. That is a quadratic form, so the difference of two numbers has the same one of the values' differences:
between two rows of the same latents, what their samples have in common drops out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from targetwise.diffusion.randomness import stream
from targetwise.errors import UserError
from targetwise.files import sha256_of_array

#: Means over so many groups of samples stand in a row for the samples, if a group then has at least so many. A
#: standard error from G groups has itself a relative standard deviation of about 1/√(2G).
GROUPS, GROUP = 100, 10


class NoErrorKnown(Exception):  # noqa: N818 (nothing failed)
    """Why a number has no standard error, in a few words."""


@dataclass(frozen=True)
class Part:
    """Values (m,) fp64, of which s²/m counts ``weight`` times."""

    weight: float
    values: np.ndarray

    @property
    def spread(self) -> float:
        """Return s²/m."""
        return float(self.values.var(ddof=1)) / len(self.values)


@dataclass(frozen=True)
class Contributions:
    """What a number's standard error is made of.

    Attributes:
        method: what the values are.
        order: digest of the samples' order, from which the lists were made; it depends on their number alone.
        parts: the lists.
        least: the variance is at least so many times the first list's s²/m, in theory.
        most: and at most so many times.
    """

    method: str
    order: str
    parts: tuple[Part, ...]
    least: float = 0.0
    most: float | None = None

    def error(self) -> float:
        """Return the standard error of the number."""
        first = self.parts[0].spread
        variance = max(sum(part.weight * part.spread for part in self.parts), self.least * first)
        return float(np.sqrt(variance if self.most is None else min(variance, self.most * first)))

    def condensed(self) -> "Contributions":
        """Return the same with means over groups of samples in place of long lists."""
        longest = max(len(part.values) for part in self.parts)
        groups = min(GROUPS, longest // GROUP)
        if longest <= GROUPS or groups < GROUP:
            return self

        def means(part: Part) -> Part:
            among = np.array_split(part.values, round(groups * len(part.values) / longest))
            return Part(part.weight, np.array([group.mean() for group in among]))

        return self._with(tuple(means(part) for part in self.parts))

    def minus(self, other: "Contributions") -> "Contributions":
        """Return what the difference of two numbers of the same latents is made of.

        Raises:
            UserError: if the two are not of one method and one number of samples.
        """
        mine, theirs = (
            (each.method, each.order, [(part.weight, len(part.values)) for part in each.parts])
            for each in (self, other)
        )
        if mine != theirs:
            raise UserError(
                f"two numbers can be paired only if their errors are by one method from as many samples; one is by "
                f"{self.method} (order {self.order[:8]}), one by {other.method} (order {other.order[:8]})"
            )
        pairs = zip(self.parts, other.parts, strict=True)
        return self._with(tuple(Part(one.weight, one.values - another.values) for one, another in pairs))

    def record(self) -> dict[str, Any]:
        """Return the content of a row's ``contributions``; nine digits are kept."""
        parts = [
            {"weight": part.weight, "values": [float(f"{value:.9g}") for value in part.values]} for part in self.parts
        ]
        return {"method": self.method, "order": self.order, "least": self.least, "most": self.most, "parts": parts}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> "Contributions":
        """Return what :meth:`record` gave."""
        parts = tuple(Part(part["weight"], np.array(part["values"])) for part in record["parts"])
        return cls(record["method"], record["order"], parts, record["least"], record["most"])

    def _with(self, parts: tuple[Part, ...]) -> "Contributions":
        return Contributions(self.method, self.order, parts, self.least, self.most)


def paired_error(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the standard error, from finite samples, of the difference of two rows' numbers.

    Args:
        one: a row's ``contributions`` of a metric.
        other: those of another row whose samples start from the same latents (same training seed, draw, and number),
            measured against the same reference.

    Raises:
        UserError: if they are not of one method and one number of samples.
    """
    return Contributions.recorded(one).minus(Contributions.recorded(other)).error()


def shuffled(count: int) -> tuple[np.ndarray, str]:
    """Return a random order of ``count`` samples, the same each time, and its digest.

    Halves and blocks are taken in it, because samples may have an order of their own: image i of a class-conditional
    draw has the label i modulo the number of classes.
    """
    order = stream("error", count).permutation(count)
    return order, sha256_of_array(order)
