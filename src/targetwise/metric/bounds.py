"""The scale: held-out real images (floor), an untrained network's samples (ceiling), the exact denoiser's (exact)."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from targetwise.compute.device import choose
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import UserError
from targetwise.jobs.parts import Parts
from targetwise.metric.fid import measure
from targetwise.metric.reference import Reference
from targetwise.sampling.denoiser import Denoiser, Source, draw_images
from targetwise.sampling.exact import Exact
from targetwise.sampling.stage import NOT_FINITE
from targetwise.training.formats import settled


def floor(
    held_out: Images, count: int, reference: Reference, names: Sequence[str], finished: Parts | None = None
) -> dict[str, Any]:
    """Measure as many held-out real images as a cell has samples; the other arguments as for :func:`sampled`.

    Raises:
        UserError: if the held-out split has fewer.
    """
    began = time.monotonic()
    if len(held_out.images) < count:
        raise UserError(
            f"bounds: the test split has {len(held_out.images)} images, fewer than sampling.images, {count}; "
            "set bounds: false or sample fewer"
        )
    device = choose(threads=1)
    extractor = reference.extractor(device)
    images = held_out.images[:count]
    features = extractor.features(images, device, "features", finished)
    return measure(images, extractor, reference, features, names, what="floor", began=began)


def sampled(
    what: str,
    specification: Mapping[str, Any],
    options: Mapping[str, Any],
    training_images: Images,
    reference: Reference,
    names: Sequence[str],
    finished: Parts | None = None,
    *,
    sampler: str,
) -> dict[str, Any]:
    """Measure what a cell's sampler makes of something else than its trained network.

    ``ceiling`` is its network with the initial weights. ``exact`` is the exact denoiser, from the cell's noise along
    its path: how good this sampler could be with a network that has learned all there is, so that a network's number
    above it is the network's. On finitely many images it is not what one would wish for, because it reproduces
    training images: its samples are copies, and lack nothing but novelty.

    Args:
        what: ``ceiling`` or ``exact``.
        specification: the content of ``cell.json``.
        options: the content of ``sampling-<sampler>.json``.
        training_images: of the exact denoiser; else for their shape, and what a CPU has trained other cells with.
        reference: to compare with.
        names: of the metrics.
        finished: images and features that an earlier run has made, and that this one adds to.
        sampler: the name of these options, e.g. ``ddim-50``.
    """
    began = time.monotonic()
    device = choose(specification["training"]["threads"])
    make, progress = SAMPLED[what]
    images = draw_images(make(specification, training_images, device), options, 0, progress, finished=finished)
    extractor, finite = reference.extractor(device), len(images) > 0
    return measure(
        images,
        extractor,
        reference,
        extractor.features(images, device, "features", finished) if finite else None,
        names,
        what=what,
        cell=specification["cell"],
        draw=0,
        sampler=sampler,
        reason=None if finite else NOT_FINITE,
        began=began,
    )


def _untrained(specification: Mapping[str, Any], training_images: Images, device: torch.device) -> Denoiser:
    target = parameterization.load(specification["variant"]["target"])
    return Denoiser(settled(specification, training_images, device), training_images, target, device)


#: What is sampled for each bound, and what the progress is called.
SAMPLED: dict[str, tuple[Callable[[Mapping[str, Any], Images, torch.device], Source], str]] = {
    "ceiling": (_untrained, "sample untrained"),
    "exact": (Exact, "sample exactly"),
}
