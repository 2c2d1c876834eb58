"""A plain MLP over all pixels at once: hidden layers with ReLU, and no path around them.

y = W·h_L + c, h_1 = relu(W_1·(x, τ(t)) + c_1), h_l = relu(W_l·h_(l−1) + c_l), where τ holds sines and cosines of the
time step (Vaswani et al. 2017, section 3.5). So whatever the input, the output lies in the affine subspace c + span W of
at most ``width`` dimensions: with more pixels than that it cannot let noise through, as `mlp` can. That is what JiT's toy
tries (Li & He 2025, arXiv:2511.13720, Fig. 2: five layers of 256, ReLU). Options: ``width`` of the hidden layers, even,
and ``layers``, their number.
"""

import math
from itertools import pairwise

import torch
from torch import nn

from targetwise.errors import UserError


class PlainMLP(nn.Module):
    """The MLP as a function (B, C, H, W), (B,) → (B, C', H, W)."""

    def __init__(self, width, layers, in_channels, out_channels, size):
        """Build it for images of ``size`` × ``size``."""
        super().__init__()
        self.shape = (out_channels, size, size)
        frequencies = [math.exp(-math.log(10_000) * index / (width // 2)) for index in range(width // 2)]
        self.register_buffer("frequencies", torch.tensor(frequencies), persistent=False)
        widths = [in_channels * size**2 + width, *[width] * layers]
        hidden = [nn.Sequential(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(widths)]
        self.hidden = nn.Sequential(*hidden)
        self.last = nn.Linear(width, math.prod(self.shape))

    def forward(self, x, timesteps):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        angles = timesteps[:, None] * self.frequencies
        hidden = self.hidden(torch.cat([x.flatten(1), angles.sin(), angles.cos()], dim=1))
        return self.last(hidden).view(-1, *self.shape)


def build(options, *, in_channels, out_channels, image_size):
    """Build the network."""
    if set(options) != {"width", "layers"} or options["width"] % 2:
        raise UserError(
            f"network plain_mlp takes an even width and layers, e.g. {{width: 256, layers: 5}}; not {options}"
        )
    return PlainMLP(options["width"], options["layers"], in_channels, out_channels, image_size)
