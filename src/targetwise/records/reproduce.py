"""Make a cell again, from scratch and beside the results, and say how it compares with its record.

The record is the cell's manifest. The cell is made in a scratch folder that holds a copy of ``workflow/`` and a link
to ``data/``, whose files are accepted by digest only. A run that is cut off goes on there when it is started again.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from targetwise import cells, chain, provenance
from targetwise.cells import Cell
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_file, sha256_of_json, sha256_of_text, write_json
from targetwise.recipe.config import Config
from targetwise.recipe.kinds import WORKFLOW
from targetwise.records import comparison, manifest
from targetwise.training import formats
from targetwise.training.stopping import Stop

#: In a scratch folder: what is made there, so that a run of the same can go on in it.
PURPOSE = "reproduce.json"
LOCK = "lock"

#: Before the ``@`` of a cell's name: the study that is loaded, whatever it is called.
ANY_STUDY = "cell"


def find(study: Config, name: str) -> tuple[Config, Cell]:
    """Return the configuration and the cell of e.g. ``digits@v-tiny-1`` or ``digits/v-tiny-1``.

    Args:
        study: the configuration that is loaded; it is taken where ``name`` calls it by its name or ``cell``.
            Otherwise the study is a file of ``config/``.
        name: ``STUDY@CELL``.

    Raises:
        UserError: if there is no such study or cell.
    """
    where, _, cell = name.replace("@", "/", 1).partition("/")
    if cell and where in (study["study"], ANY_STUDY):
        return study, cells.find(study, cell)
    return chain.load(name)


def reproduce(study: Config, cell: Cell, stop: Stop, keep: Path | None = None) -> comparison.Comparison:
    """Make a cell again and compare it with its record; nothing of the record is touched.

    Args:
        study: the whole configuration.
        cell: of its grid.
        stop: says when to stop early.
        keep: the folder to work in and to leave; otherwise one below the temporary folder, which is removed at the
            end, but not when the run was cut off.

    Raises:
        StoppedEarlyError: if the training was asked to stop; the same call goes on.
        UserError: if there is no record, or the record is of something other than what would be made now.
    """
    if not (cell.folder / manifest.NAME).exists():
        raise UserError(f"{cell.folder / manifest.NAME} does not exist; only a finished cell can be reproduced")
    record = manifest.read(cell.folder)
    _require_same_cell(study, cell, record)
    provenance.environment()  # asked here, because the commit is this folder's and not the scratch folder's
    recorded = cell.folder.resolve()
    with _scratch(cell, record, keep) as scratch:
        chain.prepare(study)
        choice = formats.read(cells.RESULTS / study["study"])
        with contextlib.chdir(scratch):
            _carry_choice(cell, record, choice["values"], recorded)
            chain.run(study, cell, stop)
            made = manifest.read(cell.folder)
        return comparison.compare(
            comparison.Side(record, recorded),
            comparison.Side(made, scratch / cell.folder),
            _recorded_seeds(study, cell, record),
        )


def _carry_choice(cell: Cell, record: Mapping[str, Any], values: formats.Values, recorded: Path) -> None:
    """Let the reproduction follow what was chosen for a CPU: by the record, or by the study where a GPU trained.

    Args:
        cell: that is reproduced, in the working directory.
        record: its manifest.
        values: of the recorded study's ``cpu.json``.
        recorded: the folder of the record.
    """
    training = record["training"]
    if training["device"] == "cpu" and training.get("formats"):
        values = training["formats"]
    if values and formats.undecided(record["configuration"]["cell.json"]["training"]):
        formats.follow(cell.folder.parents[2], values, recorded / manifest.NAME)


def _require_same_cell(study: Mapping[str, Any], cell: Cell, record: Mapping[str, Any]) -> None:
    """Refuse to spend a training on something that is known to be another cell than the recorded one.

    Raises:
        UserError: naming the first thing in which they differ.
    """
    name = f"{study['study']}@{cell.name}"
    if record["training"]["key"] is None:
        raise UserError(
            f"{name} was trained by a rule of your own; only the pipeline's own training can be reproduced"
        )
    specifications = cells.specifications(study)
    for folder in (cell.folder, cell.folder.parents[1], cell.folder.parents[2]):
        for path, content in specifications.items():
            if path.parent == folder and path.name in record["configuration"]:
                for key, now, then in _differences(content, record["configuration"][path.name]):
                    raise UserError(
                        f"the record of {name} is of another configuration: {path.name} now says {key} = {now}, "
                        f"recorded is {then}"
                    )
    for path, digest in record["code"]["sources"].items():
        if not Path(path).exists() or sha256_of_file(Path(path)) != digest:
            raise UserError(f"{path} is not the file that {name} was trained with, SHA-256 {digest}")
    images = store.ROOT / record["data"]["dataset"] / "manifest.json"
    if images.exists() and store.prepared_digest(record["data"]["dataset"]) != record["data"]["train_sha256"]:
        raise UserError(
            f"{images.parent} holds other images than {name} was trained on, SHA-256 {record['data']['train_sha256']}"
        )


def _differences(now: Any, then: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in sorted({*now, *then}):
            yield from _differences(now.get(name), then.get(name), f"{key}.{name}" if key else name)
    elif now != then:
        yield key, now, then


def _recorded_seeds(study: Mapping[str, Any], cell: Cell, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the manifests of all seeds of the cell's parameterization and scale that are comparable with its own."""
    wanted = comparison.measured(record)
    found = []
    for other in cells.grid(study):
        same = (other.parameterization, other.scale) == (cell.parameterization, cell.scale)
        if same and (other.folder / manifest.NAME).exists():
            content = manifest.read(other.folder)
            if comparison.measured(content) == wanted:
                found.append(content)
    return found


@contextlib.contextmanager
def _scratch(cell: Cell, record: Mapping[str, Any], keep: Path | None) -> Iterator[Path]:
    """Yield the folder to work in; what an earlier run of the same has left in it is used."""
    folder = (keep or _temporary(cell)).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a folder is needed")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if keep is None and folder.lstat().st_uid != os.getuid():  # others may write there, and it is emptied
        raise UserError(f"{folder} belongs to another user; name a folder of your own with --keep")
    with _alone(folder):
        purpose = {
            "cell": str(cell.folder.resolve()),
            "record": sha256_of_json(record),
            "code": provenance.code_sha256(),
        }
        marker = folder / PURPOSE
        if marker.exists() and read_json(marker) == purpose:
            print(f"going on in {folder}", file=sys.stderr, flush=True)
        else:
            _empty(folder, is_ours=keep is None)
            shutil.copytree(WORKFLOW, folder / WORKFLOW, ignore=shutil.ignore_patterns("__pycache__"))
            store.ROOT.mkdir(exist_ok=True)
            (folder / store.ROOT).symlink_to(store.ROOT.resolve(), target_is_directory=True)
            write_json(marker, purpose)
            print(f"working in {folder}; if cut off, the same command goes on there", file=sys.stderr, flush=True)
        yield folder
        if keep is None:
            shutil.rmtree(folder)


def _temporary(cell: Cell) -> Path:
    """Return the same folder whenever the same cell of the same project is reproduced, so that none is lost."""
    project = sha256_of_text(str(Path.cwd()))[:8]
    return Path(tempfile.gettempdir()) / f"targetwise-reproduce-{os.getuid()}-{project}-{cell.study}-{cell.name}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: if another process works in it.
    """
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process reproduces the same cell in {folder}; wait for it") from None
        yield


def _empty(folder: Path, *, is_ours: bool) -> None:
    left = [path for path in folder.iterdir() if path.name != LOCK]
    if left and not is_ours:
        raise UserError(f"{folder} holds something other than a reproduction of this cell; name a new folder")
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
