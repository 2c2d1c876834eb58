"""How a job starts its script on the GPUs it was given, and how much time it may use."""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from targetwise.errors import UserError

#: At most so many seconds of a job's time are kept free for the last save, and at most so large a part of it.
MARGIN_SECONDS, MARGIN_SHARE = 120, 0.2

ANSWER_SECONDS = 30

#: Where the processes of one job meet; the job's number keeps jobs apart that share a node.
MEETING_PORT = "$((20000 + SLURM_JOB_ID % 20000))"


def launcher(resources: Mapping[str, Any]) -> str:
    """Return what starts a script on a job's GPUs: ``python``, or ``torchrun`` on one node or on several.

    Args:
        resources: the job's, as the profile gives them: ``gpu`` per job, or ``nodes`` and ``gres: "gpu:4"`` per node.
            None of them, as on a workstation, is one process.
    """
    processes = gpus_per_node(resources)
    nodes = int(resources.get("nodes") or 1)
    if nodes > 1:
        # Only inside the tasks is it known which node is the first one, so each task's shell looks it up.
        return (
            f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --gres=gpu:{processes} bash -c 'exec torchrun"
            f' --nnodes={nodes} --nproc-per-node={processes} --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID"'
            f' --rdzv-endpoint="$SLURM_LAUNCH_NODE_IPADDR:{MEETING_PORT}" "$@"\' torchrun'
        )
    if processes > 1:
        return f"torchrun --standalone --nproc-per-node={processes}"
    return "python"


def gpu_demand(resources: Mapping[str, Any]) -> str:
    """Return the option that makes a script refuse to compute on the CPU; none where no GPU was asked for."""
    return "--gpu" if gpus_per_node(resources) else ""


def time_budget(resources: Mapping[str, Any]) -> str:
    """Return the options that make training stop before its job is ended; none where there is no time limit."""
    minutes = resources.get("runtime")
    if not isinstance(minutes, int) or minutes <= 0:
        return ""
    seconds = 60 * minutes
    return f"--time-budget {seconds} --margin {min(MARGIN_SECONDS, seconds * MARGIN_SHARE):.0f}"


def seconds_used() -> float:
    """Return for how long the job that this process belongs to has run; 0 outside a job.

    A job starts Snakemake and a step before its script, which takes a while on a busy node. If SLURM does not say,
    the job is taken to begin now: a last save that comes too late costs the work since the one before it, no more.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return 0.0
    try:
        used = ask("squeue", "--noheader", f"--jobs={job}", "--format=%M").strip()
    except UserError:
        return 0.0
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", used)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)


def gpus_per_node(resources: Mapping[str, Any]) -> int:
    """Return the number of GPUs that a job gets on each of its nodes."""
    named = re.fullmatch(r"gpu:(?:[^:]+:)?(\d+)", str(resources.get("gres") or ""))
    return int(named[1]) if named else int(resources.get("gpu") or 0)


def ask(*command: str) -> str:
    """Return what one of SLURM's commands prints.

    Raises:
        UserError: if it is not here, or SLURM does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except FileNotFoundError:
        raise UserError(
            f"SLURM's command {command[0]} is not on this machine; run this on a login node of the cluster, or "
            "without `--profile slurm`"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"SLURM does not answer: `{command[0]}` took over {ANSWER_SECONDS} s; try again later"
        ) from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"SLURM does not answer: `{command[0]}` says '{words}'; try again later")
    return done.stdout
