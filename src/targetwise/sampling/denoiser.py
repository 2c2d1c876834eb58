"""x0 from a network and its parameterization, the step from a file of ``workflow/samplers/``, images from both.

Sample i of a draw starts from the noise of (sampling seed, training seed, draw, i), the same for all cells of one
training seed, so image i of two parameterizations can be compared side by side.
"""

import math
import sys
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from targetwise.cells import Cell
from targetwise.compute.conditions import conditions
from targetwise.compute.device import autocast, compile_network, kernels, widen_output
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.diffusion.network import build, misfit
from targetwise.diffusion.parameterization import Parameterization, probe_output_channels
from targetwise.diffusion.randomness import sampling_noise
from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.trajectory import trajectory
from targetwise.errors import UserError, in_one_line
from targetwise.files import remedy
from targetwise.jobs.parts import Parts
from targetwise.progress import Progress
from targetwise.recipe import kinds
from targetwise.sampling.guidance import guided, labels_of

#: Images at a time where no number is given.
BATCH = 500


class Denoiser:
    """A network with the parameterization that reads x0 from its output."""

    #: K of a class-conditional network.
    classes: int | None = None

    def __init__(
        self, specification: Mapping[str, Any], images: Images, target: Parameterization, device: torch.device
    ) -> None:
        """Build the untrained network of a cell; ``images`` gives its shape."""
        self.name = Cell(**specification["cell"]).name
        self.seed = specification["cell"]["seed"]
        self.variant = specification["variant"]
        self.options = specification["training"]
        self.target = target
        self.device = device
        self.image_shape = (images.channels, images.size, images.size)
        self.classes = specification["data"].get("classes")
        schedule = make_schedule(self.variant["diffusion"], self.variant["parameters"])
        self.schedule = {name: value.to(device) for name, value in schedule.items()}
        self.model = build(
            specification["network"],
            in_channels=images.channels,
            out_channels=probe_output_channels(target, images.channels, images.size, schedule),
            image_size=images.size,
            seed=self.seed,
            classes=self.classes,
        ).to(device)
        if self.options["channels_last"]:
            self.model = self.model.to(memory_format=torch.channels_last)
        widen_output(self.model, device, self.options)
        self.model.eval()
        compile_network(self.model, device, self.options, graphs=True)

    def load(self, path: Path) -> None:
        """Load trained weights.

        Raises:
            UserError: if the file is missing, damaged or of another network.
        """
        try:
            with safe_open(path, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            summary = str(error).splitlines()[0]
            raise UserError(f"{path} cannot be loaded ({summary}); {remedy(path)}") from error
        found = misfit(weights, self.model)
        if found:
            raise UserError(f"{path} does not fit the network of {self.name}: {found}")
        self.model.load_state_dict(weights)

    def x_0(
        self, x_t: Tensor, timesteps: Tensor, labels: Tensor | None = None, *, widen_output: bool = True
    ) -> Tensor:
        """Return the estimate of x_0; ``x_t`` (B, C, H, W) fp32, ``timesteps`` and ``labels`` (B,) int64.

        Without labels, a class-conditional network is told that there is none.

        It is of fp32, unless ``widen_output`` is false: then of the type that autocast gave the network's output, or
        of fp32, as the parameterization's arithmetic with the fp32 ``x_t`` and schedule decides.
        """
        told = (
            [] if self.classes is None else [torch.full_like(timesteps, self.classes) if labels is None else labels]
        )
        with kernels(self.options), autocast(self.device, self.options["precision"]):
            output = self.model(x_t, timesteps, *told)
        # A copy in any case: the next call may write where this one did, and a sampler may remember this estimate.
        output = output.to(torch.float32 if widen_output else output.dtype, copy=True)
        return self.target.predict_x0(output, x_t, timesteps, self.schedule)


class Sampler:
    """A file of ``workflow/samplers/`` and its way along a variant's path, read once for all batches of a draw."""

    def __init__(self, variant: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Prepare to sample a variant with the options of ``sampling-<sampler>.json``."""
        self.options = options
        self.file = kinds.file_of("samplers", options["sampler"])
        self._source = kinds.load("samplers", options["sampler"])
        self.points = trajectory(variant["diffusion"], variant["parameters"], options)
        first = self.points[0]
        #: The spread of the pure noise that the way begins with: 1 on a path that preserves variance, as in diffusers
        #: (b itself would be less by what is left of the image), and b on any other.
        self.spread = 1.0 if math.isclose(first.a**2 + first.b**2, 1) else first.b

    def step(self, x_t: Tensor, *arguments: Any) -> Tensor:
        """Return x at the next point; whatever the file raises is said in one line."""
        try:
            return cast(Tensor, self._source["step"](x_t, *arguments))
        except torch.OutOfMemoryError:  # there is a remedy for it
            raise
        except Exception as error:
            raise UserError(f"{self.file}: step fails: {in_one_line(error)}") from error


@torch.inference_mode()
def denoise(denoiser: Denoiser, noise: Tensor, sampler: Sampler, labels: Tensor | None = None) -> Tensor:
    """Run a sampler from ``noise`` (B, C, H, W) of variance 1 to images of nominal range [-1, 1], of given labels.

    Its ``step(x_t, x_0, now, then, memory)`` receives the estimate of x_0, clipped if the options say so.
    """
    options, memory = sampler.options, dict[str, Any]()
    x = noise if sampler.spread == 1 else sampler.spread * noise
    for now, then in pairwise(sampler.points):
        timesteps = torch.full((len(x),), now.t, dtype=torch.int64, device=x.device)
        estimate = partial(denoiser.x_0, x, timesteps, widen_output=options["widen_output"])
        x_0 = estimate() if labels is None else guided(estimate, labels, now, options)
        if options["clip"]:
            clipped = x_0.clamp(-1, 1)
            if not options["clipped_epsilon"]:
                # The noise is that of the estimate before it was clipped: x_t of the clipped one with the same ε.
                x = x - now.a * x_0 + now.a * clipped
            x_0 = clipped
        x = sampler.step(x, x_0, now, then, memory)
        if x.shape != noise.shape:
            raise UserError(
                f"{sampler.file}: step returned shape {tuple(x.shape)} for images of shape {tuple(noise.shape)}"
            )
    return x


def to_uint8(images: Tensor, quantization: str) -> np.ndarray:
    """Turn images (B, C, H, W) of nominal range [-1, 1] into (B, H, W, C) uint8.

    Args:
        images: clipped to [-1, 1] first.
        quantization: ``round`` to the nearest level, or ``truncate`` as the reference task does, which darkens by
            half a level.
    """
    levels = (images.clamp(-1, 1) + 1) * 127.5
    levels = levels.round() if quantization == "round" else levels.floor()
    array: np.ndarray = levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array


def draw_images(
    denoiser: Denoiser,
    options: Mapping[str, Any],
    draw: int,
    what: str,
    world: World = ALONE,
    finished: Parts | None = None,
) -> np.ndarray:
    """Return one draw of ``options["images"]`` samples, (N, H, W, C) uint8, in the order of their indices.

    Several processes sample a part each; only the main one gets all of them, the others what they sampled. If values
    are not finite, it gets none. Batches that are among the ``finished`` parts are not sampled again.
    """
    part, batch = world.part(options["images"]), options.get("batch", BATCH)
    sampler = Sampler(denoiser.variant, options)
    if finished:
        now = conditions(denoiser.device, denoiser.options, world)
        if world.is_main:
            finished.keep_only("images", now)
        world.barrier()
    parts = []
    with Progress(what, len(part), "image", silent=not world.is_main) as progress:
        first = part.start
        while first < part.stop:
            count = min(batch, part.stop - first)
            name = f"images-{first}-{count}"
            levels = finished.read(name) if finished else None
            if levels is not None:
                first += count
                parts.append(levels)
                progress.skip(count)
                continue
            labels = labels_of(denoiser.classes, first, count, denoiser.device)
            noise = sampling_noise(options["seed"], denoiser.seed, draw, first, count, denoiser.image_shape)
            try:
                images = denoise(denoiser, torch.from_numpy(noise).to(denoiser.device), sampler, labels)
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                batch = max(1, batch // 2)
                print(f"{what}: out of memory; going on with {batch} images at a time", file=sys.stderr, flush=True)
                continue
            first += count
            if not images.isfinite().all():  # as uint8 it would look like an image
                break
            parts.append(to_uint8(images, options["quantization"]))
            if finished:
                finished.write(name, parts[-1])
            progress.advance(count)
    mine = np.concatenate(parts) if parts else np.zeros((0, *_height_width_channels(denoiser)), dtype=np.uint8)
    whole = np.concatenate(world.gather(mine) or [mine])
    return whole if not world.is_main or len(whole) == options["images"] else whole[:0]


def _height_width_channels(denoiser: Denoiser) -> tuple[int, int, int]:
    channels, height, width = denoiser.image_shape
    return height, width, channels
