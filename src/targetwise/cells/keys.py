"""What identifies a result: digests of all that decides a training, a draw of samples, or a row.

A key is made of a specification, of the files of ``workflow/`` that it names, and of what the result is made from;
never of a date.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from targetwise.diffusion.randomness import golden_draw
from targetwise.files import sha256_of_file, sha256_of_json
from targetwise.recipe import kinds
from targetwise.recipe.config import parameterization_file
from targetwise.recipe.variants import network_name


def source_files(resolved: Mapping[str, Any], scale: Mapping[str, Any] | None = None) -> list[Path]:
    """Return the files that a training is defined in: target, loss space, path, weighting, network and times.

    Args:
        resolved: the variant.
        scale: what the network is made from; without it, the files that the check of the variant depends on.
    """
    files = [parameterization_file(resolved["target"]), parameterization_file(resolved["loss_space"])]
    files.append(kinds.file_of("paths", resolved["diffusion"]["schedule"]))
    if resolved["weighting"] != "constant":  # it is flat in the loss space, and needs no file
        files.append(kinds.file_of("weightings", resolved["weighting"]))
    files.append(kinds.file_of("times", resolved["diffusion"]["times"]))
    if scale is not None:
        files.append(kinds.file_of("networks", network_name(scale)))
    return files


def model_files(resolved: Mapping[str, Any], scale: Mapping[str, Any]) -> list[Path]:
    """Return the files that a trained network is read by, whoever trained it: target, network and path."""
    return [
        parameterization_file(resolved["target"]),
        kinds.file_of("networks", network_name(scale)),
        kinds.file_of("paths", resolved["diffusion"]["schedule"]),
    ]


def sampling_files(resolved: Mapping[str, Any], scale: Mapping[str, Any], sampling: Mapping[str, Any]) -> list[Path]:
    """Return the files that a trained variant is sampled by: :func:`model_files` and the sampler."""
    return [*model_files(resolved, scale), kinds.file_of("samplers", sampling["sampler"])]


def source_digests(files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path."""
    return {str(path): sha256_of_file(path) for path in files}


def training_key(specification: Mapping[str, Any], sources: Mapping[str, str], images: str | None) -> str:
    """Return the digest of all that decides a training; states and results with another key are another cell's.

    Args:
        specification: the content of ``cell.json``.
        sources: the SHA-256 of each of :func:`source_files`, by its path.
        images: the SHA-256 of the training images; None where they are not known, which is the key of no training.
    """
    return sha256_of_json([specification, sources, images, golden_draw()])


def sampling_key(
    specification: Mapping[str, Any],
    sources: Mapping[str, str],
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    draw: int,
) -> str:
    """Return the digest of all that decides a draw of samples.

    Args:
        specification: the content of ``cell.json``.
        sources: the SHA-256 of each of :func:`sampling_files`, by its path.
        training: the content of ``training.json``.
        options: the content of ``sampling-<sampler>.json``.
        draw: which of the independent sample sets.
    """
    made_from = [specification, sources, training["model_sha256"], training["status"], options, draw]
    return sha256_of_json([*made_from, golden_draw()])


def probe_files(resolved: Mapping[str, Any], scale: Mapping[str, Any], options: Mapping[str, Any]) -> list[Path]:
    """Return the files that a trained variant is probed by: those of its training, and the probes' own."""
    return [*source_files(resolved, scale), *(kinds.file_of("probes", name) for name in options["names"])]


def probe_key(
    specification: Mapping[str, Any],
    sources: Mapping[str, str],
    model: str,
    options: Mapping[str, Any],
    images: Mapping[str, str],
) -> str:
    """Return the digest of all that decides what the probes find of a cell.

    Args:
        specification: the content of ``cell.json``.
        sources: the SHA-256 of each of :func:`probe_files`, by its path.
        model: the SHA-256 of the weights.
        options: the content of ``probes.json``.
        images: the SHA-256 of the training and of the held-out images.
    """
    return sha256_of_json([specification, sources, model, options, images, golden_draw()])


class Keys:
    """The keys that trainings, samples and rows of a study have now; each file of ``workflow/`` is read once."""

    def __init__(self, images: str | None) -> None:
        """Prepare for trainings on the images with the SHA-256 ``images``; None where they are not known."""
        self._images = images
        self._digest = cache(sha256_of_file)

    def of(self, specification: Mapping[str, Any]) -> str:
        """Return the key for the content of a ``cell.json``."""
        files = source_files(specification["variant"], specification["network"])
        return training_key(specification, self._sources(files), self._images)

    def of_samples(
        self, specification: Mapping[str, Any], training: Mapping[str, Any], options: Mapping[str, Any], draw: int
    ) -> str:
        """Return the key of a draw that is sampled from ``training``; see :func:`sampling_key`."""
        sources = self._sources(sampling_files(specification["variant"], specification["network"], options))
        return sampling_key(specification, sources, training, options, draw)

    def of_probes(
        self, specification: Mapping[str, Any], model: str, options: Mapping[str, Any], images: Mapping[str, str]
    ) -> str:
        """Return the key of what probes find; see :func:`probe_key`."""
        sources = self._sources(probe_files(specification["variant"], specification["network"], options))
        return probe_key(specification, sources, model, options, images)

    def of_row(self, *made_from: Any) -> str:
        """Return the key of the row of a draw; see :func:`draw_key`."""
        return draw_key(*made_from, digest=self._digest)

    def _sources(self, files: Sequence[Path]) -> dict[str, str]:
        return {str(path): self._digest(path) for path in files}


def row_key(
    options: Mapping[str, Any],
    reference: Mapping[str, Any],
    *measured: Any,
    digest: Callable[[Path], str] = sha256_of_file,
) -> str:
    """Return the digest of all that decides a row; a row with another key is measured again.

    Args:
        options: the content of ``metric.json``, with the protocol numbers; the files of its metrics count as well.
        reference: its facts. Their digests count; where and when it was made does not.
        measured: what is measured, as plain values.
        digest: returns the SHA-256 of a file.
    """
    files = [digest(kinds.file_of("metrics", name)) for name in options["names"]]
    return sha256_of_json([options, *files, reference["images_sha256"], reference["extractor_sha256"], *measured])


def draw_key(
    specification: Mapping[str, Any],
    samples: Mapping[str, Any],
    sampler: str,
    options: Mapping[str, Any],
    reference: Mapping[str, Any],
    *,
    digest: Callable[[Path], str] = sha256_of_file,
) -> str:
    """Return the key of the row of a cell's draw; see :func:`row_key`.

    Args:
        specification: the content of ``cell.json``.
        samples: the facts beside the draw's images.
        sampler: the name of the samples' folder, e.g. ``ddim-50``.
        options: the content of ``metric.json``.
        reference: its facts.
        digest: returns the SHA-256 of a file.
    """
    made = [samples[name] for name in ("key", "draw", "status", "reason", "samples_sha256", "model_sha256")]
    threads = specification["training"]["threads"]  # their number can change the last bit of a feature
    return row_key(options, reference, specification["cell"], threads, sampler, *made, digest=digest)
