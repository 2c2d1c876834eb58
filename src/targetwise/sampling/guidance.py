"""Classifier-free guidance of the x0 estimate, and which image of a draw has which label."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from targetwise.diffusion.trajectory import Point


def labels_of(classes: int | None, first: int, count: int, device: torch.device) -> Tensor | None:
    """Return the labels of samples ``first`` … ``first + count − 1`` of a draw, (count,): i mod K of sample i.

    So every class comes equally often, and image i of all cells has one label. None without ``classes`` (K).
    """
    return None if classes is None else torch.arange(first, first + count, device=device) % classes


def guided(estimate: Callable[..., Tensor], labels: Tensor, now: Point, options: Mapping[str, Any]) -> Tensor:
    """Return x̂ = x̂_∅ + w·(x̂_c − x̂_∅) (Ho & Salimans 2022, arXiv:2207.12598, eq. 6 with their w + 1 as w).

    Args:
        estimate: of x_0, (B, C, H, W), from labels or from none.
        labels: (B,) int64.
        now: the place on the noise path.
        options: ``guidance``, w; by default 1, which is x̂_c itself, as 0 is x̂_∅. ``guidance_interval``: the lowest
            and highest λ = ln SNR to guide at, w is 1 elsewhere (Kynkäänniemi et al. 2024, arXiv:2404.07724).
            ``guidance_rescale``, φ: each image is multiplied by φ·sd(x̂_c)/sd(x̂) + 1 − φ (Lin et al. 2024,
            arXiv:2305.08891, section 3.4).
    """
    low, high = options.get("guidance_interval", (-math.inf, math.inf))
    log_snr = 2 * math.log(now.a / now.b) if now.a else -math.inf
    weight = options.get("guidance", 1) if low <= log_snr <= high else 1
    if weight == 0:
        return estimate()
    conditional = estimate(labels)
    if weight == 1:
        return conditional
    unconditional = estimate()
    x_0 = unconditional + weight * (conditional - unconditional)
    if rescale := options.get("guidance_rescale"):
        spread, wanted = (each.std(dim=(1, 2, 3), keepdim=True) for each in (x_0, conditional))
        x_0 = (rescale * wanted / spread + 1 - rescale) * x_0
    return x_0
