"""Results that a run is about to make again although they would come out the same: they are kept, and put back.

Snakemake makes everything again that comes after a file which is missing. The file may be a check that takes seconds,
a data set that has its digest, or a reference; what comes after it may be trainings of days. Snakemake deletes their
results before it starts their jobs, so the driver keeps them first; the jobs find them.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise.cells import Cell, Draw
from targetwise.errors import UserError
from targetwise.jobs.kept import Kept
from targetwise.text import counted

if TYPE_CHECKING:
    from targetwise.cells.agreement import Agreement

#: What a cell's jobs are called where they keep their results, by rule.
JOBS = {"train": "train", "sample": "sample-{sampler}-draw{draw}", "fid": "fid-{sampler}-draw{draw}"}


def adopt(config: Mapping[str, Any], jobs: Iterable[Any]) -> int:
    """Keep trainings, samples and rows that are of the present configuration, and are about to be deleted.

    Args:
        config: the whole configuration.
        jobs: Snakemake's jobs that are going to run, without those that are forced.

    Returns:
        How many results are kept.
    """
    doomed: dict[Cell, set[tuple[str, Draw | None]]] = {}
    for job in jobs:
        if job.rule.name in JOBS and all(Path(output).exists() for output in job.output):
            wildcards = job.wildcards
            cell = Cell(config["study"], wildcards.parameterization, wildcards.scale, int(wildcards.seed))
            draw = None if job.rule.name == "train" else Draw(wildcards.sampler, int(wildcards.draw))
            doomed.setdefault(cell, set()).add((job.rule.name, draw))
    if not doomed:
        return 0
    print(f"note: checking whether {counted(len(doomed), 'cell')} must really be made again", flush=True)
    # Imported here, because each job imports this module and none needs it.
    from targetwise.cells.agreement import Agreement

    kept, agreement = 0, Agreement(config)
    for cell, parts in doomed.items():
        try:
            kept += _adopt_cell(agreement, cell, parts)
        except (UserError, OSError) as error:
            print(f"note: finished results of {cell.name} are not kept: {error}", flush=True)
    if kept:
        print(f"note: {counted(kept, 'finished result', 'are')} up to date; put back, not made again", flush=True)
    return kept


def forced(dag: Any, settings: Any, jobs: Iterable[Any]) -> list[Any]:
    """Return the jobs that the user wants done again whatever is there: with --forcerun, --force or --forceall.

    Snakemake also calls forced what was running when a driver was killed: its outputs may be incomplete. No user
    asked for that, and such a job may have finished since.

    Args:
        dag: Snakemake's, for what was asked for.
        settings: Snakemake's ``dag_settings``.
        jobs: that are going to run.
    """
    names = {str(name) for name in settings.forcerun}
    if settings.forcetargets:
        names |= {*map(str, dag.targetfiles or ()), *(rule.name for rule in dag.targetrules or ())}
    return [job for job in jobs if settings.forceall or names & {job.rule.name, *map(str, job.output)}]


def forget(study: str, jobs: Iterable[Any]) -> None:
    """Remove the kept results of jobs that the user forced: they are to be made again."""
    for job in jobs:
        if job.rule.name in JOBS:
            wildcards = job.wildcards
            cell = Cell(study, wildcards.parameterization, wildcards.scale, int(wildcards.seed))
            shutil.rmtree(
                cell.folder / "kept" / JOBS[job.rule.name].format(**dict(wildcards.items())), ignore_errors=True
            )


def _adopt_cell(agreement: "Agreement", cell: Cell, doomed: set[tuple[str, Draw | None]]) -> int:
    from targetwise.cells.agreement import ROW, SAMPLES, TRAINING, Before, parts

    rules = {TRAINING: "train", SAMPLES: "sample", ROW: "fid"}
    kept = 0
    before: Before = {}
    for part in parts(agreement.config, cell):
        rule = rules[part.kind]
        is_doomed = (rule, part.draw) in doomed
        facts = agreement.current(cell, part, before, whole=is_doomed)
        if facts and is_doomed and "key" in facts:  # one's own rule for training records none
            of = {"sampler": part.draw.sampler, "draw": part.draw.number} if part.draw else {}
            job = JOBS[rule].format(**of)
            Kept(cell.folder / "kept" / job, facts["key"], [*part.others, part.facts]).adopt()
            kept += 1
    return kept
