"""The stage: one draw of samples of a trained cell, made once."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.cells import sampling_files, sampling_key, source_digests
from targetwise.cells.outcome import read_outcome
from targetwise.compute.device import choose
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import UserError
from targetwise.files import atomic, remedy, sha256_of_array, sha256_of_file, write_json
from targetwise.jobs.kept import Kept
from targetwise.jobs.once import once
from targetwise.jobs.parts import Parts
from targetwise.provenance import environment
from targetwise.recipe import labels
from targetwise.sampling.denoiser import BATCH, Denoiser, draw_images, evaluations
from targetwise.training.formats import settled

#: Why a trained cell may have no samples.
NOT_FINITE = "the sampled images are not finite"


def sample(
    specification: Mapping[str, Any],
    options: Mapping[str, Any],
    images: Images,
    folder: Path,
    draw: int,
    output: Path,
    world: World = ALONE,
    *,
    batch: int = BATCH,
) -> None:
    """Sample one draw of a trained cell.

    Args:
        specification: the content of ``cell.json``.
        options: the content of ``sampling-<sampler>.json``.
        images: of the training set, for their shape.
        folder: the cell's, with ``model.safetensors`` and ``training.json``.
        draw: which of the independent sample sets.
        output: the archive to write (key ``arr_0``, uint8, N×H×W×C); facts go beside it with the ending ``.json``.
            A diverged cell gives an archive of no images. A kill costs the batch that was being sampled.
        world: the processes that sample together.
        batch: images at a time; decides time and memory, not what is drawn.

    Raises:
        UserError: if the weights or the target's file are not those of the training.
    """
    training = read_outcome(folder / "training.json")
    model = folder / "model.safetensors"
    target = parameterization.load(specification["variant"]["target"])
    if training["status"] == "finished":
        require_recorded(model, training)
    sources = source_digests(sampling_files(specification["variant"], specification["network"], options))
    require_trained_with(sources, training, folder)
    key = sampling_key(specification, sources, training, options, draw)

    def make(kept: Kept, parts: Parts) -> None:
        began, device = time.monotonic(), None
        if training["status"] == "diverged":
            array = np.zeros((0, images.size, images.size, images.channels), dtype=np.uint8)
        else:
            device = choose(specification["training"]["threads"], world)
            own = settled(specification, images, device, training=training, world=world)
            denoiser = Denoiser(own, images, target, device)
            snapshot = options.get("snapshot")
            if snapshot is not None and snapshot == specification["training"]["steps"]:
                snapshot = None  # the weights at the end, which have no other name
            denoiser.load(model, ema_length=options.get("ema_length"), snapshot=snapshot)
            cell = specification["cell"]
            what = f"sample {cell['parameterization']}-{cell['scale']}-{cell['seed']} draw {draw}"
            array = draw_images(denoiser, {**options, "batch": batch}, draw, what, world, parts)
        if not world.is_main:
            return
        status, reason = training["status"], training["reason"]
        if status == "finished" and not len(array):
            status, reason = "diverged", NOT_FINITE
        with atomic(kept.path(output)) as temporary, temporary.open("wb") as file:
            np.savez(file, array)
        facts = {
            "key": key,
            "draw": draw,
            "images": len(array),
            "samples_sha256": sha256_of_array(array),
            "model_sha256": training["model_sha256"],
            "status": status,
            "reason": reason,
            "sampling": options,
            "evaluations": evaluations(specification["variant"], options) * labels.evaluations(options),
            "sources": sources,
            "device": device.type if device else None,
            "processes": world.size,
            "batch": batch,
            "seconds": time.monotonic() - began,
            "environment": environment(),
        }
        if "classes" in specification["data"]:
            facts["labels"] = f"image i has label i mod {specification['data']['classes']}"
        write_json(kept.path(output.with_suffix(".json")), facts)

    job = f"sample-{output.parent.name}-{output.stem}"
    once(folder, job, key, [output, output.with_suffix(".json")], make, world)


def require_recorded(model: Path, training: Mapping[str, Any]) -> None:
    """Refuse weights that are not those that ``training.json``, beside them, records.

    Raises:
        UserError: with what to do.
    """
    if sha256_of_file(model) != training["model_sha256"]:
        raise UserError(f"{model} is not the file that {model.with_name('training.json')} records; {remedy(model)}")


def require_trained_with(files: Mapping[str, str], training: Mapping[str, Any], folder: Path) -> None:
    """Refuse to read the network's output by another file (path and SHA-256) than the one it was trained with.

    Raises:
        UserError: naming the file.
    """
    for path, digest in files.items():
        if training.get("sources", {}).get(path, digest) != digest:
            raise UserError(
                f"{path} is not the file that {folder / 'training.json'} was trained with; undo the change, or train "
                f"again: `snakemake --cores all all --configfile {folder.parents[2] / 'study.json'}`"
            )
