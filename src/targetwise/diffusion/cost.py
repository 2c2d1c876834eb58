"""What a network costs: its parameters, and its arithmetic for one image."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from targetwise.files import cache, read_whole, sha256_of_file, sha256_of_json, write_json
from targetwise.provenance import versions
from targetwise.recipe import kinds
from targetwise.recipe.variants import network_name

if TYPE_CHECKING:  # seconds, which a cost that was counted before does not need
    from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Parameters of a network, and floating-point operations for one image: ``forward``, and forward and backward."""

    parameters: int
    forward: int
    training: int


def cost(scale: Mapping[str, Any], channels: int, image_size: int, classes: int | None = None) -> Cost:
    """Return what a scale costs; counted once, and then kept in the user's cache, because the libraries take seconds.

    Args:
        scale: an entry of ``scales``.
        channels: of the images, and of the output.
        image_size: height and width in pixels.
        classes: that the network is told of; None where it sees no labels.
    """
    file = kinds.file_of("networks", network_name(scale))
    key = sha256_of_json([dict(scale), channels, image_size, classes, sha256_of_file(file), versions()])
    path = cache() / "costs" / f"{key}.json"
    known = read_whole(path)
    if known is not None:
        return Cost(**known)
    import torch

    from targetwise.diffusion.network import build

    with torch.device("meta"):
        sizes = {"in_channels": channels, "out_channels": channels, "image_size": image_size}
        network = build(scale, **sizes, seed=0, classes=classes)
        found = count(network, channels, image_size, *([] if classes is None else [torch.tensor([0])]))
    with suppress(OSError):  # it is only kept to save time
        write_json(path, asdict(found))
    return found


def count(network: "nn.Module", channels: int, image_size: int, *labels: "Tensor") -> Cost:
    """Return what a network costs, by PyTorch's own counter: matrix products and convolutions, attention's included.

    On the device ``meta`` nothing is computed, so a network of any size takes a second. On a real CPU the same
    counter leaves attention out, 5 % at the CIFAR-10 study's scale small: it does not know that kernel.

    Args:
        network: on the default device.
        channels: of the images.
        image_size: height and width in pixels.
        labels: of one image, (1,), for a network that takes labels.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image, timestep = torch.empty(1, channels, image_size, image_size), torch.empty(1)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(image, timestep, *labels)
    with FlopCounterMode(display=False) as training:
        network(image, timestep, *labels).sum().backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, forward.get_total_flops(), training.get_total_flops())
