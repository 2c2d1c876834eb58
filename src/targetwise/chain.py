"""One cell from data to number in one process, without Snakemake: for a borrowed GPU, or a machine with little on it.

Writes the files that the pipeline's rules write, where they write them, and does only what is missing, so a chain
that was cut off goes on, and Snakemake finds nothing left to do for the cell.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise import cells, config, variants
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
from targetwise.metric.rows import draw_key, read_row
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
    variant, whole = folder.parents[1], folder.parents[2]
    metric = read_json(whole / "metric.json")
    write_json(variant / "check.json", check_files(read_json(variant / "variant.json")))
    _say(f"training {cell.name}")
    outcome = train(
        specification, images, folder, save_every_seconds=study["training"]["save_every_seconds"], stop=stop
    )
    rows, keys = [], cells.TrainingKeys(images.digest)
    batches = {name: each["batch"] for name, each in variants.samplings(study, cell.parameterization).items()}
    for draw in cells.draws(study, cell.parameterization):
        options = read_json(cells.sampling_file(whole, cell.parameterization, draw.sampler))
        samples = folder / "samples" / f"{draw.name}.npz"
        facts = read_json(samples.with_suffix(".json")) if samples.with_suffix(".json").exists() else {}
        if facts.get("key") != keys.of_samples(specification, outcome, options, draw.number):
            _say(f"sampling {draw.name}")
            sample(specification, options, images, folder, draw.number, samples, batch=batches[draw.sampler])
            facts = read_json(samples.with_suffix(".json"))
        path = folder / "fid" / f"{draw.name}.json"
        key = draw_key(specification, facts, path.parent.name, metric, read_json(reference_path.with_suffix(".json")))
        if not path.exists() or read_json(path).get("key") != key:
            _say(f"measuring {draw.name}")
            fid.write_draw(specification, metric, samples, reference_path, path)
        rows.append(read_row(path))
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
    selection = reference.Selection.asked({"dataset": name, **metric})
    if not reference.is_current(selection, path):
        _say("extracting the reference's features")
        reference.make(selection, path)
    return store.load(store.ROOT / name, "train"), path


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
