"""edm_f: EDM's F, x_0 = (s²a/Q)·x_t + (b·s/√Q)·y with Q = b² + s²a² (Karras et al. 2022, arXiv:2206.00364, table 1).

The parameter ``sigma_data`` is s, the standard deviation of the pixels, 0.5 by default as there. Only the output is
EDM's: the network still sees x_t, and not x_t/√Q.
"""


def coefficients(timesteps, schedule):
    """Return a, b, s and Q, for images of time steps (B,)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    s = schedule.get("sigma_data", 0.5)
    return a, b, s, b**2 + s**2 * a**2


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = (b·x_0 − s²a·ε)/(s·√Q)."""
    a, b, s, Q = coefficients(timesteps, schedule)
    return (b * x_0 - s**2 * a * noise) / (s * Q.sqrt())


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (s²a/Q)·x_t + (b·s/√Q)·y."""
    a, b, s, Q = coefficients(timesteps, schedule)
    return s**2 * a / Q * x_t + b * s / Q.sqrt() * model_output
