"""max(SNR(t), 1): epsilon's weight, but never below that of a flat x0 loss (Salimans & Ho 2022, section 4).

Elsewhere the same words mean a bound from above: that one is min_snr.
"""


def weight(schedule):
    """Return max(SNR, 1), shape (T,)."""
    return (schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2).clamp(min=1)
