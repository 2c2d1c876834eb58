"""A learned weight of each noise level: the network minimizes l/exp(u(λ)) + u(λ), and so does u, l being its loss.

Over u alone the minimum of E[l | λ]·exp(−u) + u is u = ln E[l | λ]: where u has followed, every noise level's loss
counts as 1. Kendall et al. 2018 (arXiv:1705.07115); Karras et al. 2024 (EDM2, arXiv:2312.02696), equations 14 to 16
and 21.
"""

import math

import torch
from torch import Tensor, nn

from targetwise.compute.distributed import World
from targetwise.diffusion.schedule import Schedule

#: Fourier features of the noise level, as many as EDM2 has.
FEATURES = 128

#: In place of an a or b of 0, whose noise level is infinite.
LEAST = 1e-6


class Uncertainty(nn.Module):
    """u of every time step, one linear layer over Fourier features of c_noise = ln(b/a)/4; 0 to begin with.

    As in EDM2, but for the frequencies and phases: not drawn, they are spread evenly over the distributions that it
    draws them from, so u can be the same functions in every cell.
    """

    features: Tensor

    def __init__(self, schedule: Schedule) -> None:
        """Prepare for the noise levels of a path, on its device."""
        super().__init__()
        a, b = (schedule[name].double().clamp(min=LEAST) for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
        index = torch.arange(FEATURES, dtype=torch.float64, device=a.device)
        frequencies = torch.special.ndtri((index + 0.5) / FEATURES)  # normal
        phases = index * (math.sqrt(5) - 1) / 2 % 1  # uniform, and as good as independent of the frequencies
        angles = frequencies * (b / a).log()[:, None] / 4 + phases
        self.register_buffer("features", math.sqrt(2) * torch.cos(2 * math.pi * angles).float())
        self.weight = nn.Parameter(torch.zeros(FEATURES, device=a.device))

    def at(self, timesteps: Tensor) -> Tensor:
        """Return u at time steps (B,)."""
        return (self.features[timesteps] * self.weight).sum(1)

    def forward(self, losses: Tensor, timesteps: Tensor) -> Tensor:
        """Return what is minimized, of losses and time steps (B,)."""
        u = self.at(timesteps)
        return losses * torch.exp(-u) + u

    def exchange(self, world: World) -> None:
        """Average the gradient over the processes, as theirs is that compute the network's."""
        if world.size > 1 and self.weight.grad is not None:
            self.weight.grad.copy_(world.sum(self.weight.grad) / world.size)
