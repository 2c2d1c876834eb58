"""v: predict y = a·ε − b·x_0, so x_0 = a·x_t − b·y. Salimans & Ho 2022, arXiv:2202.00512, section 4, appendix D.

The short inverse holds because the path preserves variance, a² + b² = 1.
"""


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = a·ε − b·x_0."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return a * noise - b * x_0


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = a·x_t − b·y."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return a * x_t - b * model_output
