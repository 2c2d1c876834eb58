"""A residual MLP over all pixels at once, for images of any size: y = W norm(h) + G(t)·x.

Each block is h ← h + W₂ silu(W₁ ((1 + s(t)) ⊙ norm(h) + m(t))). The time step enters as sines and cosines (Vaswani et
al. 2017, section 3.5) and sets the scale s and shift m, common to all blocks (adaptive layer norm: Peebles & Xie 2023,
section 3.2), and G, how much of the input's channels the output takes over: to predict the noise, a network must let it
through. All three start at 0. Options: ``width`` of the hidden layers, even, and ``layers``, the number of blocks.
"""

import math

import torch
from torch import nn
from torch.nn.functional import layer_norm

from targetwise.errors import UserError


class MLP(nn.Module):
    """The MLP as a function (B, C, H, W), (B,) → (B, C', H, W)."""

    def __init__(self, width, layers, in_channels, out_channels, size):
        """Build it for images of ``size`` × ``size``."""
        super().__init__()
        self.shape = (out_channels, size, size)
        self.width = (width,)
        self.parts = [width, width, out_channels * in_channels]
        frequencies = [math.exp(-math.log(10_000) * index / (width // 2)) for index in range(width // 2)]
        # On the network's device from the start: a copy at every call would make the host wait for a GPU.
        self.register_buffer("frequencies", torch.tensor(frequencies), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, sum(self.parts)))
        self.first = nn.Linear(in_channels * size**2, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(layers)
        )
        self.last = nn.Linear(width, math.prod(self.shape))
        nn.init.zeros_(self.time[-1].weight)
        nn.init.zeros_(self.time[-1].bias)

    def forward(self, x, timesteps):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        angles = timesteps[:, None] * self.frequencies
        scale, shift, mixing = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)).split(self.parts, dim=1)
        hidden = self.first(x.flatten(1))
        for block in self.blocks:
            hidden = hidden + block((1 + scale) * layer_norm(hidden, self.width) + shift)
        taken_over = mixing.view(len(x), self.shape[0], -1) @ x.flatten(2)
        return self.last(layer_norm(hidden, self.width)).view(-1, *self.shape) + taken_over.view(-1, *self.shape)


def build(options, *, in_channels, out_channels, image_size):
    """Build the network."""
    if set(options) != {"width", "layers"} or options["width"] % 2:
        raise UserError(f"network mlp takes an even width and layers, e.g. {{width: 256, layers: 4}}; not {options}")
    return MLP(options["width"], options["layers"], in_channels, out_channels, image_size)
