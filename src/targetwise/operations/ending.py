"""The end of a run that failed: what is there already is saved, and the last words say why and what to type."""

import atexit
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from targetwise.operations.logs import Words
from targetwise.operations.status import RESUMABLE, tail

#: Failed jobs that are named one by one.
SHOWN = 5


def after_failure(study: str, failed: Iterable[Any]) -> None:
    """Leave a partial table, record the finished cells in DVC, and say last of all what failed and how to go on.

    Args:
        study: its name.
        failed: Snakemake's jobs and groups of jobs that failed.
    """
    specification = f"results/{study}/study.json"
    partial = f"results/{study}/table.partial.csv"
    subprocess.run([sys.executable, "-m", "targetwise", "table", "--configfile", specification, "--output", partial])
    jobs = [job for each in failed for job in getattr(each, "jobs", [each])]
    found = [reason for reason in map(reason_of, jobs) if reason]
    if any(not words.startswith(RESUMABLE) for _, words in found):
        # Those that were only interrupted come back to this, and whoever pressed Ctrl-C does not want to wait.
        subprocess.run([sys.executable, "workflow/scripts/version.py", "--study", specification, "--finished"])
    atexit.register(print, "\n".join(last_words(found)), file=sys.stderr)


def reason_of(job: Any) -> tuple[str, str] | None:
    """Return which of Snakemake's jobs failed and why, as the job's own log has it; None if it has finished."""
    if all(Path(output).exists() for output in job.output):
        return None  # of a group, in which another one failed
    logs = [Path(log) for log in job.log if Path(log).exists()]
    words = next(filter(None, (Words.of(tail(log)).remark for log in logs)), "ended silently; was it killed?")
    name = " ".join([job.rule.name, *map(str, job.wildcards)])
    return f"{name} ({logs[0]})" if logs else name, words.removeprefix("error: ")


def last_words(found: list[tuple[str, str]]) -> list[str]:
    """Return a line for each failed job, up to :data:`SHOWN`, and one with what to type."""
    lines = [f"failed: {name}: {words}" for name, words in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"failed: {len(found) - SHOWN} more")
    first = "when that is done, " if any("delete it" in words for _, words in found) else ""
    return [*lines, f"{first}the same command goes on: {command()}"]


def command() -> str:
    """Return what was typed: Snakemake itself, or what called it."""
    if "DVC_STAGE" in os.environ:
        return f"dvc repro {os.environ['DVC_STAGE']}"
    return os.environ.get("TARGETWISE_COMMAND") or shlex.join(["snakemake", *sys.argv[1:]])
