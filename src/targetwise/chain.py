"""One cell from data to number in one process, without Snakemake: for a borrowed GPU, or a machine with little on it.

Writes the files that the pipeline's rules write, where they write them, and does only what is missing, so a chain
that was cut off goes on, and Snakemake finds nothing left to do for the cell.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise import cells, config
from targetwise.cells import Cell
from targetwise.data import store
from targetwise.data.store import Images
from targetwise.diffusion.check_process import check_files
from targetwise.diffusion.sampling import sample
from targetwise.errors import UserError
from targetwise.files import read_json, write_json
from targetwise.jobs import drivers
from targetwise.jobs.kept import release
from targetwise.metric import fid, inception, reference
from targetwise.metric.rows import read_row
from targetwise.records import manifest
from targetwise.training.loop import train
from targetwise.training.stopping import Stop


def load(name: str) -> tuple[config.Config, Cell]:
    """Return the configuration and the cell of e.g. ``reference@epsilon-small-42`` (or with a ``/``).

    The study is ``config/<study>.yaml`` laid over ``config.yaml``, or ``config.yaml`` itself.

    Raises:
        UserError: if there is no such study or cell.
    """
    study, _, cell = name.replace("@", "/", 1).partition("/")
    overlay = Path("config") / f"{study}.yaml"
    loaded = config.load([overlay] if overlay.exists() else [])
    if loaded["study"] != study or not cell:
        known = sorted(path.stem for path in Path("config").glob("*.yaml"))
        raise UserError(f"'{name}' is not STUDY@CELL, as in reference@epsilon-small-42; studies: {', '.join(known)}")
    return loaded, cells.find(loaded, cell)


def run(study: Mapping[str, Any], cell: Cell, stop: Stop) -> list[dict[str, Any]]:
    """Do what is missing of one cell and return its rows, a draw each.

    Args:
        study: the whole configuration.
        cell: of its grid.
        stop: says when to stop early; only training asks, the other stages are short or go on from their parts.

    Raises:
        StoppedEarlyError: if the training was asked to stop; its state is saved.
        UserError: if something does not fit.
    """
    cells.write_specifications(study, replace=not drivers.is_at_work(study["study"]))
    cells.require_specifications(study)
    images, reference_path = prepare(study)
    folder = cell.folder
    specification = read_json(folder / "cell.json")
    options = read_json(folder.parents[2] / "sampling.json")
    variant = folder.parents[1]
    write_json(variant / "check.json", check_files(read_json(variant / "variant.json")))
    _say(f"training {cell.name}")
    outcome = train(
        specification, images, folder, save_every_seconds=study["training"]["save_every_seconds"], stop=stop
    )
    rows, keys = [], cells.TrainingKeys(images.digest)
    for draw in range(study["sampling"]["draws"]):
        samples = folder / "samples" / cells.sampler_name(study) / f"draw{draw}.npz"
        facts = read_json(samples.with_suffix(".json")) if samples.with_suffix(".json").exists() else {}
        if facts.get("key") != keys.of_samples(specification, outcome, options, draw):
            _say(f"sampling draw {draw}")
            sample(specification, options, images, folder, draw, samples)
            facts = read_json(samples.with_suffix(".json"))
        path = folder / "fid" / cells.sampler_name(study) / f"draw{draw}.json"
        compared = reference.load_reference(reference_path).facts
        wanted = [
            facts["samples_sha256"],
            *(compared[name] for name in ("images_sha256", "extractor_sha256", "path")),
        ]
        row = read_row(path) if path.exists() else {}
        found = [row.get(name) for name in ("samples_sha256", "reference_sha256", "extractor_sha256", "path")]
        if found != wanted:
            _say(f"measuring draw {draw}")
            row = fid.write_draw(specification, samples, reference_path, path)
        rows.append(row)
    manifest.write(folder)
    release(folder)
    release(reference_path.parent, reference_path.stem)
    return rows


def prepare(study: Mapping[str, Any]) -> tuple[Images, Path]:
    """Bring data set, weights and reference; return the training images and the reference's path.

    Raises:
        UserError: if one of them cannot be had.
    """
    name = study["data"]["dataset"]
    if not all((store.ROOT / name / file).exists() for file in ("manifest.json", "dataset.npz")):
        _say(f"preparing {name}")
        store.prepare(name, study["datasets"][name], store.ROOT / name)
    metric = study["metric"]
    if metric["extractor"] in study["weights"] and not inception.WEIGHTS.with_suffix(".json").exists():
        _say("preparing the extractor's weights")
        inception.prepare(study["weights"][metric["extractor"]]["sources"])
    path = store.ROOT / name / "reference" / f"{cells.reference_name(study)}.npz"
    if not (path.exists() and path.with_suffix(".json").exists()):
        _say("extracting the reference's features")
        asked = metric["reference"]
        selection = reference.Selection(name, asked["split"], asked.get("first"), metric["extractor"], metric["path"])
        reference.make(selection, path)
    return store.load(store.ROOT / name, "train"), path


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
