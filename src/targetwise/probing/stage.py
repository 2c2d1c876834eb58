"""The stage: the numbers that the probes of a study find in one trained network."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from targetwise.cells import probe_files, probe_key, source_digests
from targetwise.cells.outcome import read_outcome
from targetwise.cells.probes import write_record
from targetwise.compute.device import choose
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.probing.model import Model
from targetwise.provenance import environment
from targetwise.recipe import kinds, probes
from targetwise.sampling.stage import require_recorded, require_trained_with


def values(model: Model, names: Sequence[str]) -> dict[str, float]:
    """Return the numbers of all probes in ``names``, by name.

    Args:
        model: what they measure.
        names: of files in ``workflow/probes/``.

    Raises:
        UserError: if a file fails, or does not return finite numbers by the names that it gives.
    """
    found: dict[str, float] = {}
    for name in names:
        file, wanted = kinds.file_of("probes", name), probes.gives(name)
        measured = kinds.load("probes", name).call("measure", model)
        try:
            numbers = {str(key): float(value) for key, value in dict(measured).items()}
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}: measure must return numbers by name, not {measured!r:.80}") from error
        wrong = {*numbers} ^ {*wanted}
        if wrong:
            what = "returned" if min(wrong) in numbers else "did not return"
            raise UserError(f"{file}: measure {what} {min(wrong)}; GIVES names {', '.join(wanted)}")
        for key, value in numbers.items():
            if not math.isfinite(value):
                raise UserError(f"{file}: measure returned {value} as {key}; it must return finite numbers")
        found |= numbers
    return found


def probe(specification: Mapping[str, Any], options: Mapping[str, Any], folder: Path, output: Path) -> None:
    """Measure one trained cell and write ``probe.json``.

    Nothing is kept of a job that was killed: it takes a minute, and no later result is made from it.

    Args:
        specification: the content of ``cell.json``.
        options: the content of ``probes.json``.
        folder: the cell's, with ``model.safetensors`` and ``training.json``.
        output: the file to write. A diverged cell has no values. The snapshots of a training are measured as well.

    Raises:
        UserError: if the weights or a file of the variant are not those of the training, or a probe is wrong.
    """
    began = time.monotonic()
    training, weights = read_outcome(folder / "training.json"), folder / "model.safetensors"
    sources = source_digests(probe_files(specification["variant"], specification["network"], options))
    require_trained_with(sources, training, folder)
    images = store.training_images(specification)
    held_out = store.load(store.ROOT / specification["data"]["dataset"], "test")
    digests = {"train": images.digest, "test": held_out.digest}
    found, of_snapshots = None, {}
    if training["status"] == "finished":
        require_recorded(weights, training)
        model = Model(specification, images, held_out, choose(specification["training"]["threads"]))
        model.denoiser.load(weights)
        found = values(model, options["names"])
        for step in specification["training"].get("snapshots", ()):
            model.denoiser.load(weights, snapshot=step)
            of_snapshots[str(step)] = values(model, options["names"])
    record = {
        "key": probe_key(specification, sources, training["model_sha256"], options, digests),
        "cell": specification["cell"],
        "model_sha256": training["model_sha256"],
        "values": found,
        **({"snapshots": of_snapshots} if of_snapshots else {}),
        "reason": training["reason"],
        "probes": options["names"],
        "sources": sources,
        "images_sha256": digests,
        "seconds": time.monotonic() - began,
        "environment": environment(),
    }
    write_record(output, record)
