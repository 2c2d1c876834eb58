"""Where and with what a number was made: versions, machine, code."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from targetwise.files import sha256_of_file, sha256_of_json
from targetwise.recipe.kinds import WORKFLOW

PACKAGES = (
    "targetwise",
    "torch",
    "torchvision",
    "diffusers",
    "clean-fid",
    "numpy",
    "scipy",
    "snakemake",
    "mlflow",
    "dvc",
)

#: Files that a run itself changes; they do not make the tree "modified".
RECORDS = ("dvc.lock",)


@cache
def environment() -> dict[str, Any]:
    """Return versions, machine and commit of this process, as plain JSON values."""
    return {"versions": versions(), "machine": machine(), "code": code()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what this process runs on."""
    import torch

    from targetwise.compute.device import usable_cores

    facts: dict[str, Any] = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        # A model's name can be a virtual machine's; which kernels run decides the last bits.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["gpus"] = torch.cuda.device_count()
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()
    return facts


def code() -> dict[str, Any]:
    """Return the git commit and whether tracked files differ from it; both None where git does not track them."""
    # An unpacked archive may lie in somebody else's repository, whose commit says nothing about it.
    if _git("ls-files", "--error-unmatch", "config.yaml") is None:
        return {"commit": None, "modified": None}
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no", ".", *(f":(exclude){name}" for name in RECORDS))
    if commit is None or status is None:
        return {"commit": None, "modified": None}
    return {"commit": commit, "modified": bool(status)}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_sha256() -> str:
    """Return the digest of everything that runs: this package, and ``workflow/``."""
    files = {
        str(path.relative_to(root)): sha256_of_file(path)
        for root in (Path(__file__).parent, WORKFLOW)
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sha256_of_json(files)
