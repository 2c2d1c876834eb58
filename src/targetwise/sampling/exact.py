"""The exact denoiser of the training images in the place of a network, for the study's own sampler."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from targetwise.cells import Cell
from targetwise.data.store import Images
from targetwise.diffusion.exact import ExactDenoiser
from targetwise.diffusion.schedule import make_schedule
from targetwise.sampling.denoiser import Source


class Exact(Source):
    """E[x_0 | x_t] over the training images, asked as a network is."""

    def __init__(self, specification: Mapping[str, Any], images: Images, device: torch.device) -> None:
        """Prepare for the path and the seed of a cell; it sees no labels, also where the cell's network does."""
        self.name = f"exact denoiser for {Cell(**specification['cell']).name}"
        self.seed = specification["cell"]["seed"]
        self.variant = specification["variant"]
        self.options = specification["training"]
        self.device = device
        self.image_shape = (images.channels, images.size, images.size)
        schedule = make_schedule(self.variant["diffusion"], self.variant["parameters"], dtype=torch.float64)
        self._a, self._b = (schedule[name].to(device) for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
        levels = torch.from_numpy(images.images).to(device).permute(0, 3, 1, 2)
        self._exact = ExactDenoiser(levels.double() / 127.5 - 1)

    def x_0(
        self, x_t: Tensor, timesteps: Tensor, labels: Tensor | None = None, *, widen_output: bool = True
    ) -> Tensor:
        """Return the best estimate of x_0 there is, of the type of ``x_t`` (B, C, H, W)."""
        return self._exact.x0(x_t, self._a[timesteps], self._b[timesteps])
