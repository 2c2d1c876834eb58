"""Feature extractors: from images to the vectors whose distribution the metric compares.

An extractor is part of the metric. Distances in the features of two extractors are different scales and are never
put in one table.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from targetwise.compute.ahead import ahead
from targetwise.compute.conditions import conditions
from targetwise.data.datasets import DIGITS_SIZE
from targetwise.errors import UserError
from targetwise.files import sha256_of_file
from targetwise.jobs.parts import Parts
from targetwise.metric import clean_fid, distance, inception
from targetwise.progress import Progress

#: Made by workflow/resources/make_digits_features.py; distances are comparable only with these very weights.
DIGITS_WEIGHTS = Path("workflow/resources/digits_features.safetensors")
DIGITS_WEIGHTS_SHA256 = "4257ef9f6657722c2282828b2afa5a7fdbe1d8e711f4d468e1ae6bbba73798c7"

#: SHA-256 of each extractor's weights, by its name; that of pixels is of no bytes.
DIGESTS = {
    "digits": DIGITS_WEIGHTS_SHA256,
    "inception": inception.LAYERS_SHA256,
    "pixels": hashlib.sha256(b"").hexdigest(),
}

#: Images at a time: what a core's cache and a card's memory like. Changes speed only.
INCEPTION_BATCH = {"cpu": 16, "cuda": 256}


#: How features are computed on any device, in the terms of the ``training`` section.
FP32 = {"precision": {"cpu": "fp32", "cuda": "fp32"}, "compile": {"cpu": False, "cuda": False}, "tf32": False}

#: Images of which the features are saved together, about, while a metric is computed: half a minute of one CPU core.
PART = 256

#: Whose code computes the metric: clean-fid's own, or ours, which is faster and agrees with it.
IMPLEMENTATIONS = tuple(distance.FRECHET)


@dataclass(frozen=True)
class Extractor:
    """A fixed function from images to features.

    Attributes:
        name: as the configuration calls it.
        mode: says of a shape (H, W, C) how images of it are brought to the network's input size.
        implementation: whose code computes it, one of :data:`IMPLEMENTATIONS`.
        digest: SHA-256 of the weights.
        batch: images at a time.
        prepare: on the host, (B, H, W, C) uint8 to what ``function`` takes.
        function: what ``prepare`` returned, on the extractor's device, to (B, D) fp32.
    """

    name: str
    mode: Callable[[Sequence[int]], str]
    implementation: str
    digest: str
    batch: int
    prepare: Callable[[np.ndarray], Tensor]
    function: Callable[[Tensor], Tensor]

    def features(
        self, images: np.ndarray, device: torch.device, what: str = "", finished: Parts | None = None
    ) -> np.ndarray:
        """Return the features of ``images`` (N, H, W, C) uint8, (N, D) fp32.

        Args:
            images: of the size that the extractor takes.
            device: its own.
            what: shown with the progress; without it, none is shown.
            finished: features that an earlier run has extracted, and that this one adds to.
        """
        chunk = self.batch * max(1, PART // self.batch)
        if finished:
            finished.keep_only("features", conditions(device, FP32))
        parts = [images[first : first + chunk] for first in range(0, len(images), chunk)]
        chunks = {f"features-{index * chunk}-{len(some)}": some for index, some in enumerate(parts)}
        found = {name: finished.read(name) if finished else None for name in chunks}
        missing = [name for name in chunks if found[name] is None]
        batches = [
            chunks[name][first : first + self.batch]
            for name in missing
            for first in range(0, len(chunks[name]), self.batch)
        ]
        with Progress(what, len(images), "image", silent=not what) as progress:
            progress.skip(len(images) - sum(map(len, batches)))
            features = self._features(batches, device, progress)
            for name in missing:
                found[name] = part = np.concatenate(
                    list(itertools.islice(features, -(-len(chunks[name]) // self.batch)))
                )
                if finished and len(chunks) > 1:
                    finished.write(name, part)
        return np.concatenate(list(found.values()))

    @torch.inference_mode()
    def _features(
        self, batches: Sequence[np.ndarray], device: torch.device, progress: Progress
    ) -> Iterator[np.ndarray]:
        """Yield each batch's features; a GPU computes one while the host prepares the next."""
        prepared = (
            ahead(self.prepare, batches, 1) if device.type == "cuda" else nullcontext(map(self.prepare, batches))
        )
        with prepared as coming:
            for batch in coming:
                yield self.function(batch.to(device, non_blocking=True)).cpu().numpy()
                progress.advance(len(batch))


class DigitsFeatures(nn.Sequential):
    """The body of a small classifier of 8×8 digits: (B, 8, 8, 1) uint8 to 32 features of variance 1."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 32),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 32) features."""
        features: Tensor = super().forward(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return features


def _digits(device: torch.device, implementation: str) -> Extractor:
    if not DIGITS_WEIGHTS.exists():
        raise UserError(f"{DIGITS_WEIGHTS} is missing; `git checkout {DIGITS_WEIGHTS}` brings it back")
    digest = sha256_of_file(DIGITS_WEIGHTS)
    if digest != DIGITS_WEIGHTS_SHA256:
        raise UserError(
            f"{DIGITS_WEIGHTS} has SHA-256 {digest}, but {DIGITS_WEIGHTS_SHA256} is declared; "
            f"`git checkout {DIGITS_WEIGHTS}` brings it back"
        )
    network = DigitsFeatures()
    network.load_state_dict(load_file(DIGITS_WEIGHTS))
    network.eval().to(device)

    return Extractor(
        "digits",
        _digits_mode,
        implementation,
        digest,
        512,
        torch.from_numpy,
        lambda images: network(_as_digits(images)),
    )


def _digits_mode(shape: Sequence[int]) -> str:
    """Return how images (H, W, C) become digits; what datasets.digits has enlarged comes back as it was."""
    height, width, channels = shape
    if height != width or height % DIGITS_SIZE:
        raise UserError(
            f"the digits extractor takes images of 8×8×1, or of a multiple of that size, not "
            f"{'×'.join(map(str, shape))}"
        )
    steps = [f"mean of {height // DIGITS_SIZE}×{height // DIGITS_SIZE} pixels"] * (height > DIGITS_SIZE)
    return " and ".join([*steps, *["mean of channels"] * (channels > 1)]) or "native"


def _as_digits(images: Tensor) -> Tensor:
    """Return images (B, H, W, C) uint8 as (B, 8, 8, 1), brought there as :func:`_digits_mode` says."""
    if _digits_mode(images.shape[1:]) == "native":
        return images
    count, size, _, channels = images.shape
    blocks = images.reshape(count, DIGITS_SIZE, size // DIGITS_SIZE, DIGITS_SIZE, size // DIGITS_SIZE, channels)
    return blocks.float().mean(dim=(2, 4, 5))[..., None]


def _inception(device: torch.device, implementation: str) -> Extractor:
    layers = inception.load(device)
    by_pillow = implementation == "clean-fid"

    def prepare(images: np.ndarray) -> Tensor:
        inception.require_colours(images)
        return inception.resized_by_pillow(images, device) if by_pillow else torch.from_numpy(images)

    def features(images: Tensor) -> Tensor:
        return inception.features(layers, images if by_pillow else inception.resize_on_device(images))

    return Extractor(
        "inception",
        lambda shape: clean_fid.MODE,
        implementation,
        inception.LAYERS_SHA256,
        INCEPTION_BATCH[device.type],
        prepare,
        features,
    )


def _pixels(device: torch.device, implementation: str) -> Extractor:
    """Return the pixels themselves, in [-1, 1], as features."""
    return Extractor(
        "pixels",
        lambda shape: "native",
        implementation,
        DIGESTS["pixels"],
        512,
        torch.from_numpy,
        lambda images: images.flatten(1) / 127.5 - 1,
    )


_LOADERS: dict[str, Callable[[torch.device, str], Extractor]] = {
    "digits": _digits,
    "inception": _inception,
    "pixels": _pixels,
}


def load(name: str, device: torch.device, implementation: str) -> Extractor:
    """Return the extractor called ``name``, its weights checked by digest.

    Args:
        name: ``digits``, ``inception`` or ``pixels``.
        device: for its weights.
        implementation: one of :data:`IMPLEMENTATIONS`.

    Raises:
        UserError: if the weights are missing or not the declared ones.
    """
    return _LOADERS[name](device, implementation)
