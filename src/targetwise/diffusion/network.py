"""The denoiser: diffusers' ``UNet2DModel`` at a configured scale."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from targetwise.errors import UserError


def build(
    scale: Mapping[str, Any], *, in_channels: int, out_channels: int, image_size: int, seed: int
) -> UNet2DModel:
    """Build the U-Net with the initial weights of ``seed``.

    The weights are drawn on the CPU from the seed alone, so all parameterizations of one seed with the same number
    of output channels start alike.

    Args:
        scale: ``channels`` of each level, levels with ``attention``, ``layers_per_block``.
        in_channels: C of the images.
        out_channels: C' of the target.
        image_size: height and width in pixels.
        seed: of the initial weights.

    Raises:
        UserError: if the images cannot be halved once for every level but the last.
    """
    levels = len(scale["channels"])
    if image_size % 2 ** (levels - 1):
        raise UserError(f"images of {image_size} pixels cannot be halved {levels - 1} times, for {levels} levels")
    down = ["AttnDownBlock2D" if level in scale["attention"] else "DownBlock2D" for level in range(levels)]
    up = ["AttnUpBlock2D" if level in scale["attention"] else "UpBlock2D" for level in reversed(range(levels))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=image_size,
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=tuple(scale["channels"]),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            layers_per_block=scale["layers_per_block"],
            attention_head_dim=8,
            norm_num_groups=32,
            norm_eps=1e-6,
            act_fn="silu",
            flip_sin_to_cos=False,
            freq_shift=1,
            downsample_padding=0,
            dropout=0.0,
        )


def misfit(weights: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Return in words the first tensor by which ``weights`` are not of ``network``; None if they fit."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            first = next(iter(weights), None)
            return f"it lacks the tensor {name} ({_shape(tensor)}){f'; it holds e.g. {first}' if first else ''}"
        if weights[name].shape != tensor.shape:
            return f"its tensor {name} is {_shape(weights[name])}, that of the network is {_shape(tensor)}"
    foreign = next((name for name in weights if name not in wanted), None)
    return f"its tensor {foreign} is none of the network's" if foreign else None


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
