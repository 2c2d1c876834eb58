"""Whether this machine and its cluster can run a study: one line a finding, with a remedy if something is wrong."""

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from targetwise.cluster import preflight
from targetwise.errors import UserError, require
from targetwise.files import sha256_of_file
from targetwise.operations import disk
from targetwise.recipe.schema import read_yaml

#: File systems of one machine alone, which compute nodes do not see.
LOCAL_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs")
#: On these SQLite's locks cannot be relied on.
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.sshfs")

#: squeue forgets an ended job after MinJobAge seconds; the driver may ask as seldom as every 180.
LEAST_JOB_AGE = 180

ANSWER_SECONDS = 30


@dataclass(frozen=True)
class Finding:
    """``ok``, ``note`` (worth knowing) or ``wrong`` (fix it first), about what, in words with the remedy."""

    state: str
    what: str
    words: str


def examine(config: Mapping[str, Any], profile: Path) -> Iterator[Finding]:
    """Yield the findings, cheapest first; each is asked for only when it is taken.

    Args:
        config: the study.
        profile: the folder of the Snakemake profile that would be used.
    """
    parts: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("SLURM", lambda: _slurm(config, profile)),
        ("folder", _folder),
        ("disk", lambda: _disk(config)),
        ("MLflow", lambda: _mlflow(config)),
        ("DVC", _dvc),
        ("data", lambda: _data(config)),
        ("weights", lambda: _weights(config)),
        ("torch", _torch),
        ("compiling", lambda: _compiling(config)),
    )
    for what, part in parts:
        try:
            yield from part()
        except UserError as error:
            yield Finding("wrong", what, str(error))


def _slurm(config: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    if shutil.which("sinfo") is None:
        yield Finding("note", "SLURM", "its commands are not on this machine; only `--profile slurm` needs them")
        return
    found = preflight.partitions()
    yield Finding("ok", "SLURM", f"answers; partitions: {', '.join(sorted(found)) or 'none'}")
    path = preflight.profile_file(["--profile", str(folder)], {})
    if path is None:
        yield Finding(
            "wrong", "profile", f"there is no {folder}/{preflight.PROFILE_FILES[0]}; name one with --profile"
        )
        return
    profile = read_yaml(path)
    yield _status_command(profile, path)
    problems = preflight.problems(profile, config["grid"]["scales"], found)
    for problem in problems:
        yield Finding("wrong", "profile", f"{path}: {problem}")
    if not problems:
        yield Finding("ok", "profile", f"{path}: partition, GPUs, memory and time fit for every rule and scale")


def _status_command(profile: Mapping[str, Any], path: Path) -> Finding:
    """Return whether the profile's status command fits: without accounting sacct knows nothing, and no run ends."""
    settings = dict(re.findall(r"^(\w+) *= (.*)$", preflight.ask("scontrol", "show", "config"), re.MULTILINE))
    storage = settings.get("AccountingStorageType", "").strip()
    has_accounting = storage not in ("", "(null)", "accounting_storage/none")
    chosen = profile.get("slurm-status-command", "sacct")
    age = re.match(r"\d+", settings.get("MinJobAge", "").strip())
    if not has_accounting and chosen != "squeue":
        return Finding(
            "wrong", "accounting", f"there is none; set slurm-status-command: squeue in {path}, or the run never ends"
        )
    if has_accounting and chosen == "squeue":
        return Finding(
            "ok", "accounting", f"there is some; slurm-status-command: sacct in {path} is safer, squeue will do"
        )
    if not has_accounting and age and int(age[0]) < LEAST_JOB_AGE:
        return Finding(
            "wrong",
            "accounting",
            f"there is none, and squeue forgets a job {age[0]} s after its end (MinJobAge): a driver may miss it; "
            f"ask the administrators for {LEAST_JOB_AGE} s or more",
        )
    return Finding("ok", "accounting", f"{'there is some' if has_accounting else 'there is none'}; {chosen} will do")


def _folder() -> Iterator[Finding]:
    here = Path.cwd()
    trial = Path(f".targetwise-doctor.{socket.gethostname()}.{os.getpid()}")
    try:
        trial.write_text("")
    except OSError as error:
        yield Finding("wrong", "folder", f"{here} cannot be written: {error.strerror}; work in a folder of your own")
        return
    finally:
        trial.unlink(missing_ok=True)
    kind = _file_system(here)
    if kind in LOCAL_FILE_SYSTEMS and shutil.which("sinfo"):
        yield Finding(
            "note",
            "folder",
            f"{here} can be written, but is on {kind}, which other machines rarely see; the jobs need a folder "
            "that the compute nodes share",
        )
    else:
        yield Finding("ok", "folder", f"{here} can be written ({kind or 'unknown file system'})")


def _disk(config: Mapping[str, Any]) -> Iterator[Finding]:
    shapes = disk.image_shapes(config)
    if shapes is None:
        yield Finding("note", "disk", "the need is known once the data set is prepared")
        return
    need, free = disk.disk(config, shapes).total, shutil.disk_usage(Path.cwd()).free
    words = f"the grid needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    yield Finding("ok", "disk", words) if need < free else Finding("wrong", "disk", f"{words}; free some, or move")


def _mlflow(config: Mapping[str, Any]) -> Iterator[Finding]:
    uri = (config.get("tracking") or {}).get("uri")
    if not uri:
        kind = _file_system(Path.cwd())
        if kind in NETWORK_FILE_SYSTEMS:
            yield Finding(
                "note",
                "MLflow",
                f"mlflow.db would be on {kind}, where two writers can damage SQLite; one run at a time, or "
                "set tracking.uri to a server (it can be made again: targetwise track)",
            )
        else:
            yield Finding("ok", "MLflow", "mlflow.db here")
        return
    address = urlsplit(uri)
    if address.scheme not in ("http", "https"):
        yield Finding("ok", "MLflow", uri)
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError as error:
        yield Finding(
            "wrong", "MLflow", f"tracking.uri {uri} does not answer ({error}); start the server, or leave it out"
        )
    else:
        yield Finding("ok", "MLflow", f"{uri} answers")


def _dvc() -> Iterator[Finding]:
    if not Path(".dvc").is_dir():
        yield Finding("note", "DVC", "this folder is not a DVC repository; results are not versioned")
        return
    require("dvc")
    try:
        command = [sys.executable, "-m", "dvc", "remote", "list"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        yield Finding("wrong", "DVC", f"`dvc remote list` does not answer ({error})")
        return
    remotes = done.stdout.split()
    if done.returncode or not remotes:
        yield Finding(
            "note", "DVC", "no remote: `dvc remote add -d NAME PATH` makes `dvc push` keep results elsewhere"
        )
    else:
        yield Finding("ok", "DVC", f"remote {remotes[0]}")


def _data(config: Mapping[str, Any]) -> Iterator[Finding]:
    from targetwise.files import read_json

    folder = Path("data") / config["data"]["dataset"]
    manifest, images = folder / "manifest.json", folder / "dataset.npz"
    make = f"`snakemake --cores 1 -- {images}` fetches it; do so where there is a network"
    if not manifest.exists() or not images.exists():
        yield Finding("note", "data", f"{folder} is not there yet; {make}")
    elif sha256_of_file(images) != read_json(manifest)["file_sha256"]:
        yield Finding("wrong", "data", f"{images} is not the file that {manifest} describes; delete it, then {make}")
    else:
        yield Finding("ok", "data", f"{images} has the digest of its manifest")


def _weights(config: Mapping[str, Any]) -> Iterator[Finding]:
    if config["metric"]["extractor"] not in config["weights"]:
        yield Finding("ok", "weights", f"the extractor {config['metric']['extractor']} needs none from outside")
        return
    from targetwise.metric import inception

    if not inception.WEIGHTS.exists():
        make = f"`snakemake --cores 1 -- {inception.WEIGHTS}` fetches them; do so where there is a network"
        yield Finding("note", "weights", f"{inception.WEIGHTS} is not there yet; {make}")
    elif sha256_of_file(inception.WEIGHTS) not in inception.FILES:
        yield Finding(
            "wrong", "weights", f"{inception.WEIGHTS} has an unknown digest; delete it; it is then fetched again"
        )
    else:
        yield Finding("ok", "weights", f"{inception.WEIGHTS} has a declared digest")


def _torch() -> Iterator[Finding]:
    import torch

    built = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'}"
    if torch.cuda.is_available():
        names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}))
        yield Finding("ok", "torch", f"{built}; sees {torch.cuda.device_count()} × {names}")
        return
    driver = _driver_version()
    if driver:
        yield Finding(
            "wrong",
            "torch",
            f"{built}, but it cannot use the driver {driver}; use a torch for an older CUDA, or a newer driver",
        )
    else:
        yield Finding(
            "note", "torch", f"{built}; no GPU on this machine (on a compute node: srun --gpus=1 targetwise doctor)"
        )


def _compiling(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Look for what Triton needs to build the launchers of its kernels, where Triton looks for it."""
    if not config["training"]["compile"]["cuda"]:
        return
    import torch

    header = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    missing = [] if compiler else ["a C compiler (gcc, or the one that CC names)"]
    missing += [] if header.exists() else [f"{header} (Debian's python3-dev)"]
    if not missing:
        yield Finding("ok", "compiling", f"{compiler} and Python.h are there")
        return
    yield Finding(
        "wrong" if torch.cuda.is_available() else "note",
        "compiling",
        f"training.compile needs {' and '.join(missing)} on a machine with a GPU; install what is missing there, or "
        "set training.compile.cuda: false",
    )


def _driver_version() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def _file_system(path: Path) -> str:
    """Return the type of the file system that ``path`` is on; empty where it cannot be known."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in mounts:
        _, place, found, *_ = line.split(" ")
        if path.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, found
    return kind
