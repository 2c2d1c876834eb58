"""min(SNR(t), γ): epsilon's weight, bounded where there is little noise (Hang et al. 2023, min-SNR-γ).

The parameter ``gamma`` is γ, 5 by default as there.
"""


def weight(schedule):
    """Return min(SNR, γ), shape (T,)."""
    snr = schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2
    return snr.clamp(max=schedule.get("gamma", 5))
