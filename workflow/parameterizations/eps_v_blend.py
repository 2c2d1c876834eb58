"""eps_v_blend: between ε and v, y = cos φ·ε − sin φ·x_0 with φ = c·atan2(b, a), so x_0 = (cos φ·x_t − b·y)/D.

D = a·cos φ + b·sin φ. The parameter ``blend`` is c, 0.5 by default; 0 is epsilon, and 1 is v where a² + b² = 1
(Salimans & Ho 2022, arXiv:2202.00512, appendix D, where φ = atan2(b, a) is the angle of the noise).
"""

import torch


def turn(timesteps, schedule):
    """Return a, b, cos φ and sin φ, for images of time steps (B,)."""
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    phi = schedule.get("blend", 0.5) * torch.atan2(b, a)
    return a, b, phi.cos(), phi.sin()


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return y = cos φ·ε − sin φ·x_0."""
    _, _, cosine, sine = turn(timesteps, schedule)
    return cosine * noise - sine * x_0


def predict_x0(model_output, x_t, timesteps, schedule):
    """Return x_0 = (cos φ·x_t − b·y)/(a·cos φ + b·sin φ)."""
    a, b, cosine, sine = turn(timesteps, schedule)
    return (cosine * x_t - b * model_output) / (a * cosine + b * sine)
