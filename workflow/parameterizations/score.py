"""score: predict the gradient of the log-density of x_t given x_0, y = −ε/b, so x_0 = (x_t + b²·y)/a.

Song et al. 2021, arXiv:2011.13456, section 3.3. A flat loss weighs the first time steps up to 1e8 times the last ones.
"""


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = −ε/b."""
    return -noise / schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (x_t + b²·y)/a."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return (x_t + b**2 * model_output) / a
