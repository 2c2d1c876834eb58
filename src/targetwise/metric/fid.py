"""The metric: measure a set of images against a reference, and the row that records it.

With Inception features the number is the FID (Heusel et al. 2017, arXiv:1706.08500), as fixed by clean-fid.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.cells import draw_key
from targetwise.cells.rows import read_row, write_row
from targetwise.compute.device import choose
from targetwise.data import image_files
from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_array
from targetwise.jobs.kept import Kept
from targetwise.jobs.once import once
from targetwise.jobs.parts import Parts
from targetwise.metric import measures
from targetwise.metric.extractors import Extractor
from targetwise.metric.reference import Reference, Selection, describe, load_reference
from targetwise.provenance import environment
from targetwise.text import counted


def measure(
    images: np.ndarray,
    extractor: Extractor,
    reference: Reference,
    features: np.ndarray | None,
    names: Sequence[str],
    *,
    what: str,
    cell: Mapping[str, Any] | None = None,
    draw: int | None = None,
    sampler: str | None = None,
    model_sha256: str | None = None,
    file: str | None = None,
    reason: str | None = None,
    began: float | None = None,
) -> dict[str, Any]:
    """Return the row of one set of images.

    Args:
        images: (n, H, W, C) uint8; they give n and the digest.
        extractor: that made the features.
        reference: to compare with; it must be of the same extractor and of images of the same shape.
        features: of the images, (n, D), or None for a diverged cell.
        names: of the metrics; the first one's number is the row's value.
        what: ``cell``, ``floor``, ``ceiling``, ``exact`` or ``file``.
        cell: study, parameterization, scale and seed.
        draw: of the sample set.
        sampler: that made it, e.g. ``ddim-50``.
        model_sha256: of the weights that made it.
        file: that the images were read from, if they are a user's.
        reason: why there is no value.
        began: ``time.monotonic()`` when the work began.

    Raises:
        UserError: if extractor, reference and images do not belong together, or there are fewer than two images.
    """
    facts = reference.facts
    if (facts["extractor_sha256"], facts["implementation"]) != (extractor.digest, extractor.implementation):
        raise UserError(
            f"the reference was made with {facts['extractor']} {facts['extractor_sha256'][:12]} by "
            f"{facts['implementation']}, the samples' features with {extractor.name} {extractor.digest[:12]} by "
            f"{extractor.implementation}; delete the reference and run again"
        )
    _require_shape(images, facts)
    samples = measures.Samples(features, images, reference) if features is not None else None
    values = measures.values(samples, names) if samples else {}
    sureness = measures.errors(samples, names) if samples else {}
    return {
        "key": None,  # write_row_once knows it
        "what": what,
        "cell": dict(cell) if cell else None,
        "draw": draw,
        "file": file,
        "status": "finished" if features is not None else "diverged",
        "reason": reason,
        "metric": measures.title(names[0], extractor.name),
        "name": names[0],
        "value": values.get(names[0]),
        "values": values,
        **sureness,
        "n": len(images),
        "mode": extractor.mode(images.shape[1:]),
        "implementation": extractor.implementation,
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "reference": describe(facts),
        "reference_sha256": facts["images_sha256"],
        "reference_n": facts["n"],
        "samples_sha256": sha256_of_array(images),
        "model_sha256": model_sha256,
        "sampler": sampler,
        "marks": marks(images, reference) if features is not None else [],
        "seconds": time.monotonic() - began if began is not None else 0.0,
        "environment": environment(),
    }


def marks(images: np.ndarray, reference: Reference) -> list[str]:
    """Return what a reader must know before comparing the number, a phrase each.

    Args:
        images: (n, H, W, C) uint8.
        reference: they were compared with.
    """
    found = []
    dimensions = reference.features.shape[1]
    if len(images) < dimensions:
        found.append(f"fewer than {dimensions:,} samples: {len(images):,}")
    if reference.facts["n"] < dimensions:
        found.append(f"reference of fewer than {dimensions:,} images: {reference.facts['n']:,}")
    copies = len(images) - len({image.tobytes() for image in images})
    if copies:
        found.append(f"{copies:,} of {len(images):,} images are copies of others")
    if sha256_of_array(images) == reference.facts["images_sha256"]:
        found.append("the images are the reference itself")
    return found


def write_draw(
    specification: Mapping[str, Any], options: Mapping[str, Any], samples: Path, reference_path: Path, output: Path
) -> dict[str, Any]:
    """Measure one draw of a cell once, write its row to ``output``, and return it.

    Args:
        specification: the content of ``cell.json``.
        options: the content of ``metric.json``.
        samples: ``samples/<sampler>/draw<d>.npz``, with its facts beside it.
        reference_path: the reference statistics' ``.npz``.
        output: the row's path.

    Raises:
        UserError: if the reference is not the one that the options ask for, or of another data set than the cell was
            trained on.
    """
    reference = load_reference(reference_path, Selection.asked(options))
    facts, sampler = read_json(samples.with_suffix(".json")), samples.parent.name
    key = draw_key(specification, facts, sampler, options, reference.facts)

    def row(parts: Parts) -> dict[str, Any]:
        return measure_draw(specification, samples, reference, options["names"], parts)

    write_row_once(samples.parents[2], f"fid-{sampler}-{samples.stem}", key, output, row)
    return read_row(output)


def write_row_once(folder: Path, job: str, key: str, output: Path, row: Callable[[Parts], Mapping[str, Any]]) -> None:
    """Write the row that ``row`` returns, or the one that an earlier run has finished; see :func:`once`.

    Args:
        folder: of the cell, or whatever else the row is of.
        job: e.g. ``fid-ddim-50-draw0``.
        key: of the row, which records it; see :func:`targetwise.cells.row_key`.
        output: the row's path.
        row: measures; the parts are those that an earlier run has left.
    """

    def make(kept: Kept, parts: Parts) -> None:
        write_row(kept.path(output), {**row(parts), "key": key})

    once(folder, job, key, [output], make)


def measure_draw(
    specification: Mapping[str, Any],
    samples: Path,
    reference: Reference,
    names: Sequence[str],
    finished: Parts | None = None,
) -> dict[str, Any]:
    """Return the row of one draw of a cell.

    Args:
        specification: the content of ``cell.json``.
        samples: ``samples/<sampler>/draw<d>.npz``, with its facts beside it.
        reference: to compare with.
        names: of the metrics; the first one's number is the row's value.
        finished: features that an earlier run has extracted, and that this one adds to.

    Raises:
        UserError: if the reference is of another data set than the cell was trained on.
    """
    began = time.monotonic()
    trained_on = specification["data"]["dataset"]
    if reference.facts["dataset"] != trained_on:
        raise UserError(f"the reference is {describe(reference.facts)}, but the cell was trained on {trained_on}")
    device = choose(specification["training"]["threads"])
    extractor = reference.extractor(device)
    images = load_samples(samples)
    facts = read_json(samples.with_suffix(".json"))
    is_finished = facts["status"] == "finished"
    return measure(
        images,
        extractor,
        reference,
        extractor.features(images, device, "features", finished) if is_finished else None,
        names,
        what="cell",
        cell=specification["cell"],
        draw=facts["draw"],
        sampler=samples.parent.name,
        model_sha256=facts["model_sha256"],
        reason=facts["reason"],
        began=began,
    )


def measure_file(file: Path, reference_path: Path, names: Sequence[str], *, threads: int = 1) -> dict[str, Any]:
    """Return the row of a user's images.

    Args:
        file: an .npz with ``arr_0`` (N, H, W, C) uint8, or a folder or .zip of PNG files.
        reference_path: the reference statistics' ``.npz``.
        names: of the metrics; the first one's number is the row's value.
        threads: of the CPU.

    Raises:
        UserError: if the images cannot be read, are not of the reference's shape, or are fewer than two.
    """
    began = time.monotonic()
    reference = load_reference(reference_path)
    images = image_files.read_set(file, tuple(reference.facts["image_shape"]))
    if len(images) < 2:
        raise UserError(f"{file} holds {counted(len(images), 'image')}; a distance needs at least two")
    device = choose(threads)
    extractor = reference.extractor(device)
    features = extractor.features(images, device, f"features of {file.name}")
    return measure(images, extractor, reference, features, names, what="file", file=str(file), began=began)


def _require_shape(images: np.ndarray, facts: Mapping[str, Any]) -> None:
    if list(images.shape[1:]) != facts["image_shape"]:
        found, wanted = ("×".join(map(str, shape)) for shape in (images.shape[1:], facts["image_shape"]))
        raise UserError(f"the images are {found}, but those of the reference ({describe(facts)}) are {wanted}")
