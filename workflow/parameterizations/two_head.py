"""two_head: predict x_0 and ε, each in its own channels, and mix what both say of x_0 (Salimans & Ho 2022, section 4).

x_0 = (b²·y₁ + a·(x_t − b·y₂))/(a² + b²): the noisier x_t is, the more y₁ = x_0 counts, and the less y₂ = ε.
"""

import torch


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y₁ = x_0 and y₂ = ε, stacked."""
    return torch.cat([x_0, noise], dim=1)


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (b²·y₁ + a·(x_t − b·y₂))/(a² + b²)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    image, noise = model_output.chunk(2, dim=1)
    return (b**2 * image + a * (x_t - b * noise)) / (a**2 + b**2)
