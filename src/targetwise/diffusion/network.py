"""The denoiser: a file of ``workflow/networks/`` at a configured scale."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from targetwise.errors import UserError, in_one_line
from targetwise.recipe import kinds
from targetwise.recipe.variants import network_name


def build(
    scale: Mapping[str, Any],
    *,
    in_channels: int,
    out_channels: int,
    image_size: int,
    seed: int,
    classes: int | None = None,
) -> nn.Module:
    """Build a network with the initial weights of ``seed``, a function (B, C, H, W), (B,) → (B, C', H, W).

    A class-conditional one takes labels as well, (B,) int64 in 0 … K, where K stands for no label.

    The weights are drawn on the CPU from the seed alone, so all parameterizations of one seed with the same number
    of output channels start alike.

    Args:
        scale: ``network``, the file's name (by default unet), and the file's own options.
        in_channels: C of the images.
        out_channels: C' of the target.
        image_size: height and width in pixels.
        seed: of the initial weights.
        classes: K; None for a network that sees no labels.

    Raises:
        UserError: if there is no such file, or its options do not fit one another or the images.
    """
    options = {key: value for key, value in scale.items() if key not in ("network", "global_batch")}
    source = kinds.load("networks", network_name(scale))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "image_size": image_size}
        told = {} if classes is None else {"classes": classes}
        network: nn.Module = source.call("build", options, **sizes, **told)
        labels = [] if classes is None else [torch.tensor([classes])]
        _require_shape(network, labels, kinds.file_of("networks", source.name), **sizes)
    return network


@torch.no_grad()
def _require_shape(
    network: nn.Module, labels: list[Tensor], file: Path, *, in_channels: int, out_channels: int, image_size: int
) -> None:
    """Try a network on one image: a wrong shape would be broadcast by the loss, and trained with."""
    image, wanted = torch.zeros(1, in_channels, image_size, image_size), (1, out_channels, image_size, image_size)
    training = network.training
    try:
        output = network.eval()(image, torch.zeros(1, dtype=torch.int64), *labels)
    except Exception as error:
        raise UserError(f"{file}: the network fails: {in_one_line(error)}") from error
    finally:
        network.train(training)
    if not isinstance(output, Tensor) or output.shape != wanted:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{file}: the network returned {found} for one image; it must return {wanted}")


def misfit(weights: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Describe the first tensor by which ``weights`` do not fit ``network``; None if they fit."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            first = next(iter(weights), None)
            return f"it lacks the tensor {name} ({_shape(tensor)}){f'; it holds e.g. {first}' if first else ''}"
        if weights[name].shape != tensor.shape:
            return f"its tensor {name} is {_shape(weights[name])}, that of the network is {_shape(tensor)}"
    foreign = next((name for name in weights if name not in wanted), None)
    return f"its tensor {foreign} is not one of the network's" if foreign else None


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
