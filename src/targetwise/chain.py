"""One cell from data to number in one process, without Snakemake: for a borrowed GPU, or a machine with little on it.

Writes the files that the pipeline's rules write, where they write them, and does only what is missing, so a chain
that was cut off goes on, and Snakemake finds nothing left to do for the cell.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell
from targetwise.cells import probes as records
from targetwise.cells.agreement import ROW, SAMPLES, TRAINING, Agreement, Before, parts
from targetwise.check.process import check_files
from targetwise.data import store
from targetwise.data.store import Images
from targetwise.errors import UserError
from targetwise.files import read_json, write_json_if_changed
from targetwise.jobs import drivers
from targetwise.jobs.kept import release
from targetwise.metric import fid, inception, reference
from targetwise.probing.stage import probe
from targetwise.recipe import config, variants
from targetwise.records import manifest
from targetwise.sampling.stage import sample
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
    write_json_if_changed(variant / "check.json", check_files(read_json(variant / "variant.json")))
    agreement, before = Agreement(study), Before()
    for part in parts(study, cell):
        if part.draw is None:
            # Always asked for: it knows its own result, and refuses to train over that of a user's own rule.
            _say(f"training {cell.name}")
            every = variants.settings(study, cell.parameterization)["training"]["save_every_seconds"]
            train(specification, images, folder, save_every_seconds=every, stop=stop)
        elif agreement.current(cell, part, before):
            continue
        elif part.kind == SAMPLES:
            _say(f"sampling {part.draw.name}")
            options = read_json(cells.sampling_file(whole, cell.parameterization, part.draw.sampler))
            batch = variants.samplings(study, cell.parameterization)[part.draw.sampler]["batch"]
            sample(specification, options, images, folder, part.draw.number, part.others[0], batch=batch)
        else:
            _say(f"measuring {part.draw.name}")
            samples = folder / "samples" / f"{part.draw.name}.npz"
            fid.write_draw(specification, read_json(whole / "metric.json"), samples, reference_path, part.facts)
        agreement.require_part(cell, part, before)
    if study["probes"] and not _is_probed(agreement, cell, before[TRAINING, None]):
        _say(f"probing {cell.name}")
        probe(specification, read_json(whole / "probes.json"), folder, folder / records.NAME)
    manifest.write(folder)
    release(folder)
    release(reference_path.parent, reference_path.stem)
    return [facts for (kind, _), facts in before.items() if kind == ROW]


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


def _is_probed(agreement: Agreement, cell: Cell, training: Mapping[str, Any]) -> bool:
    try:
        return agreement.is_probed(cell, records.read_record(cell.folder / records.NAME), training)
    except UserError:
        return False


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
