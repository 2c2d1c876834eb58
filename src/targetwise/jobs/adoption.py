"""What a run is about to make again although it is there, and would come out the same: it is kept, and put back.

Snakemake makes everything again that comes after a file which is missing. The file may be a check that takes seconds,
or a data set that has its digest; what comes after it are trainings of days. Snakemake deletes their results before
it starts their jobs, so the driver keeps them first; the jobs find them.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise.cells import Cell
from targetwise.errors import UserError
from targetwise.jobs.kept import Kept
from targetwise.text import counted

if TYPE_CHECKING:
    from targetwise.versioning.agreement import Agreement

#: What a cell's jobs are called where they keep their results, by rule.
JOBS = {"train": "train", "sample": "sample-{sampler}-draw{draw}", "fid": "fid-{sampler}-draw{draw}"}


def adopt(config: Mapping[str, Any], jobs: Iterable[Any]) -> int:
    """Keep trainings and samples that are of the present configuration, and are about to be deleted.

    Args:
        config: the whole configuration.
        jobs: Snakemake's jobs that are going to run, without those that somebody forced.

    Returns:
        How many results are kept.
    """
    doomed: dict[Cell, set[tuple[str, int]]] = {}
    for job in jobs:
        if job.rule.name in ("train", "sample") and all(Path(output).exists() for output in job.output):
            wildcards = job.wildcards
            cell = Cell(config["study"], wildcards.parameterization, wildcards.scale, int(wildcards.seed))
            kind = "training" if job.rule.name == "train" else "samples"
            doomed.setdefault(cell, set()).add((kind, int(getattr(wildcards, "draw", 0))))
    if not doomed:
        return 0
    print(f"note: looking whether {counted(len(doomed), 'cell')} must really be made again", flush=True)
    # Imported here, because each job imports this module and none needs it.
    from targetwise.versioning.agreement import Agreement

    kept = 0
    try:
        agreement = Agreement(config)
        for cell, parts in doomed.items():
            kept += _adopt_cell(agreement, cell, parts)
    except (UserError, OSError) as error:
        print(f"note: finished results are not kept: {error}", flush=True)
    if kept:
        print(f"note: {counted(kept, 'finished result', 'are')} up to date; put back, not made again", flush=True)
    return kept


def forced(dag: Any, settings: Any, jobs: Iterable[Any]) -> list[Any]:
    """Return the jobs that somebody wants done again whatever is there: with --forcerun, --force or --forceall.

    Snakemake itself calls forced also what was at work when a driver was killed: its outputs may be incomplete. That
    is nobody's wish, and such a job may have finished since.

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
    """Remove the kept results of jobs that somebody forced: they are to be made again."""
    for job in jobs:
        if job.rule.name in JOBS:
            wildcards = job.wildcards
            cell = Cell(study, wildcards.parameterization, wildcards.scale, int(wildcards.seed))
            shutil.rmtree(
                cell.folder / "kept" / JOBS[job.rule.name].format(**dict(wildcards.items())), ignore_errors=True
            )


def _adopt_cell(agreement: "Agreement", cell: Cell, doomed: set[tuple[str, int]]) -> int:
    from targetwise.versioning.agreement import SAMPLES, TRAINING, Facts, parts, read_facts, require_whole

    kept = 0
    before: dict[tuple[str, int], Facts] = {}
    for part in parts(agreement.config, cell):
        if part.kind not in (TRAINING, SAMPLES):
            continue
        try:
            require_whole(part)
            facts = read_facts(part.facts, part.kind)
        except UserError:
            continue
        if not agreement.holds(cell, part, facts, before):
            continue
        before[part.kind, part.draw] = facts
        if (part.kind, part.draw) not in doomed:
            continue
        if "key" in facts:  # a training by somebody's own rule records none
            rule = "train" if part.kind == TRAINING else "sample"
            job = JOBS[rule].format(sampler=part.facts.parent.name, draw=part.draw)
            Kept(cell.folder / "kept" / job, facts["key"], [*part.others, part.facts]).adopt()
            kept += 1
    return kept
