"""The files of ``workflow/metrics/`` and ``workflow/errors/``: from samples to numbers, and how sure these are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from targetwise.errors import UserError, in_one_line
from targetwise.metric.contributions import Contributions, NoErrorKnown
from targetwise.recipe import kinds, metrics

if TYPE_CHECKING:  # PyTorch, which comes with it, takes seconds, and the report asks for titles only
    from targetwise.metric.reference import Reference


@dataclass(frozen=True)
class Samples:
    """What metrics measure: samples as features (n, D) and as images (n, H, W, C) uint8, and their reference."""

    features: np.ndarray
    images: np.ndarray
    reference: "Reference"

    def given(self, name: str) -> tuple[Any, Any]:
        """Return a metric's two arguments: features and reference or, if it needs images, these and the real ones."""
        return (self.images, self._real) if "images" in metrics.needs(name) else (self.features, self.reference)

    @cached_property
    def _real(self) -> np.ndarray:
        from targetwise.metric.reference import images_of

        return images_of(self.reference).images


def title(name: str, extractor: str) -> str:
    """Return what a metric's number is called in tables, with features by ``extractor``; ↑ where higher is better."""
    features = "pixel" if extractor == "pixels" else extractor  # "pixel features"
    called = kinds.load("metrics", name).get("title", lambda features: f"{name} ({features} features)")(features)
    return f"{called} ↑" if metrics.better(name) == "higher" else str(called)


def values(samples: Samples, names: Sequence[str]) -> dict[str, float]:
    """Return the numbers of all metrics in ``names``, by name: each gives one under its own name, and maybe others.

    Args:
        samples: to measure, and the reference to compare with.
        names: of files in ``workflow/metrics/``.

    Raises:
        UserError: if a file fails, or does not return finite numbers by names of its own.
    """
    found: dict[str, float] = {}
    for name in names:
        file = kinds.file_of("metrics", name)
        try:
            measured = dict(kinds.load("metrics", name)["measure"](*samples.given(name)))
            numbers = {str(key): float(value) for key, value in measured.items()}
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{file}: measure failed: {in_one_line(error)}") from error
        if name not in numbers:
            raise UserError(f"{file}: measure returned no number named {name}")
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise UserError(f"{file}: measure returned {value} as {key}; it must return finite numbers")
            if key in found:
                raise UserError(f"{file}: measure returned {key}, which another metric measures")
        found |= numbers
    return found


def errors(samples: Samples, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what a row says of how sure its numbers are, by a metric's name in each.

    ``errors`` has the standard errors from finite samples, ``contributions`` what those of differences need, and
    ``without_error`` why a number has none. A metric without a file in ``workflow/errors/`` is in none of them.

    Args:
        samples: and the reference that the numbers were measured against.
        names: of the metrics.

    Raises:
        UserError: if a file fails, or does not give contributions from which an error follows.
    """
    found: dict[str, dict[str, Any]] = {"errors": {}, "contributions": {}, "without_error": {}}
    for name in names:
        file = kinds.file_of("errors", name)
        if not file.is_file():
            continue
        try:
            made = kinds.load("errors", name)["contributions"](*samples.given(name))
        except UserError:
            raise
        except NoErrorKnown as reason:
            found["without_error"][name] = str(reason)
            continue
        except Exception as error:
            raise UserError(f"{file}: contributions failed: {in_one_line(error)}") from error
        if not isinstance(made, Contributions) or not math.isfinite(made.error()):
            raise UserError(f"{file}: contributions must return Contributions of finite values, not {made!r:.80}")
        found["errors"][name] = made.error()
        found["contributions"][name] = made.condensed().record()
    return found
