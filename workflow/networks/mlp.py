"""A residual MLP over all pixels at once, for images of any size: h ← h + W₂ silu(W₁ norm(h + e(t))).

The time step enters as sines and cosines (Vaswani et al. 2017, section 3.5) through a layer of its own, e(t). Options:
``width`` of the hidden layers, even, and ``layers``, the number of residual blocks.
"""

import math

import torch
from torch import nn

from targetwise.errors import UserError


class MLP(nn.Module):
    """The MLP as a function (B, C, H, W), (B,) → (B, C', H, W)."""

    def __init__(self, width, layers, in_channels, out_channels, size):
        """Build it for images of ``size`` × ``size``."""
        super().__init__()
        self.shape = (out_channels, size, size)
        self.frequencies = [math.exp(-math.log(10_000) * index / (width // 2)) for index in range(width // 2)]
        self.first = nn.Linear(in_channels * size**2, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, math.prod(self.shape))

    def forward(self, x, timesteps):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        angles = timesteps[:, None] * torch.tensor(self.frequencies, device=x.device)
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        hidden = self.first(x.flatten(1))
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return self.last(self.norm(hidden)).view(-1, *self.shape)


def build(options, *, in_channels, out_channels, image_size):
    """Build the network."""
    if set(options) != {"width", "layers"} or options["width"] % 2:
        raise UserError(f"network mlp takes an even width and layers, e.g. {{width: 256, layers: 4}}; not {options}")
    return MLP(options["width"], options["layers"], in_channels, out_channels, image_size)
