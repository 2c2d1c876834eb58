"""γ·SNR/(γ + SNR): min_snr without its corner (Crowson et al. 2024, arXiv:2401.11605).

The parameter ``gamma`` is γ, 4 by default: there it is 1/s² with s = 0.5, the standard deviation of the data.
"""


def weight(schedule):
    """Return γ·SNR/(γ + SNR), shape (T,)."""
    snr = schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2
    gamma = schedule.get("gamma", 4)
    return gamma * snr / (gamma + snr)
