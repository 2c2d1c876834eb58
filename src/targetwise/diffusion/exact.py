"""The exact denoiser of a finite set of images: of all functions of x_t the one with the least squared x0 error.

x_0 is one of N images x_i, each as likely, and x_t = a·x_0 + b·ε. Then E[x_0 | x_t] = Σ w_i·x_i with weights
w = softmax(−‖x_t − a·x_i‖² / (2b²)) (Karras et al. 2022, arXiv:2206.00364, appendix B.3).
"""

import torch
from torch import Tensor

#: Weights held at a time: noisy images of a chunk times images of the set.
LIMIT = 2**24


class ExactDenoiser:
    """E[x_0 | x_t] for x_0 drawn evenly from the given images."""

    def __init__(self, images: Tensor) -> None:
        """Prepare for images (N, …) in [-1, 1]; they are held in fp64, on their device.

        Raises:
            ValueError: if there is none.
        """
        if not len(images):
            raise ValueError("the exact denoiser of no images is not defined")
        self._images = images.flatten(1).double()
        self._squares = self._images.square().sum(1)

    def x0(self, noisy: Tensor, signal: Tensor | float, noise: Tensor | float) -> Tensor:
        """Return E[x_0 | x_t], of the shape and type of ``noisy``; computed in fp64.

        Without noise it is the image nearest to x_t/a (the mean of those that are equally near), and without image
        the mean of all: the limits.

        Args:
            noisy: x_t, (B, …).
            signal: a, one for all or (B,).
            noise: b, likewise, from 0 up.
        """
        x_t = noisy.flatten(1).double()
        a, b = (torch.as_tensor(each).to(x_t).flatten().expand(len(x_t))[:, None] for each in (signal, noise))
        rows = max(1, LIMIT // len(self._images))
        parts = (self._mean(*part) for part in zip(*(each.split(rows) for each in (x_t, a, b)), strict=True))
        return torch.cat([*parts]).view_as(noisy).to(noisy.dtype)

    def _mean(self, x_t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # −‖x_t − a·x_i‖²/2 but for ‖x_t‖², which is the same for all i, and counted from the nearest image.
        nearness = a * (x_t @ self._images.T) - a**2 * self._squares / 2
        behind = nearness - nearness.amax(1, keepdim=True)
        weights = torch.where(behind == 0, 0, behind / b**2).softmax(1)
        return weights @ self._images
