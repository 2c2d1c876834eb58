"""Where every cell of a grid stands, read from its files: during a run or after it, on a cluster or a laptop."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell, Draw
from targetwise.cells.agreement import Agreement
from targetwise.cells.outcome import find_outcome
from targetwise.errors import UserError
from targetwise.files import read_whole, remedy
from targetwise.operations.logs import Words
from targetwise.recipe.schema import read_yaml
from targetwise.text import aligned, counted

STATES = ("done", "running", "waiting", "failed", "diverged")

#: The states from which a cell comes to another without anybody's help.
MOVING = ("running", "waiting")

#: state.py beats every 5 seconds; clocks of two machines may differ by some more.
FRESH_SECONDS = 60.0

#: How an ended job's last words begin if it is to go on later (errors.py).
RESUMABLE = ("stopped:", "interrupted", "waiting:")

#: Enough for the tracebacks of some processes and of their launcher.
TAIL_BYTES = 65536


@dataclass(frozen=True)
class Standing:
    """One cell's state, one of :data:`STATES`, and what more there is to say of it.

    ``step`` of its ``steps`` of training is taken; ``key`` is the digest of everything that decides its training, as
    ``training.json`` names it.
    """

    cell: Cell
    state: str
    detail: str = ""
    step: int = 0
    steps: int = 0
    key: str = ""


def standings(config: Mapping[str, Any]) -> list[Standing]:
    """Return where each cell of the grid stands, in the grid's order; nothing but files is asked."""
    agreement, now = Agreement(config), time.time()
    return [
        replace(
            _standing(cell, agreement, now),
            steps=agreement.specifications[cell.folder / "cell.json"]["training"]["steps"],
            key=agreement.training_key(cell),
        )
        for cell in cells.grid(config)
    ]


def can_move(found: Iterable[Standing]) -> bool:
    """Return whether any cell may come to another state by itself."""
    return any(each.state in MOVING for each in found)


def render(found: Iterable[Standing]) -> str:
    """Return the grid's table, a line for every cell of which there is more to say, and the sum."""
    found = list(found)
    counts: dict[tuple[str, str], Counter[str]] = {}
    for standing in found:
        key = standing.cell.parameterization, standing.cell.scale
        counts.setdefault(key, Counter())[standing.state] += 1
    rows = [["parameterization", "scale", *STATES]]
    rows += [[*key, *(str(count[state] or "·") for state in STATES)] for key, count in counts.items()]
    told = [[each.cell.name, each.state, each.detail] for each in found if each.detail]
    total = Counter(each.state for each in found)
    summary = ", ".join(f"{total[state]} {state}" for state in STATES if total[state])
    return "\n".join(
        [*aligned(rows), "", *aligned(told), *([""] if told else []), f"{counted(len(found), 'cell')}: {summary}"]
    )


def elsewhere(found: Iterable[Standing], config: Mapping[str, Any]) -> str:
    """Return one line that names the studies with results, where of this one there is nothing; otherwise nothing."""
    if any((each.state, each.detail) != ("waiting", "") for each in found):
        return ""
    trained = {path.parents[3].name for path in cells.RESULTS.glob("*/*/*/seed*/training.json")}
    studies = sorted(trained - {config["study"]})
    asked = [f"{name} (targetwise status --configfile {_configuration(name)})" for name in studies]
    return f"study {config['study']} has no results; others have: {', '.join(asked)}" if asked else ""


def _configuration(study: str) -> Path:
    """Return the file to name for a study: its own below ``config/``, or the record of what it was run with."""
    own = Path("config") / f"{study}.yaml"
    is_own = own.exists() and read_yaml(own).get("study") == study
    return own if is_own else cells.RESULTS / study / "study.json"


def watch(config: Mapping[str, Any], every: float) -> None:
    """Print the table repeatedly, until no cell can change state any more."""
    while True:
        found = standings(config)
        clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
        print(f"{clear}{render(found)}\n{time.strftime('%H:%M:%S')}, again every {every:g} s", flush=True)
        if not can_move(found):
            return
        time.sleep(every)


def _standing(cell: Cell, agreement: Agreement, now: float) -> Standing:
    try:
        outcome = find_outcome(cell.folder / "training.json")
    except UserError as error:
        return Standing(cell, "failed", str(error))
    if outcome is None or not agreement.is_trained(cell, outcome):
        options = agreement.specifications[cell.folder / "cell.json"]["training"]
        return _in_training(cell, options, now, trained_otherwise=outcome is not None)
    steps = outcome["steps"]
    if outcome["status"] == "diverged":
        return Standing(cell, "diverged", outcome["reason"], steps)
    for draw in cells.draws(agreement.config, cell.parameterization):
        path = cell.folder / "fid" / f"{draw.name}.json"
        row = read_whole(path)
        if row is None and path.exists():
            return Standing(cell, "failed", f"{path} is damaged; {remedy(path)}", steps)
        if row is None or not agreement.is_measured(cell, draw, row, outcome):
            return replace(_in_measuring(cell, draw, now), step=steps)
    return Standing(cell, "done", step=steps)


def _in_training(cell: Cell, options: Mapping[str, Any], now: float, *, trained_otherwise: bool) -> Standing:
    state = cell.folder / "state/train"
    if _age(state / "heartbeat.json", now) < FRESH_SECONDS:
        return Standing(cell, "running", *_progress(state, options))
    if trained_otherwise:
        # A job's first act is to delete the outputs, so the log is still that of the training that made them.
        return Standing(cell, "waiting", "trained, but configuration, parameterization or data changed since")
    log = cell.folder / "log/train.log"
    words = _words(log, since=written(cell.folder / "cell.json"))
    if words.remark and not words.remark.startswith(RESUMABLE):
        return Standing(cell, "failed", words.remark)
    step = saved_step(cell)
    saved = f"step {step} of {options['steps']} is saved" if step else ""
    if words.is_cut_off:
        return Standing(cell, "failed", "; ".join(filter(None, [f"ended without a reason in {log}", saved])))
    return Standing(cell, "waiting", saved, step)


def _in_measuring(cell: Cell, draw: Draw, now: float) -> Standing:
    for stage in ("fid", "sample"):
        log = cell.folder / f"log/{stage}-{draw.name.replace('/', '-')}.log"
        words = _words(log, since=written(cell.folder / "training.json"))
        finished = stage == "sample" and (cell.folder / f"samples/{draw.name}.json").exists()
        if words.progress and _age(log, now) < FRESH_SECONDS and not words.reason and not finished:
            return Standing(cell, "running", f"{stage} {draw.name}: {words.progress.partition(': ')[2]}")
        why = words.remark or (f"ended without a reason in {log}" if words.is_cut_off else "")
        if why and not finished and not why.startswith(RESUMABLE):
            return Standing(cell, "failed", f"{stage}: {why}")
    return Standing(cell, "waiting", "trained, not yet measured")


def _progress(state: Path, options: Mapping[str, Any]) -> tuple[str, int]:
    """Return how far a training is, in words, and the last step it has logged."""
    beat = read_whole(state / "heartbeat.json") or {}
    who = f"host {beat.get('host', '?')}" + (f", job {beat['job']}" if beat.get("job") else "")
    try:
        line = json.loads(tail(state / "train.jsonl").splitlines()[-1])
    except (IndexError, ValueError):
        return f"train: began ({who})", 0
    step, steps = line["step"], options["steps"]
    rate = line["images_per_second"] / options["global_batch"]
    left = (steps - step) / rate if rate else float("inf")
    return f"train: step {step} of {steps}, {rate:,.1f} steps/s, {duration(left)} left ({who})", step


def saved_step(cell: Cell) -> int:
    """Return the step after which the state of a cell in training was last saved; 0 if none is."""
    return max(
        (int(path.stem.rpartition("-")[2]) for path in _listed(cell.folder / "state/train", ".sha256")), default=0
    )


def duration(seconds: float) -> str:
    """Return e.g. ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds == float("inf"):
        return "?"
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _words(log: Path, since: float) -> Words:
    """Return the telling lines of a log that is not older than ``since``; an older one is of another cell.json."""
    return Words.of(tail(log)) if written(log) >= since else Words()


def tail(path: Path) -> str:
    """Return a file's last lines; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def written(path: Path) -> float:
    """Return when a file was last written, in seconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _age(path: Path, now: float) -> float:
    return now - written(path)


def _listed(folder: Path, ending: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.endswith(ending)]
    except OSError:
        return []
