"""residual: predict what the best linear denoiser k·x_t leaves of the image, y = x_0 − k·x_t, k = s²a/(b² + s²a²).

k·x_t is the linear estimate of least squared error for pixels of variance s² (Wiener 1949). The parameter
``sigma_data`` is s, 0.5 by default. It is EDM's F without its scale, so the error in y is the error in x_0.
"""


def skip(timesteps, schedule):
    """Return k, for images of time steps (B,)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    s = schedule.get("sigma_data", 0.5)
    return s**2 * a / (b**2 + s**2 * a**2)


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = x_0 − k·(a·x_0 + b·ε)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return x_0 - skip(timesteps, schedule) * (a * x_0 + b * noise)


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = y + k·x_t."""
    return model_output + skip(timesteps, schedule) * x_t
