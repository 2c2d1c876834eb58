"""SLURM: how a job is started on what it was given, and whether the cluster has what the profile asks for."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from targetwise.errors import UserError, nearest

#: At most so many seconds of a job's time are kept free for the last save, and at most so large a part of it.
MARGIN_SECONDS, MARGIN_SHARE = 120, 0.2

PROFILE_FILES = ("config.v9+.yaml", "config.v8+.yaml", "config.yaml")

ANSWER_SECONDS = 30

#: A node's port for the processes of one job to meet at; the job's number spreads jobs that share a node.
MEETING_PORT = "$((20000 + SLURM_JOB_ID % 20000))"


def launcher(resources: Mapping[str, Any]) -> str:
    """Return what starts a script on a job's GPUs: ``python``, or ``torchrun`` on one node or several."""
    per_node = _gpus_per_node(resources)
    nodes = int(resources.get("nodes") or 1)
    if nodes > 1:
        # Only inside the tasks is it known which node is the first one, so each task's shell looks it up.
        return (
            f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --gres=gpu:{per_node} bash -c 'exec torchrun"
            f' --nnodes={nodes} --nproc-per-node={per_node} --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID"'
            f' --rdzv-endpoint="$SLURM_LAUNCH_NODE_IPADDR:{MEETING_PORT}" "$@"\' torchrun'
        )
    if per_node > 1:
        return f"torchrun --standalone --nproc-per-node={per_node}"
    return "python"


def time_budget(resources: Mapping[str, Any]) -> str:
    """Return the options that make training stop before its job is ended; none where no time limit is known."""
    minutes = resources.get("runtime")
    if not isinstance(minutes, int) or minutes <= 0:
        return ""
    seconds = 60 * minutes
    return f"--time-budget {seconds} --margin {min(MARGIN_SECONDS, seconds * MARGIN_SHARE):.0f}"


def _gpus_per_node(resources: Mapping[str, Any]) -> int:
    named = re.search(r"gpu(?::[^:,]*[^:,\d][^:,]*)?:(\d+)", str(resources.get("gres") or ""))
    return int(named[1]) if named else int(resources.get("gpu") or 0)
