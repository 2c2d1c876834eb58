"""An idea tried tonight: examined, trained beside what a study has finished already, and compared seed by seed."""

import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from targetwise import cells
from targetwise.errors import UserError
from targetwise.files import write_bytes, write_json
from targetwise.inference.declared import Declared
from targetwise.operations import estimate, follow, rates
from targetwise.operations.examination import Candidate
from targetwise.recipe import comparisons, config, kinds, variants
from targetwise.report import statistics
from targetwise.report.answer import metric_of
from targetwise.report.sentences import heading, in_words
from targetwise.report.table import require_comparable, table
from targetwise.report.words import number, records
from targetwise.text import aligned, counted


def baselines(study: Mapping[str, Any], overlays: Sequence[Path]) -> pd.DataFrame:
    """Return the rows that a trial is compared with: those of the first scale at which any is finished.

    Raises:
        UserError: if nothing is.
    """
    frame = table(study)
    finished = frame[frame["status"] == "finished"]
    if finished.empty:
        is_demo = list(map(str, overlays)) == ["config/digits.yaml"]
        made = "make demo" if is_demo else f"snakemake --cores all all{config.option(overlays)}"
        raise UserError(
            f"no cell of study {study['study']} is finished, so there is nothing to compare with; `{made}` makes them"
        )
    return frame[frame["scale"] == finished["scale"].iloc[0]]


def prepare(study: Mapping[str, Any], candidate: Candidate, beside: pd.DataFrame) -> tuple[dict[str, Any], Path]:
    """Put a candidate's file in its place and return the trial's configuration, and the file that says it.

    The trial is a study of its own, so that the one it is compared with stays as it is.

    Raises:
        UserError: if another file, or another variant, has its name.
    """
    finished = beside[beside["status"] == "finished"]
    if candidate.name in set(finished["parameterization"]):
        raise UserError(
            f"study {study['study']} has {candidate.name} and has finished it; another idea needs another name"
        )
    place = kinds.file_of("parameterizations", candidate.definition["target"])
    content = candidate.file.read_bytes()
    if place.exists() and place.read_bytes() != content:
        raise UserError(f"{place} is another file than {candidate.file}; give yours another name")
    name = f"{study['study']}_try"
    axes = {
        "parameterizations": [candidate.name],
        "scales": [str(finished["scale"].iloc[0])],
        "seeds": sorted({int(seed) for seed in finished["seed"]}),
    }
    overlay = {
        "study": name,
        "grid": axes,
        "comparison": comparisons.NOTHING_DECLARED,
        "parameterizations": {candidate.name: candidate.definition},
    }
    if not place.exists():
        write_bytes(place, content)
    path = cells.RESULTS / name / f"{candidate.name}.yaml"
    write_json(path, overlay)  # which is YAML
    return config.validate(variants.merge(study, overlay)), path


def train(trial: Mapping[str, Any], overlays: Sequence[Path]) -> None:
    """Make the trial's rows, on all cores; what is there is not made again.

    Raises:
        UserError: if Snakemake fails.
    """
    rows = [
        str(cell.folder / "fid" / f"{draw.name}.json")
        for cell in cells.grid(trial)
        for draw in cells.draws(trial, cell.parameterization)
    ]
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "host"]
    command += ["--configfile", *map(str, overlays), "--", *rows]
    # The rules call `python`: this one, also where its environment was not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(command, env={**os.environ, follow.ASKED: "1", "PATH": path})
    if done.returncode:
        raise UserError(
            f"the trial did not finish (exit code {done.returncode}); what was printed says why, and the same "
            "command goes on from there"
        )


def compare(trial: Mapping[str, Any], beside: pd.DataFrame) -> list[str]:
    """Return in lines how the trial's rows compare with those beside it, seed by seed.

    Raises:
        UserError: if they measure different things.
    """
    own = table(trial)
    (name,) = trial["grid"]["parameterizations"]
    frame = pd.concat([own, beside], ignore_index=True)
    require_comparable(frame)
    lines = [f"seed {row.seed} {row.status}: {row.reason}" for row in records(own) if row.status != "finished"]
    means = statistics.summary(frame).dropna(subset="mean")
    metric, smallest = metric_of(frame), trial["comparison"]["smallest_difference"]
    # Against the trial, so that its intervals hold together, however many stand beside it.
    compared = statistics.compared(frame, Declared(name, smallest, {}))
    for setting, comparison in compared.items():
        rows = [["", metric, "deviation", "seeds"]]
        for row in records(means[means["setting"] == setting].sort_values("mean")):
            rows.append([row.parameterization, number(row.mean), number(row.deviation), str(row.seeds)])
        lines += [f"{setting}:"] if len(compared) > 1 else []
        lines += aligned(rows)
        told = [pair for pair in records(comparison.pairs) if pair.seeds]
        lines += [f"{heading(pair)}: {in_words(pair, comparison.scale, smallest)}" for pair in told]
    return lines


def what_next(candidate: Candidate) -> list[str]:
    """Return what to add to ``config.yaml``, and what the study there would cost with this variant alone."""
    full = config.load()
    definition = candidate.definition
    inline = yaml.safe_dump(definition, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    lines = [
        "to have it in a study, add it to grid.parameterizations in config.yaml, and under parameterizations:",
        f"  {candidate.name}: {inline}",
    ]
    alone = {
        "grid": {"parameterizations": [candidate.name]},
        "comparison": comparisons.NOTHING_DECLARED,
        "parameterizations": {candidate.name: definition},
    }
    try:
        study = config.validate(variants.merge(full, alone))
        cost = estimate.estimate(study, rates.newest_record())
    except UserError as error:
        return [*lines, f"what it would cost there is not known: {error}"]
    count = counted(len(cells.grid(study)), "cell")
    hours = number(cost.seconds / 3600)
    return [*lines, f"in study {study['study']} its {count} would take {hours} hours on one {cost.device}"]
