"""SNR(t) + 1: the weight in x0 space of a flat v loss where a² + b² = 1 (Salimans & Ho 2022, section 4)."""


def weight(schedule):
    """Return SNR + 1, shape (T,)."""
    return schedule["sqrt_alpha"] ** 2 / schedule["sqrt_one_minus_alpha"] ** 2 + 1
