"""Give one variant's objective to another: the weighting under which both weigh every noise level alike.

What an objective asks for is its effective weight over λ = ln SNR, w·p·|dt/dλ| (targetwise.diffusion.effective). On
another path, under another density of time steps, the same is asked for by w' = (w·p·|dt/dλ|)·|dλ/dt|'/p'.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targetwise import files
from targetwise.check.purity import enforced
from targetwise.diffusion import parameterization, table
from targetwise.diffusion.effective import effective_weight
from targetwise.diffusion.loss import mean_under, weight_in_x0_space
from targetwise.diffusion.schedule import Schedule, make_schedule
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError, nearest
from targetwise.recipe import config, variants


@dataclass(frozen=True)
class Match:
    """A weighting with the objective of another variant.

    Attributes:
        weight: in x0 space, at every time step of the variant that is to have the objective, (T,).
        out_of_reach: the share of the objective, 0 to 1, at noise levels that this variant never sees.
    """

    weight: np.ndarray
    out_of_reach: float


@dataclass(frozen=True)
class Way:
    """How a variant goes through noise: a, b and how likely a time step is, each (T,)."""

    a: np.ndarray
    b: np.ndarray
    probability: np.ndarray

    @classmethod
    def of(cls, times: str, schedule: Schedule) -> "Way":
        """Return that of a density on a path."""
        a, b = (schedule[name].numpy() for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
        return cls(a, b, probabilities(times, schedule))

    @property
    def inside(self) -> np.ndarray:
        """Where there is both noise and image."""
        return (self.a > 0) & (self.b > 0)


def run(study: Mapping[str, Any], name: str, other: str, output: Path | None) -> None:
    """Print, or write, the table that gives ``other`` the objective of ``name``, and say how well it does.

    Raises:
        UserError: if there is no such variant, or ``name`` asks for nothing.
    """
    found = match(study, name, other)
    if output is None:
        print(table.written(found.weight), end="")
    else:
        files.write_text(output, table.written(found.weight))
        print(f"{output}: a weight for each of {len(found.weight)} time steps")
    reached = "at every noise level"
    if found.out_of_reach >= 5e-4:
        reached = f"but for {100 * found.out_of_reach:.1f} % of it, at noise levels that it never sees"
    print(f"{other} with this weighting asks for what {name} asks for, {reached}", file=sys.stderr)


def match(study: Mapping[str, Any], name: str, other: str) -> Match:
    """Return the weighting that gives the variant ``other`` the objective of the variant ``name``."""
    (one, schedule), (another, other_schedule) = (_resolved(study, each) for each in (name, other))
    space = enforced(parameterization.load(one["loss_space"]))
    weight = weight_in_x0_space(space, one["weighting"], schedule, mean_under(one)).numpy()
    ways = Way.of(one["diffusion"]["times"], schedule), Way.of(another["diffusion"]["times"], other_schedule)
    if not np.isfinite(weight[ways[0].inside]).all():
        raise UserError(f"{name}: its weight is not finite at every time step; `targetwise check` says where")
    if not (weight * ways[0].probability)[ways[0].inside].any():
        raise UserError(f"{name} asks for nothing: its weight is 0 wherever a time step is drawn")
    return matched(weight, *ways)


def matched(weight: np.ndarray, way: Way, other: Way) -> Match:
    """Return what gives ``other`` the objective that ``weight`` (T,), in x0 space, has on ``way``."""
    lam, density = effective_weight(weight, way.probability, way.a, way.b)
    asked = np.where(way.b > 0, weight * way.probability, 0)
    inside, drawn = other.inside, other.probability > 0
    levels = 2 * np.log(other.a[inside] / other.b[inside])
    wanted = np.zeros(len(other.a))
    wanted[inside] = _at(levels, lam, density) * np.abs(np.gradient(levels)) * asked[way.inside].sum()
    # At zero SNR there is no λ, but there is a step, on both paths or on one.
    wanted[other.a == 0] = asked[way.a == 0].sum()
    low, high = _span(levels[drawn[inside]])
    lost = asked[way.inside][(lam < low) | (lam > high)].sum()
    if not (drawn & (other.a == 0)).any():
        lost += asked[way.a == 0].sum()
    return Match(np.divide(wanted, other.probability, out=np.zeros_like(wanted), where=drawn), lost / asked.sum())


def _at(levels: np.ndarray, lam: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Return a density over λ at other noise levels, by its logarithm, which bends less; 0 where it has none."""
    lam, density, (low, high) = lam[::-1], density[::-1], _span(lam)
    asked = density > 0
    found = np.exp(np.interp(levels, lam[asked], np.log(density[asked])))
    nothing = np.interp(levels, lam, asked.astype(float)) == 0
    return np.where(nothing | (levels < low) | (levels > high), 0, found)


def _span(lam: np.ndarray) -> tuple[float, float]:
    """Return from where to where noise levels, falling, reach: each stands for all that is nearest to it."""
    half = np.abs(np.gradient(lam)) / 2
    return lam[-1] - half[-1], lam[0] + half[0]


def _resolved(study: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Schedule]:
    """Return what a variant means, and its path in fp64."""
    known = variants.known(study)
    if name not in known:
        raise UserError(f"there is no variant '{name}'; {nearest(name, known)}")
    resolved = config.variant(study, name)
    return resolved, make_schedule(resolved["diffusion"], resolved["parameters"], dtype=torch.float64)
