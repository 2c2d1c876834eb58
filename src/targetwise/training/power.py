"""Power-function averages of a training, and an average of another length from them: Karras et al. 2024 (EDM2).

At time t of a training, the average of exponent γ weighs the weights at the earlier time τ by

    p_γ(τ; t) = (γ + 1)·τ^γ / t^(γ+1),  0 ≤ τ ≤ t.

Its length is the standard deviation of p_γ over t, σ_rel = √((γ + 1)/((γ + 2)²·(γ + 3))). A sum of profiles of some
averages at some times is nearly the profile of any other average, and so is the same sum of the averages
(arXiv:2312.02696, section 3 and appendix C). Step k of a training is the time from k − 1 to k: the recursion with
β = (1 − 1/k)^(γ+1) gives it exactly the integral of p_γ over that time, so steps add no error of their own.

Nothing heavy is imported here: the configuration is refused by it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from targetwise.errors import UserError

#: How many snapshots of each average a training keeps.
SNAPSHOTS = 8

#: The largest root mean square by which a rebuilt profile may miss the wanted one, as a share of the wanted one's.
TOLERANCE = 0.05


def require_stored(training: Mapping[str, Any], length: float, where: str) -> None:
    """Refuse a length that the training of a variant, the section ``training``, stores no averages for.

    Raises:
        UserError: beginning with ``where``, the place in the configuration.
    """
    if "ema_power" not in training:
        raise UserError(
            f"configuration: {where}sampling.ema_length is {length:g}, but no averages are stored to rebuild it "
            "from; set training.ema_power, e.g. [0.05, 0.1]"
        )
    try:
        coefficients(
            [(each, step) for each in training["ema_power"] for step in snapshot_steps(training["steps"])], length
        )
    except UserError as error:
        raise UserError(f"configuration: {where}sampling.ema_length: {error}") from None


def snapshot_steps(steps: int) -> list[int]:
    """Return after which steps averages are kept: more of them late, where short ones change, and the last."""
    return sorted({max(1, round(steps * (k / SNAPSHOTS) ** 0.5)) for k in range(1, SNAPSHOTS + 1)})


def exponent(length: float) -> float:
    """Return γ ≥ 0 of the average of length σ_rel, 0 < σ_rel ≤ √(1/12): the root of (γ + 2)²·(γ + 3)·σ² = γ + 1."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def overlap(time: np.ndarray, gamma: np.ndarray, other_time: np.ndarray, other_gamma: np.ndarray) -> np.ndarray:
    """Return ∫ p_γ(τ; t)·p_γ'(τ; t') dτ of pairs of averages, broadcast."""
    first, last = np.minimum(time, other_time), np.maximum(time, other_time)
    of_last = np.where(time < other_time, other_gamma, gamma)
    return (gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1) * (first / last) ** of_last / last


def coefficients(stored: Sequence[tuple[float, int]], length: float) -> np.ndarray:
    """Return by what to multiply stored averages so that their sum is the one of another length at the last step.

    Args:
        stored: length σ_rel and step of each.
        length: σ_rel of the wanted one.

    Returns:
        Shape (n,) fp64, of sum 1.

    Raises:
        UserError: if the sum would not be that average.
    """
    lengths, steps = np.array(stored).T
    time, gamma, wanted = steps / steps.max(), np.array([exponent(each) for each in lengths]), exponent(length)
    products = overlap(time[:, None], gamma[:, None], time, gamma)
    onto = overlap(time, gamma, np.array(1.0), np.array(wanted))
    found: np.ndarray = np.linalg.lstsq(products, onto)[0]
    found /= found.sum()  # where the weights stand still, the average is what they are
    own = (wanted + 1) ** 2 / (2 * wanted + 1)
    missed = np.sqrt(max(0.0, own - 2 * found @ onto + found @ products @ found) / own)
    if not missed <= TOLERANCE:
        kept = ", ".join(f"{each:g}" for each in sorted(set(lengths)))
        raise UserError(
            f"an average of length {length:g} cannot be rebuilt from {len(set(steps))} each of length {kept}: its "
            f"profile would be off by {100 * missed:.1f} %, and {100 * TOLERANCE:.0f} % are allowed; take a length "
            "nearer to theirs"
        )
    return found
