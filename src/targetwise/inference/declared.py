"""What a study declares about its comparisons before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Declared:
    """The comparisons of a study.

    Attributes:
        baseline: the variant with which all others are compared; None compares all pairs.
        smallest_difference: the smallest difference of interest δ, a ratio minus one (0.05 is 5 %); None is none.
        families: names of groups of variants; within each all pairs are compared.
    """

    baseline: str | None = None
    smallest_difference: float | None = None
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
