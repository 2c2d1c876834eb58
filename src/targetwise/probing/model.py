"""What a probe is given: a trained network with its variant's own functions, its images, and noise for all alike.

It is the network that is sampled, with the averaged weights, but in fp32 and not compiled, so that no number format
counts against one output more than against another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.diffusion.loss import Objective, mean_under
from targetwise.diffusion.randomness import stream
from targetwise.diffusion.schedule import add_noise, make_schedule
from targetwise.errors import UserError
from targetwise.sampling.denoiser import BATCH, Denoiser


@dataclass(frozen=True)
class Draw:
    """Images to measure at, and their noise.

    Attributes:
        x_0: (B, C, H, W) fp32 in [-1, 1].
        noise: ε, of the same shape.
        labels: those that the training would tell with them, (B,); None where the network sees none.
    """

    x_0: Tensor
    noise: Tensor
    labels: Tensor | None


class Model:
    """A trained network, to be measured and not to be changed.

    Attributes:
        T: how many time steps there are.
        a: the signal at every time step, (T,) fp64.
        b: the noise likewise.
    """

    def __init__(self, specification: Mapping[str, Any], training: Images, held_out: Images, device: torch.device):
        """Build the network of a cell, with its initial weights.

        Args:
            specification: the content of ``cell.json``.
            training: the images that it is trained on.
            held_out: those that it never sees.
            device: where everything is.
        """
        variant = specification["variant"]
        full = dict.fromkeys(("cpu", "cuda"), "fp32")
        options = {
            **specification["training"],
            "precision": full,
            "compile": dict.fromkeys(full, False),
            "tf32": False,
        }
        self._target = parameterization.load(variant["target"])
        self.denoiser = Denoiser({**specification, "training": options}, training, self._target, device)
        loss_space = parameterization.load(variant["loss_space"])
        schedule = self.denoiser.schedule
        self._objective = Objective.of(self._target, loss_space, variant["weighting"], schedule, mean_under(variant))
        self._images = {"training": training, "held-out": held_out}
        self._mirrored = specification["data"]["horizontal_flip"]
        path = make_schedule(variant["diffusion"], variant["parameters"], dtype=torch.float64, device=device)
        self.a, self.b = path["sqrt_alpha"], path["sqrt_one_minus_alpha"]
        self.T = len(self.a)

    @cached_property
    def training(self) -> Tensor:
        """Everything that the network is trained on, fp32 in [-1, 1]: with the mirrored images, if it is mirrored."""
        images = self._pixels("training")
        return torch.cat([images, images.flip(-1)]) if self._mirrored else images

    def steps(self, first: float, stop: float, count: int) -> Tensor:
        """Return ``count`` time steps, spread evenly over first·T ≤ t < stop·T; at least one, (count,) int64."""
        low = min(round(first * self.T), self.T - 1)
        width = max(round(stop * self.T) - low, 1)
        return low + torch.arange(count, device=self.a.device) * width // count

    def steps_at(self, log_snr: Tensor) -> Tensor:
        """Return the time steps whose λ = ln(a²/b²) is nearest to each of ``log_snr``, (B,) int64.

        Raises:
            UserError: if the path does not reach so far.
        """
        there = 2 * (self.a / self.b).log()
        for wanted in (log_snr.min(), log_snr.max()):
            if not there.min() <= wanted <= there.max():
                raise UserError(
                    f"the path has no time step of log-SNR {wanted.item():g}; it goes from {there.max().item():.3g} "
                    f"to {there.min().item():.3g}"
                )
        return (there - log_snr.to(there)[:, None]).abs().argmin(1)

    def draw(self, images: str, purpose: str, number: int, count: int) -> Draw:
        """Return images drawn without replacement (over again where there are fewer), and noise for them.

        What is drawn is the same for all variants of a training seed, so differences of them are paired.

        Args:
            images: ``training``, mirrored at random if the training does so, or ``held-out``.
            purpose: what for; together with ``number`` it makes the draw one of its own.
            number: from 0.
            count: how many.
        """
        random = stream(f"probe {purpose}", self.denoiser.seed, number)
        labels = self._images[images].labels
        chosen = np.resize(random.permutation(len(labels)), count)
        noise = random.standard_normal((count, *self.denoiser.image_shape), dtype=np.float32)
        x_0 = self._pixels(images, chosen)
        mirrored = torch.from_numpy(random.random(count) < 0.5).to(x_0.device)
        if self._mirrored and images == "training":
            x_0 = torch.where(mirrored.view(-1, 1, 1, 1), x_0.flip(-1), x_0)
        told = None
        if self.denoiser.classes is not None:
            dropped = random.random(count) < self.denoiser.options["label_dropout"]
            told = torch.from_numpy(np.where(dropped, self.denoiser.classes, labels[chosen])).to(x_0.device)
        return Draw(x_0, torch.from_numpy(noise).to(x_0.device), told)

    def add_noise(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t = a·x_0 + b·ε."""
        return add_noise(x_0, noise, timesteps, self.denoiser.schedule)

    def target(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network is to output, (B, C', H, W)."""
        return self._target.compute_training_target(x_0, noise, timesteps, self.denoiser.schedule)

    @torch.no_grad()
    def x0(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the x_0 that the network's output amounts to, unclipped, (B, C, H, W); no label is told.

        Raises:
            UserError: if the network has never seen an image without its label.
        """
        if self.denoiser.classes is not None and self.denoiser.options["label_dropout"] == 0:
            raise UserError(
                f"{self.denoiser.name} was told every label in training, so it has no estimate without one"
            )
        parts = zip(x_t.split(BATCH), timesteps.split(BATCH), strict=True)
        return torch.cat([self.denoiser.x_0(*part) for part in parts])

    def gradient(self, draw: Draw, timesteps: Tensor) -> Tensor:
        """Return the gradient of the mean loss, as it is trained, by all weights, one vector in fp32.

        Raises:
            UserError: if the loss has a learned weight, which no cell keeps.
        """
        if self.denoiser.variant.get("uncertainty"):
            raise UserError(
                f"the loss of {self.denoiser.name} has a learned weight, which is not kept with the model"
            )
        weights = list(self.denoiser.model.parameters())
        total = torch.zeros(sum(each.numel() for each in weights), device=self.a.device)
        told = [] if draw.labels is None else [draw.labels]
        parts = zip(*(each.split(BATCH) for each in (draw.x_0, draw.noise, timesteps, *told)), strict=True)
        for x_0, noise, t, *labels in parts:
            x_t = self.add_noise(x_0, noise, t)
            loss = self._objective(self.denoiser.model(x_t, t, *labels).float(), x_0, noise, x_t, t).sum()
            found = torch.autograd.grad(loss / len(draw.x_0), weights)
            total += torch.cat([each.flatten() for each in found])
        return total

    def _pixels(self, images: str, chosen: np.ndarray | slice = slice(None)) -> Tensor:
        levels = torch.from_numpy(self._images[images].images[chosen]).permute(0, 3, 1, 2).to(self.a.device)
        return levels.float() / 127.5 - 1
