"""The metric: the Fréchet distance between the features of samples and of a reference, and the row that records it.

Distance and kernel code are clean-fid's; with Inception features the number is the FID (Heusel et al. 2017,
arXiv:1706.08500, as fixed by Parmar et al. 2022, arXiv:2104.11222).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from targetwise import extractors
from targetwise.data import Images
from targetwise.device import choose
from targetwise.errors import UserError
from targetwise.extractors import Extractor
from targetwise.files import atomic, read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.provenance import environment
from targetwise.sampling import load_samples

ROW_SCHEMA = Path("workflow/schemas/row.schema.yaml")

#: Seed of the subsets of the kernel distance, so that a KID can be had again.
KID_SEED = 0


@dataclass(frozen=True)
class Reference:
    """The features a study's samples are compared with: (n, D), their mean (D,) and covariance (D, D)."""

    facts: dict[str, Any]
    features: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


def write_reference(
    images: Images, split: str, dataset: str, extractor: Extractor, features: np.ndarray, output: Path
) -> None:
    """Write reference statistics to ``output`` (.npz) and the facts about them beside it (.json)."""
    mean, covariance = moments(features)
    with atomic(output) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, mean=mean, covariance=covariance)
    write_json(
        output.with_suffix(".json"),
        {
            "dataset": dataset,
            "split": split,
            "n": len(features),
            "images_sha256": images.digest,
            "metric": extractor.metric,
            "mode": extractor.mode,
            "extractor": extractor.name,
            "extractor_sha256": extractor.digest,
            "file_sha256": sha256_of_file(output),
        },
    )


def load_reference(path: Path) -> Reference:
    """Load reference statistics.

    Raises:
        UserError: if they are missing, damaged, or not the ones the facts beside them tell of.
    """
    facts = read_json(path.with_suffix(".json"))
    if not path.exists() or sha256_of_file(path) != facts["file_sha256"]:
        raise UserError(f"{path} is missing or damaged; delete it and run again, it is made anew")
    with np.load(path, allow_pickle=False) as arrays:
        return Reference(facts, arrays["features"], arrays["mean"], arrays["covariance"])


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (D,) and unbiased covariance (D, D) of features (n, D).

    Raises:
        UserError: for fewer than two rows, or values that are not finite.
    """
    if len(features) < 2:
        raise UserError(f"a covariance needs at least two images, not {len(features)}")
    if not np.isfinite(features).all():
        raise UserError("the features hold values that are not finite")
    return features.mean(axis=0), np.cov(features, rowvar=False)


def frechet_distance(features: np.ndarray, reference: Reference) -> float:
    """Return the squared Fréchet distance between features (n, D) and a reference."""
    from cleanfid.fid import frechet_distance as distance

    mean, covariance = moments(features)
    return float(distance(mean, covariance, reference.mean, reference.covariance))


def kernel_distance(features: np.ndarray, reference: Reference) -> float:
    """Return the unbiased kernel distance (KID, Bińkowski et al. 2018, arXiv:1801.01401) to a reference."""
    from cleanfid.fid import kernel_distance as distance

    state = np.random.get_state()  # noqa: NPY002 (clean-fid draws its subsets from numpy's global stream)
    try:
        np.random.seed(KID_SEED)  # noqa: NPY002
        return float(distance(reference.features, features))
    finally:
        np.random.set_state(state)  # noqa: NPY002


def measure(
    images: np.ndarray,
    extractor: Extractor,
    reference: Reference,
    features: np.ndarray | None,
    *,
    what: str,
    cell: Mapping[str, Any] | None = None,
    draw: int | None = None,
    sampler: str | None = None,
    model_sha256: str | None = None,
    reason: str | None = None,
    began: float | None = None,
) -> dict[str, Any]:
    """Return the row of one set of images.

    Args:
        images: (n, H, W, C) uint8; they give n and the digest.
        extractor: that made the features.
        reference: to compare with; it must be of the same extractor.
        features: of the images, (n, D), or None for a diverged cell.
        what: ``cell``, ``floor`` or ``ceiling``.
        cell: study, parameterization, scale and seed.
        draw: of the sample set.
        sampler: that made it, e.g. ``ddim-50``.
        model_sha256: of the weights that made it.
        reason: why there is no value.
        began: ``time.monotonic()`` when the work began.

    Raises:
        UserError: if extractor and reference do not belong together.
    """
    facts = reference.facts
    if facts["extractor_sha256"] != extractor.digest:
        raise UserError(
            f"the reference was made with extractor {facts['extractor']} {facts['extractor_sha256'][:12]}, "
            f"the samples with {extractor.name} {extractor.digest[:12]}; delete the reference and run again"
        )
    return {
        "what": what,
        "cell": dict(cell) if cell else None,
        "draw": draw,
        "status": "finished" if features is not None else "diverged",
        "reason": reason,
        "metric": extractor.metric,
        "value": frechet_distance(features, reference) if features is not None else None,
        "kid": kernel_distance(features, reference) if features is not None else None,
        "n": len(images),
        "mode": extractor.mode,
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "reference": f"{facts['dataset']} {facts['split']}",
        "reference_sha256": facts["images_sha256"],
        "reference_n": facts["n"],
        "samples_sha256": sha256_of_array(images),
        "model_sha256": model_sha256,
        "sampler": sampler,
        "marks": [],
        "seconds": time.monotonic() - began if began is not None else 0.0,
        "environment": environment(),
    }


def measure_draw(specification: Mapping[str, Any], samples: Path, reference_path: Path) -> dict[str, Any]:
    """Return the row of one draw of a cell.

    Args:
        specification: the content of ``cell.json``.
        samples: ``samples/<sampler>/draw<d>.npz``, with its facts beside it.
        reference_path: the reference statistics' ``.npz``.
    """
    began = time.monotonic()
    reference = load_reference(reference_path)
    device = choose(specification["training"]["threads"])
    extractor = extractors.load(reference.facts["extractor"], device)
    images = load_samples(samples)
    facts = read_json(samples.with_suffix(".json"))
    finished = facts["status"] == "finished"
    return measure(
        images,
        extractor,
        reference,
        extractor.features(images, device) if finished else None,
        what="cell",
        cell=specification["cell"],
        draw=facts["draw"],
        sampler=samples.parent.name,
        model_sha256=facts["model_sha256"],
        reason=facts["reason"],
        began=began,
    )


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row, if it holds all that a row must.

    Raises:
        UserError: if something is missing or of the wrong kind; nothing is written then.
    """
    check_row(row, str(path))
    write_json(path, row)


def read_row(path: Path) -> dict[str, Any]:
    """Read a row and hold it against the schema.

    Raises:
        UserError: if it is missing, damaged or incomplete.
    """
    row: dict[str, Any] = read_json(path)
    check_row(row, str(path))
    return row


def check_row(row: Mapping[str, Any], where: str) -> None:
    """Raise a UserError naming what the schema misses in ``row``."""
    from jsonschema import Draft202012Validator

    schema = yaml.safe_load(ROW_SCHEMA.read_text(encoding="utf-8"))
    error = next(iter(Draft202012Validator(schema).iter_errors(dict(row))), None)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path)
        raise UserError(f"{where}: not a whole row: {place + ': ' if place else ''}{error.message}")
