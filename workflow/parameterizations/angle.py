"""angle: predict y = cos φ·ε − sin φ·x_0 with the same φ at every time step, so x_0 = (cos φ·x_t − b·y)/D.

D = a·cos φ + b·sin φ. The parameter ``angle`` is φ in degrees, 45 by default; 0 is epsilon, and 90 is −x_0.
"""

import torch


def turn(timesteps, schedule):
    """Return a, b, cos φ and sin φ, for images of time steps (B,)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    phi = torch.deg2rad(schedule.get("angle", 45.0) * torch.ones_like(a))
    return a, b, phi.cos(), phi.sin()


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = cos φ·ε − sin φ·x_0."""
    _, _, cosine, sine = turn(timesteps, schedule)
    return cosine * noise - sine * x_0


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (cos φ·x_t − b·y)/(a·cos φ + b·sin φ)."""
    a, b, cosine, sine = turn(timesteps, schedule)
    return (cosine * x_t - b * model_output) / (a * cosine + b * sine)
