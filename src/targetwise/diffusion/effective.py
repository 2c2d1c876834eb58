"""The effective weight: what an objective asks for at each noise level, in whatever way it is written.

A training minimizes Σ p(t)·w(t)·(error of x0)² over time steps, w the weight in x0 space. Over λ = ln SNR that is an
integral with the weight w·p·|dt/dλ| (Kingma & Gao 2023, arXiv:2303.00848, section 2). Two objectives ask for the same
where these are the same, whatever path, density of time steps, loss space or weighting they are written with.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

#: Two objectives are one where their effective weights, as densities over λ, differ by less than this share, …
SAME = 0.01

#: … and where their paths have at least this share of their noise levels in common.
COMMON = 0.9

#: Of how many noise levels a check tells, at most.
POINTS = 201

#: ``log_snr``, which falls, and ``effective_weight`` there.
Profile = Mapping[str, Sequence[float]]


def effective_weight(
    weight: np.ndarray, probability: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return λ and the effective weight at the time steps that have both noise and image, each (n,) fp64.

    All that a training asks for is 1 together, so this is a density over λ.

    Args:
        weight: in x0 space, (T,).
        probability: of each time step, (T,).
        a: of the noise path, (T,).
        b: likewise.
    """
    inside = (a > 0) & (b > 0)
    lam, asked = 2 * np.log(a[inside] / b[inside]), (weight * probability)[inside]
    if len(lam) < 2 or not asked.any():
        return np.zeros(0), np.zeros(0)
    return lam, asked / asked.sum() / np.abs(np.gradient(lam))


def described(lam: np.ndarray, weight: np.ndarray) -> Profile:
    """Return what a check tells of an objective: noise levels about evenly spaced, and the effective weight there."""
    wanted = np.linspace(lam[0], lam[-1], POINTS) if len(lam) else np.zeros(0)
    chosen = sorted({int(np.abs(lam - level).argmin()) for level in wanted})
    return {"log_snr": lam[chosen].tolist(), "effective_weight": weight[chosen].tolist()}


def same_objectives(objectives: Mapping[str, Profile]) -> list[str]:
    """Return a sentence for each group of variants whose objectives are one, by what each one's check tells."""
    return [
        f"{', '.join(group)}: one objective, because at every noise level an error in x0 weighs as much for each; "
        "only what the network outputs or sees differs"
        for group in alike(objectives, is_same)
        if len(group) > 1
    ]


def alike(of: Mapping[str, Profile], are_same: Callable[[Profile, Profile], bool]) -> list[list[str]]:
    """Return the names in groups, each of those whose profile is the same as that of the group's first."""
    groups: list[list[str]] = []
    for name, profile in of.items():
        group = next((group for group in groups if are_same(of[group[0]], profile)), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def is_same(one: Profile, other: Profile) -> bool:
    """Return whether two objectives are one."""
    return difference(one, other) < SAME


def difference(one: Profile, other: Profile) -> float:
    """Return which share of its weight one objective has at other noise levels than the other, 0 … 1.

    It is 1 where their paths have too few noise levels in common to tell.
    """
    (lam, weight), (other_lam, other_weight) = map(_rising, (one, other))
    if min(len(lam), len(other_lam)) < 2:
        return 1.0
    low, high = max(lam[0], other_lam[0]), min(lam[-1], other_lam[-1])
    if high - low < COMMON * (max(lam[-1], other_lam[-1]) - min(lam[0], other_lam[0])):
        return 1.0
    grid = np.linspace(low, high, 2000)
    asked = np.exp([np.interp(grid, lam, np.log(weight)), np.interp(grid, other_lam, np.log(other_weight))])
    asked /= np.trapezoid(asked, grid)[:, None]
    return float(np.trapezoid(np.abs(asked[0] - asked[1]), grid) / 2)


def _rising(objective: Profile) -> np.ndarray:
    """Return λ, rising, and the effective weight where it is above 0, (2, n)."""
    found = np.array([objective["log_snr"], objective["effective_weight"]])[:, ::-1]
    return found[:, found[1] > 0]
