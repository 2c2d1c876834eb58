"""What a network costs: its parameters, and its arithmetic for one image."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from targetwise.diffusion.network import build
from targetwise.files import canonical_json


@dataclass(frozen=True)
class Cost:
    """Parameters of a network, and floating-point operations for one image: ``forward``, and forward and backward."""

    parameters: int
    forward: int
    training: int


def cost(scale: Mapping[str, Any], channels: int, image_size: int) -> Cost:
    """Return what a scale costs, by PyTorch's own counter: matrix products and convolutions, attention's included.

    Nothing is computed, so a network of any size takes a second. On a real CPU the same counter leaves attention out,
    5 % at the CIFAR-10 study's scale small: it does not know that kernel.

    Args:
        scale: an entry of ``scales``.
        channels: of the images, and of the output.
        image_size: height and width in pixels.
    """
    return _cost(canonical_json(scale), channels, image_size)


@cache
def _cost(scale: str, channels: int, image_size: int) -> Cost:
    """Return what :func:`cost` returns; variants of one network are asked for again and again."""
    with torch.device("meta"):
        network = build(json.loads(scale), in_channels=channels, out_channels=channels, image_size=image_size, seed=0)
        image, timestep = torch.empty(1, channels, image_size, image_size), torch.empty(1)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(image, timestep)
    with FlopCounterMode(display=False) as training:
        network(image, timestep).sum().backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, forward.get_total_flops(), training.get_total_flops())
