"""The two ends of the scale: held-out real images (floor) and the samples of an untrained network (ceiling)."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from targetwise.compute.device import choose
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import UserError
from targetwise.jobs.parts import Parts
from targetwise.metric.fid import measure
from targetwise.metric.reference import Reference
from targetwise.sampling.denoiser import Denoiser, draw_images
from targetwise.sampling.stage import NOT_FINITE
from targetwise.training.formats import settled


def floor(
    held_out: Images, count: int, reference: Reference, names: Sequence[str], finished: Parts | None = None
) -> dict[str, Any]:
    """Measure as many held-out real images as a cell has samples; the other arguments as for :func:`ceiling`.

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


def ceiling(
    specification: Mapping[str, Any],
    options: Mapping[str, Any],
    training_images: Images,
    reference: Reference,
    names: Sequence[str],
    finished: Parts | None = None,
    *,
    sampler: str,
) -> dict[str, Any]:
    """Measure the samples of a cell's network with its initial weights.

    Args:
        specification: the content of ``cell.json``.
        options: the content of ``sampling-<sampler>.json``.
        training_images: for their shape, and for what a CPU has trained other cells with.
        reference: to compare with.
        names: of the metrics.
        finished: images and features that an earlier run has made, and that this one adds to.
        sampler: the name of these options, e.g. ``ddim-50``.
    """
    began = time.monotonic()
    device = choose(specification["training"]["threads"])
    extractor = reference.extractor(device)
    target = parameterization.load(specification["variant"]["target"])
    denoiser = Denoiser(settled(specification, training_images, device), training_images, target, device)
    images = draw_images(denoiser, options, 0, "sample untrained", finished=finished)
    finite = len(images) > 0
    return measure(
        images,
        extractor,
        reference,
        extractor.features(images, device, "features", finished) if finite else None,
        names,
        what="ceiling",
        cell=specification["cell"],
        draw=0,
        sampler=sampler,
        reason=None if finite else NOT_FINITE,
        began=began,
    )
