"""The residual MLP of mlp with labels: an embedding of each label is added to the sines and cosines of the time step.

Through them a label sets scale and shift of the blocks (Peebles & Xie 2023, section 3.2), and what of the input the
output takes over. Label K stands for none. Options, and all other initial weights of a seed, are those of mlp.
"""

import math

import torch
from torch import nn
from torch.nn.functional import layer_norm

from targetwise.errors import UserError


class MLP(nn.Module):
    """The MLP as a function (B, C, H, W), (B,), (B,) → (B, C', H, W)."""

    def __init__(self, width, layers, in_channels, out_channels, size, classes):
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
        if classes is not None:  # the last thing that is drawn
            self.labels = nn.Embedding(classes + 1, width)

    def forward(self, x, timesteps, labels=None):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        angles = timesteps[:, None] * self.frequencies
        told = torch.cat([angles.sin(), angles.cos()], dim=1)
        if labels is not None:
            told = told + self.labels(labels)
        scale, shift, mixing = self.time(told).split(self.parts, dim=1)
        hidden = self.first(x.flatten(1))
        for block in self.blocks:
            hidden = hidden + block((1 + scale) * layer_norm(hidden, self.width) + shift)
        taken_over = mixing.view(len(x), self.shape[0], -1) @ x.flatten(2)
        return self.last(layer_norm(hidden, self.width)).view(-1, *self.shape) + taken_over.view(-1, *self.shape)


def build(options, *, in_channels, out_channels, image_size, classes=None):
    """Build the network."""
    if set(options) != {"width", "layers"} or options["width"] % 2:
        raise UserError(
            f"network conditional_mlp takes an even width and layers, e.g. {{width: 256, layers: 4}}; not {options}"
        )
    return MLP(options["width"], options["layers"], in_channels, out_channels, image_size, classes)
