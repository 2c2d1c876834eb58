"""What a SLURM cluster has, what a profile asks of it, and the first thing that does not fit."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from targetwise.cluster.slurm import ask, gpus_per_node
from targetwise.errors import UserError, nearest
from targetwise.recipe.schema import read_yaml

#: The names under which Snakemake finds a profile's file in its folder, best first.
PROFILE_FILES = ("config.v9+.yaml", "config.v8+.yaml", "config.yaml")

MINUTES = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440, "w": 10080}
MEGABYTES = {"": 1e-6, "k": 1e-3, "m": 1, "g": 1e3, "t": 1e6}


@dataclass
class Partition:
    """A partition as ``sinfo`` shows it."""

    up: bool = True
    minutes: float = float("inf")
    memory_mb: float = 0
    #: The largest number on one node, by type ("" where the cluster names none).
    gpus: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What the jobs of one rule ask for at one scale, and the profile's key that says so, by resource."""

    resources: Mapping[str, Any]
    keys: Mapping[str, str]


def partitions() -> dict[str, Partition]:
    """Return the cluster's partitions by name."""
    found: dict[str, Partition] = {}
    for line in ask("sinfo", "--noheader", "--format=%R|%a|%l|%m|%G").splitlines():
        name, state, limit, memory, gres = line.split("|", 4)
        partition = found.setdefault(name, Partition())
        partition.up = state == "up"
        partition.minutes = _minutes_of_limit(limit)
        partition.memory_mb = max(partition.memory_mb, float(memory.rstrip("+")))
        for model, count in re.findall(r"gpu:(?:([^:,()]+):)?(\d+)", gres):
            partition.gpus[model] = max(partition.gpus.get(model, 0), int(count))
    return found


def profile_file(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    """Return the file of the profile that a Snakemake command line names; None if it is outside the project."""
    name = environment.get("SNAKEMAKE_PROFILE", "")
    for index, argument in enumerate(arguments):
        if argument.startswith("--profile="):
            name = argument.partition("=")[2]
        elif argument == "--profile" and index + 1 < len(arguments):
            name = arguments[index + 1]
    files = [Path(name) / file for file in PROFILE_FILES] if name else []
    return next((path for path in files if path.exists()), None)


def requests(profile: Mapping[str, Any], scales: Sequence[str]) -> Iterator[Request]:
    """Yield what the jobs of each rule that the profile names ask for, at each scale."""
    default = profile.get("default-resources") or {}
    rules = profile.get("set-resources") or {}
    for (rule, own), scale in product({None: {}, **rules}.items(), scales):
        keys = {name: f"default-resources.{name}" for name in default}
        keys |= {name: f"set-resources.{rule}.{name}" for name in own or {}}
        if "mem_mb" in (own or {}):
            keys.pop("mem", None)
        values = {name: _evaluated((own or {}).get(name, default.get(name)), scale) for name in keys}
        yield Request(values, keys)


def problems(profile: Mapping[str, Any], scales: Sequence[str], cluster: Mapping[str, Partition]) -> list[str]:
    """Return what the profile asks for and the cluster does not have, one line each, most basic first."""
    found: dict[str, None] = {}
    for request in requests(profile, scales):
        for problem in _problems(request, cluster):
            found[problem] = None
    return list(found)


def require_fit(path: Path | None, scales: Sequence[str]) -> None:
    """Make sure, before anything is submitted, that SLURM answers and has what the profile asks for.

    Args:
        path: the profile's file; None, if it is not in the project, leaves it to SLURM to refuse.
        scales: the grid's.

    Raises:
        UserError: naming file, key, value and what would be right.
    """
    cluster = partitions()
    found = problems(read_yaml(path), scales, cluster) if path else []
    if found:
        more = f" ({len(found) - 1} more; `targetwise doctor` lists them)" if len(found) > 1 else ""
        raise UserError(f"{path}: {found[0]}{more}; nothing was submitted")


def _problems(request: Request, cluster: Mapping[str, Partition]) -> Iterator[str]:
    asked, keys = request.resources, request.keys
    name = asked.get("slurm_partition")
    if name is None:
        return  # the cluster's default, which the plugin looks up
    if name not in cluster:
        yield f"{keys['slurm_partition']} is '{name}', but there is no such partition; {nearest(name, cluster)}"
        return
    partition = cluster[name]
    if not partition.up:
        yield f"{keys['slurm_partition']} is '{name}', but that partition is down; take another, or wait"
    if (minutes := _minutes(asked.get("runtime"))) and minutes > partition.minutes:
        yield (
            f"{keys['runtime']} is {minutes / 60:g}h, but partition {name} allows at most "
            f"{partition.minutes / 60:g}h; a training longer than its job goes on in the next one"
        )
    model = str(asked.get("gpu_model") or "")
    if model and model not in partition.gpus:
        types = [known for known in partition.gpus if known]
        hint = nearest(model, types) if types else "its GPUs have no type; leave the key out"
        yield f"{keys['gpu_model']} is '{model}', but partition {name} has no such GPU; {hint}"
    else:
        count = gpus_per_node(asked)
        most = partition.gpus.get(model, 0) if model else max(partition.gpus.values(), default=0)
        if count > most:
            key = keys.get("gres") or keys.get("gpu", "gpu")
            has = f"at most {most} on a node" if most else "none"
            yield f"{key} is {count}, but partition {name} has {has}"
    size = next((key for key in ("mem_mb", "mem") if key in keys), None)
    if size and (wanted := _megabytes(asked[size])) and wanted > partition.memory_mb:
        yield f"{keys[size]} is {wanted:.0f} MB, but a node of partition {name} has {partition.memory_mb:.0f} MB"


def _evaluated(value: Any, scale: str) -> Any:
    """Return what Snakemake makes of a profile's value: an expression's value; None if it cannot be known."""
    if not isinstance(value, str):
        return value
    text = os.path.expandvars(value)
    try:
        return eval(text, {"wildcards": SimpleNamespace(scale=scale), "attempt": 1})  # noqa: S307 (as Snakemake does)
    except (NameError, SyntaxError):
        return text  # plain words, as Snakemake takes them
    except Exception:
        return None  # it depends on more than the scale


def _minutes(value: Any) -> float:
    """Return the minutes of ``90``, ``"8h"`` or ``"1d 12h"``; 0 if it cannot be read."""
    if isinstance(value, str) and not value.strip().isdecimal():
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhdw])[a-z]*,?\s*|(.)", value.lower())
        return 0 if any(rest for *_, rest in parts) else sum(float(n) * MINUTES[unit] for n, unit, _ in parts)
    return float(value or 0)


def _megabytes(value: Any) -> float:
    """Return the MB of ``32000``, ``"32GB"`` or ``"500 MB"``; 0 if it cannot be read."""
    if isinstance(value, str) and not value.strip().isdecimal():
        read = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?(?:ytes)?", value.strip().lower())
        return float(read[1]) * MEGABYTES[read[2]] if read else 0
    return float(value or 0)


def _minutes_of_limit(text: str) -> float:
    """Return the minutes of ``1-12:00:00``, ``30:00`` or ``infinite``."""
    if text in ("infinite", "UNLIMITED", "n/a"):
        return float("inf")
    days, _, clock = text.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 1440 + seconds / 60
