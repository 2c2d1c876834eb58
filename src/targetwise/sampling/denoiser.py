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
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from targetwise.cells import Cell
from targetwise.compute.conditions import conditions
from targetwise.compute.device import autocast, compile_network, kernels, widen_output
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.diffusion.network import build, misfit
from targetwise.diffusion.parameterization import Parameterization, probe_output_channels
from targetwise.diffusion.randomness import sampling_noise, step_noise
from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.trajectory import Point, points, trajectory
from targetwise.errors import UserError, in_one_line
from targetwise.files import remedy
from targetwise.jobs.parts import Parts
from targetwise.progress import Progress
from targetwise.recipe import kinds
from targetwise.recipe.samplings import further_arguments
from targetwise.sampling.guidance import guided, labels_of
from targetwise.training.weights import read_weights

#: Images at a time where no number is given.
BATCH = 500


class Source:
    """Whatever gives an estimate of x_0, and what a draw of samples needs to know of it beside that."""

    #: K of a class-conditional network.
    classes: int | None = None
    name: str
    seed: int
    variant: Mapping[str, Any]
    options: Mapping[str, Any]
    device: torch.device
    image_shape: tuple[int, int, int]

    def x_0(
        self, x_t: Tensor, timesteps: Tensor, labels: Tensor | None = None, *, widen_output: bool = True
    ) -> Tensor:
        """Return the estimate; ``x_t`` (B, C, H, W) fp32, ``timesteps`` and ``labels`` (B,) int64."""
        raise NotImplementedError


class Denoiser(Source):
    """A network with the parameterization that reads x0 from its output."""

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

    def load(self, path: Path, *, ema_length: float | None = None, snapshot: int | None = None) -> None:
        """Load trained weights: those the training ended with, its average of a length, or those of before its end.

        Args:
            path: of ``model.safetensors``.
            ema_length: σ_rel of an average to rebuild.
            snapshot: the step after which weights were kept.

        Raises:
            UserError: if the file is missing, damaged, of another network, or lacks what is asked for.
        """
        try:
            weights = read_weights(path, length=ema_length, snapshot=snapshot)
        except UserError:
            raise
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
        told = []
        if self.classes is not None:
            told = [torch.full_like(timesteps, self.classes) if labels is None else labels]
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
        self.asked, _ = further_arguments(self._source)
        self.given = dict(options.get("parameters", {}))
        if "path" in self.asked:
            path = points(variant["diffusion"], variant["parameters"])
            self.given["path"] = [point for point in path if point.b > 0]
        if "steps" in self.asked:
            self.given["steps"] = options["steps"]
        self.points = trajectory(variant["diffusion"], variant["parameters"], options)
        first = self.points[0]
        #: The spread of the pure noise that the way begins with: 1 on a path that preserves variance, as in diffusers
        #: (b itself would be less by what is left of the image), and b on any other.
        self.spread = 1.0 if math.isclose(first.a**2 + first.b**2, 1) else first.b

    def step(self, x_t: Tensor, *arguments: Any, **asked: Any) -> Tensor:
        """Return x at the next point; whatever the file raises is said in one line."""
        try:
            return cast(Tensor, self._source["step"](x_t, *arguments, **self.given, **asked))
        except torch.OutOfMemoryError:  # there is a remedy for it
            raise
        except Exception as error:
            raise UserError(f"{self.file}: step fails: {in_one_line(error)}") from error


@torch.inference_mode()
def denoise(
    denoiser: Source,
    noise: Tensor,
    sampler: Sampler,
    labels: Tensor | None = None,
    *,
    draw: int = 0,
    first: int = 0,
) -> Tensor:
    """Run a sampler from ``noise`` (B, C, H, W) of variance 1 to images of nominal range [-1, 1], of given labels.

    Its ``step(x_t, x_0, now, then, memory)`` receives the estimate of x_0, clipped if the options say so, and what it
    asks for by name: ``denoise``, to estimate at another point as well; ``noise``, that of this step for the samples
    ``first`` … ``first + B − 1`` of a draw; ``path``, its points of which b > 0; ``steps``, their number.
    """
    options, memory = sampler.options, dict[str, Any]()

    def estimate(x: Tensor, point: Point) -> tuple[Tensor, Tensor]:
        """Return x_t and x_0 as a step receives them."""
        if point.t < 0:
            raise ValueError("where there is no noise, the network cannot be asked")
        timesteps = torch.full((len(x),), point.t, dtype=torch.int64, device=x.device)
        answer = partial(denoiser.x_0, x, timesteps, widen_output=options["widen_output"])
        x_0 = answer() if labels is None else guided(answer, labels, point, options)
        if options["clip"]:
            clipped = x_0.clamp(-1, 1)
            if not options["clipped_epsilon"]:
                # The noise is that of the estimate before it was clipped: x_t of the clipped one with the same ε.
                x = x - point.a * x_0 + point.a * clipped
            x_0 = clipped
        return x, x_0

    x = noise if sampler.spread == 1 else sampler.spread * noise
    for number, (now, then) in enumerate(pairwise(sampler.points)):
        asked: dict[str, Any] = {"denoise": estimate} if "denoise" in sampler.asked else {}
        if "noise" in sampler.asked:
            key = options["seed"], denoiser.seed, draw, number
            fresh = torch.from_numpy(step_noise(*key, first, len(x), tuple(noise.shape[1:])))
            asked["noise"] = fresh.pin_memory().to(x.device, non_blocking=True) if x.device.type == "cuda" else fresh
        x = sampler.step(*estimate(x, now), now, then, memory, **asked)
        if x.shape != noise.shape:
            raise UserError(
                f"{sampler.file}: step returned shape {tuple(x.shape)} for images of shape {tuple(noise.shape)}"
            )
    return x


def evaluations(variant: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Return how often a sampler asks the network about each image, by counting on the way of one pixel."""
    sampler, asked = Sampler(variant, options), []

    def x_0(x_t: Tensor, timesteps: Tensor, **_: Any) -> Tensor:
        asked.append(timesteps)
        return torch.zeros_like(x_t)

    denoise(cast(Source, SimpleNamespace(x_0=x_0, seed=0)), torch.zeros(1, 1, 1, 1), sampler)
    return len(asked)


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
    denoiser: Source,
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
                start = torch.from_numpy(noise).to(denoiser.device)
                images = denoise(denoiser, start, sampler, labels, draw=draw, first=first)
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


def _height_width_channels(denoiser: Source) -> tuple[int, int, int]:
    channels, height, width = denoiser.image_shape
    return height, width, channels
