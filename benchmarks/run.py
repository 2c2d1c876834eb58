"""Measure the project's loops against others on this machine, and write benchmarks/results/<device>.json.

    python benchmarks/run.py --device cpu                       everything, half an hour or more on two cores
    python benchmarks/run.py --device cuda --only train         one section again; the record keeps the others
    python benchmarks/run.py --pairs 1 --steps 2 --output /tmp  whether it works; the numbers mean nothing

The sections are train, sample, metric, switches and host. Run it in the project's root, with nothing else on the
machine.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from plan import Plan, plan_for, use_threads, with_choice
from sections import SECTIONS, release
from timing import FORMATS, peaks

from targetwise import errors
from targetwise.compute.device import choose, keep_compiled_in
from targetwise.errors import UserError, nearest
from targetwise.files import write_json
from targetwise.operations.rates import FORMAT, RECORDS, read_record
from targetwise.provenance import code, machine, versions

OTHERS = ("accelerate", "denoising-diffusion-pytorch")


def main() -> None:
    """Measure the sections asked for, and save the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default=",".join(SECTIONS), metavar="SECTION,…")
    parser.add_argument("--pairs", type=int, metavar="N", help="of runs, of every comparison")
    parser.add_argument("--steps", type=int, metavar="N", help="of a training run, and of the sampler")
    parser.add_argument("--output", type=Path, default=RECORDS, metavar="FOLDER", help="of the record")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"--only names '{name}'; {nearest(name, SECTIONS)}")
    sizes = {"pairs": arguments.pairs, "steps": arguments.steps, "sampling_steps": arguments.steps}
    given = {name: value for name, value in sizes.items() if value is not None}
    if any(value < 1 for value in given.values()):
        raise UserError("--pairs and --steps must be at least 1")
    if not Path("config.yaml").exists():
        raise UserError("config.yaml does not exist; run this in the project's root")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU here; `targetwise doctor` says why, --device cpu measures the CPU")
    cores = use_threads()
    with tempfile.TemporaryDirectory() as scratch:
        begin(Path(scratch), arguments.device)
        device = choose(cores) if arguments.device == "cuda" else torch.device("cpu")
        plan = replace(plan_for(device), **given)
        if {"train", "sample", "switches"} & set(names):
            plan = with_choice(plan, cores)
        print(measure(plan, names, cores, arguments.output))


def begin(scratch: Path, kind: str) -> None:
    """Set what must be set before PyTorch compiles or multiplies anything."""
    # Each network is compiled for its own shapes, as in a run of its own, however many this process has seen.
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # An empty cache, so that the first run tells what compiling costs.
    keep_compiled_in(scratch / "compiled")
    if kind == "cuda":
        # cuBLAS reads this once, before the run that is deterministic; it is what PyTorch takes on large GPUs anyway.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def measure(plan: Plan, names: list[str], cores: int, folder: Path) -> Path:
    """Measure some sections and return the record's path.

    Args:
        plan: sizes.
        names: of :data:`SECTIONS`.
        cores: that PyTorch uses.
        folder: of the records; one of this device that is there keeps its other sections.
    """
    about = machine()
    name = about["gpu"] if plan.device.type == "cuda" else f"{about['cpu']}, {cores} cores, {about['instructions']}"
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    new: dict[str, Any] = {"format": FORMAT, "kind": plan.device.type, "name": name, "sections": {}}
    record = read_record(path) if path.exists() else new
    source = code()  # before the record changes, which is part of the tree
    for section in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            conditions = {**_conditions(cores, about), "code": source}
            if section != "host":  # the parts of the host have bounds of their own
                conditions["peaks"] = peaks(plan.device, _formats(plan), plan.matrix, plan.copied)
            found = SECTIONS[section](plan, Path(scratch), cores)
        release()
        record["sections"][section] = {**conditions, **found, "seconds": time.monotonic() - began}
        record["measured_at"] = conditions["measured_at"]
        write_json(path, record)
        print(f"{section}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return path


def _formats(plan: Plan) -> Sequence[str]:
    """Return the number formats whose peak is worth knowing: on a CPU, one that is slow takes minutes to say so."""
    return [each for each in FORMATS if plan.device.type == "cuda" or each in ("fp32", *plan.formats)]


def _conditions(cores: int, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a section was measured with."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {key: value for key, value in about.items() if key != "host"},
        "versions": {**versions(), **_versions_of_others()},
        "cores": cores,
    }


def _versions_of_others() -> dict[str, str]:
    found = {}
    for package in OTHERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    errors.run(main)
