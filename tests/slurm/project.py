"""A project in a folder of its own, as a clone of the working tree would be, with its driver and its commands."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from cluster import Cluster
from helpers import ROOT, copy_working_tree

from targetwise.files import read_json
from targetwise.training.stopping import Stop

#: The partition's name, and GPUs that one node of the tests has: what a person writes into the profile.
OWN_LINES = {"slurm_partition: gpu": "slurm_partition: batch", "dict(large=4)": "dict(large=2)"}

TINY = {
    "study": "cluster",
    "scales": {
        "tiny": {"width": 16, "layers": 1},
        "large": {"channels": [32, 32], "attention": [], "layers_per_block": 1},
    },
    "grid": {"parameterizations": ["epsilon"], "scales": ["tiny"], "seeds": [0]},
    "training": {"steps": 12, "global_batch": 16, "log_every": 4},
    "sampling": {"steps": 4, "images": 48, "batch": 48},
    "bounds": False,
}

#: v that takes its time in a job from the sixth step on, while there is a file hold/NAME: to be met halfway.
HELD = '''

import os
import time
from pathlib import Path

_steps = 0
_v = compute_training_target


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return v's target, after a while."""
    global _steps
    _steps += 1
    if "SLURM_JOB_ID" in os.environ and _steps > 5 and Path("hold/NAME").exists():
        time.sleep(0.25)
    return _v(x_0, noise, timesteps, schedule)
'''

#: v that hangs in its tenth step in a job, deaf to signals, while there is a file hold/NAME.
HANGING = HELD.replace('if "SLURM', 'while "SLURM').replace("_steps > 5", "_steps == 10")

BROKEN = '''

import os

_v = compute_training_target


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return v's target, but not in a job."""
    if "SLURM_JOB_ID" in os.environ:
        raise RuntimeError("this cell always fails")
    return _v(x_0, noise, timesteps, schedule)
'''


#: What the README tells people to type on a cluster, without `snakemake` and the target.
README_OPTIONS = re.search(r"^snakemake (--profile .*) all\b", (ROOT / "README.md").read_text(), re.MULTILINE)[
    1
].split()

#: The first look at jobs after one second; the profile's forty suit jobs of hours.
QUICK = ("--slurm-init-seconds-before-status-checks", "1")


class Project:
    """A copy of the working tree, as a clone of it would be, with the profile's marked lines filled in."""

    def __init__(self, folder: Path, cluster: Cluster | None, data: Path | None = None) -> None:
        self.folder, self.cluster = folder, cluster
        copy_working_tree(folder)
        if data:
            shutil.copytree(data, folder / "data")
        for before, after in OWN_LINES.items():
            self.edit_profile(before, after)
        self._take_the_cpu_for_a_gpu()

    @property
    def environment(self) -> dict[str, str]:
        environment = dict(self.cluster.environment if self.cluster else os.environ)
        environment.pop("MLFLOW_TRACKING_URI", None)
        return {**environment, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}

    def _take_the_cpu_for_a_gpu(self) -> None:
        """Let every job go on without a GPU: those of the tests' cluster are empty files."""
        path = self.folder / "src/targetwise/compute/device.py"
        demand = "if not torch.cuda.is_available():\n        why"
        assert demand in path.read_text()
        path.write_text(path.read_text().replace(demand, demand.replace("not torch", "False and torch")))

    def configure(self, **changes) -> None:
        """Write study.yaml: the tiny study with ``changes`` laid over it."""
        (self.folder / "study.yaml").write_text(json.dumps({**TINY, **changes}))

    def edit_profile(self, before: str, after: str) -> None:
        path = self.folder / "slurm/config.v9+.yaml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def hold(self, name: str) -> Path:
        """Add the parameterization ``name`` that can be met halfway; return the file that holds it."""
        return self._held(name, HELD)

    def hang(self, name: str) -> Path:
        """Add the parameterization ``name`` that hangs; return the file that holds it."""
        return self._held(name, HANGING)

    def add_broken(self, name: str) -> None:
        """Add the parameterization ``name`` whose training fails in every job."""
        self._variant_of_v(name, BROKEN)

    def _held(self, name: str, more: str) -> Path:
        path = self.folder / "hold" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        self._variant_of_v(name, more.replace("NAME", name))
        return path

    def _variant_of_v(self, name: str, more: str) -> None:
        parameterizations = self.folder / "workflow/parameterizations"
        (parameterizations / f"{name}.py").write_text((parameterizations / "v.py").read_text() + more)

    def command(self, *options: str, targets: list[str]) -> list[str]:
        return ["snakemake", *options, "--configfile", "config/digits.yaml", "study.yaml", "--", *targets]

    def snakemake(self, *options: str, targets: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options, targets=targets),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def start(self, *options: str, targets: list[str]) -> subprocess.Popen[bytes]:
        """Start `snakemake --profile slurm` and return it; what it prints goes to driver.log."""
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                self.command(*README_OPTIONS, *QUICK, *options, targets=targets),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def targetwise(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of our own commands on this study."""
        return subprocess.run(
            ["targetwise", *arguments, "--configfile", "config/digits.yaml", "study.yaml"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @property
    def log(self) -> str:
        """Return what the drivers have printed."""
        return (self.folder / "driver.log").read_text()

    def cell(self, parameterization: str, scale: str = "tiny", seed: int = 0) -> Path:
        return self.folder / f"results/cluster/{parameterization}/{scale}/seed{seed}"

    def jobs(self, rule: str = "", cell: str = "") -> list[dict[str, str]]:
        """Return SLURM's records of this project's jobs, oldest first: of a rule or group, of a parameterization."""
        found = [job for job in self.cluster.jobs().values() if job["WorkDir"] == str(self.folder)]
        # The plugin writes rule and wildcards as the job's comment.
        found = [job for job in found if job["Comment"].startswith(f"rule_{rule}") and f"_{cell}" in job["Comment"]]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def uninterrupted(self, cell: Path, tmp_path: Path) -> str:
        """Train the cell here in one go and return the digest of its weights."""
        from targetwise.data import store
        from targetwise.training.loop import train

        before = Path.cwd()
        os.chdir(self.folder)
        try:
            images = store.load(Path("data/digits"), "train")
            outcome = train(read_json(cell / "cell.json"), images, tmp_path, save_every_seconds=1e9, stop=Stop())
        finally:
            os.chdir(before)
        return outcome["model_sha256"]


def eventually(condition, what: str, seconds: float = 300):
    """Wait until ``condition()`` is true and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"after {seconds} s still not: {what}")
