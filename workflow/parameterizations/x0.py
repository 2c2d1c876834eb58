"""x0: predict the clean image, y = x_0. Ho et al. 2020, arXiv:2006.11239, section 3.2."""


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = x_0."""
    return x_0


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = y."""
    return model_output
