"""SNR/(k + SNR)^γ: a flat epsilon loss that is damped where there is little noise (Choi et al. 2022, arXiv:2204.00227).

The parameters ``k`` and ``gamma`` are k and γ, both 1 by default as there.
"""


def weight(schedule):
    """Return SNR/(k + SNR)^γ, shape (T,)."""
    snr = schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2
    return snr / (schedule.get("k", 1) + snr) ** schedule.get("gamma", 1)
