"""epsilon: predict the noise, y = ε, so x_0 = (x_t − b·ε) / a. Ho et al. 2020, arXiv:2006.11239, eq. 12."""


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = ε."""
    return noise


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (x_t − b·y) / a."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return (x_t - b * model_output) / a
