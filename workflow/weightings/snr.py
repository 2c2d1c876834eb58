"""SNR(t) = a²/b²: the weight in x0 space of a flat epsilon loss (Salimans & Ho 2022, section 4)."""


def weight(schedule):
    """Return SNR, shape (T,)."""
    return schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2
