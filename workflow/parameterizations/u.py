"""u: predict the path's velocity on a = 1 − τ, b = τ, y = ε − x_0, so x_0 = (x_t − b·y)/(a + b).

Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003. The inverse holds on every path.
"""


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = ε − x_0."""
    return noise - x_0


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (x_t − b·y)/(a + b)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return (x_t - b * model_output) / (a + b)
