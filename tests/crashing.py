"""A study that is killed again and again: who is hit, when, with what, and what it cost.

A round starts the study (or goes on with it), kills one of its processes, and types what a person would type: the
command that the message names, or else the same one. After the last round the study runs to its end.
"""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
from helpers import copy_working_tree

STUDY = ["--configfile", "config/digits.yaml"]
COMMAND = ["snakemake", "--cores", "2", *STUDY, "--", "all"]
CELLS = [Path(f"results/digits/{name}/tiny/seed1") for name in ("epsilon", "v")]
STEPS, BATCH = 60, 16

#: The demo, cut down to two cells that train for some seconds.
SMALL = [
    ("config.yaml", r"parameterizations: \[.*\]", "parameterizations: [epsilon, v]"),
    ("config.yaml", r"seeds: \[.*\]", "seeds: [1]"),
    ("config/digits.yaml", r"network: mlp, .*", "channels: [32, 32], attention: [], layers_per_block: 1}"),
    ("config/digits.yaml", r"  steps: \d+", f"  steps: {STEPS}"),
    ("config/digits.yaml", r"global_batch: \d+", f"global_batch: {BATCH}"),
    ("config/digits.yaml", r"images: \d+", "images: 96"),
    ("config/digits.yaml", r"batch: 128", "batch: 32"),
    ("config/digits.yaml", r"bounds: true", "bounds: false"),
    # Saving may take all the time: the interval of a second grows otherwise, and the bound below would not be one.
    ("src/targetwise/training/loop.py", r"SAVING_SHARE = .*", "SAVING_SHARE = 1.0"),
]

#: A step takes its time and leaves a line, when it is a training's.
TRACED = '''

import json
import os
import sys
import time
from pathlib import Path

_untraced = compute_training_target


def compute_training_target(x_0, noise, timesteps, schedule):
    """Return the target, after a while and a line in trace.jsonl."""
    if Path(sys.argv[0]).name == "train.py" and len(timesteps) == BATCH:
        time.sleep(0.1)
        line = {"cell": str(Path(sys.argv[2]).parent), "process": os.getpid(), "time": time.time()}
        with Path("trace.jsonl").open("a") as file:
            file.write(json.dumps({**line, "drawn": timesteps.tolist()}) + "\\n")
    return _untraced(x_0, noise, timesteps, schedule)
'''

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

#: Seconds that a kill waits for the stage it is aimed at: for long, and the study would be over before it.
PATIENCE = 10

#: What a study's processes do, beside the driver: a kill is aimed at one of them, or at the driver while it works.
ROLES = (
    *("check_parameterization", "train", "train", "train", "sample", "sample", "fid", "fid"),
    *("manifest", "aggregate", "report", "track", "version", "dvc"),
)


def prepare(project: Path) -> None:
    """Make a project whose data and reference are there, and nothing else."""
    copy_working_tree(project)
    for name, before, after in SMALL:
        text = (project / name).read_text()
        assert len(re.findall(before, text)) == 1, before
        (project / name).write_text(re.sub(before, after, text))
    for name in ("epsilon", "v"):
        trace_steps(project, name)
    done = run(project, "targetwise", "stages", *STUDY)
    assert done.returncode == 0, done.stdout
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "/trace.jsonl\n/driver.log\n")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
    ):
        subprocess.run(["git", *command], cwd=project, check=True)
    done = run(project, *COMMAND[:-1], "data/digits/reference/digits-fast-train.json")
    assert done.returncode == 0, done.stdout[-4000:]
    shutil.rmtree(project / ".snakemake")
    shutil.rmtree(project / "results")


def environment(project: Path) -> dict[str, str]:
    """Return the variables of a person's shell, with this project's code."""
    names = {"MLFLOW_TRACKING_URI", "SNAKEMAKE_PROFILE"}
    mine = {name: value for name, value in os.environ.items() if name not in names}
    return {**mine, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        cwd=project,
        env=environment(project),
        text=True,
        timeout=600,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def results(project: Path) -> dict[str, bytes]:
    """Return the content of all that must not depend on what was killed: weights, samples and tables."""
    found = [*project.glob("results/**/model.safetensors"), *project.glob("results/**/*.npz")]
    found += [project / "results/digits" / name for name in ("table.csv", "pairs.csv")]
    return {str(path.relative_to(project)): path.read_bytes() for path in sorted(found)}


def trace_steps(project: Path, name: str) -> None:
    """Let the trainings of a parameterization leave a trace."""
    path = project / f"workflow/parameterizations/{name}.py"
    path.write_text(path.read_text() + TRACED.replace("BATCH", str(BATCH)))


def trace(project: Path) -> list[dict]:
    """Return the steps that were taken, in the order of time; a line that a kill cut short is left out."""
    path, lines = project / "trace.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith("}") and line.startswith("{"):
            lines.append(json.loads(line))
    return lines


@dataclass
class Kill:
    """A process that was killed: what it did, the signal, and what was going on."""

    victim: str
    signal: str
    during: str


@dataclass
class Study:
    """One study, from nothing to its end."""

    project: Path
    random: random.Random
    save_every: float
    kills: list[Kill] = field(default_factory=list)

    def finish(self, kills: int) -> None:
        """Run the study with so many kills on the way, or fewer if it ends before."""
        command = COMMAND
        for _ in range(40 + 2 * kills):
            driver = self.start(command)
            # Up to three in a row: the other trainer too, or what a killed driver has left at work.
            for again in range(self.random.randint(1, 3)):
                if len(self.kills) < kills:
                    self._kill_somebody(driver, again=again > 0)
            driver.wait(timeout=300)
            if driver.returncode == 0:
                self.wait_for_orphans()
                return
            assert "LockException" not in self.words, self.words[-3000:]
            command = self.named_command() or COMMAND
        raise AssertionError(f"not done: {self.words[-3000:]}")

    def start(self, command: list[str]) -> subprocess.Popen:
        """Start the study, or go on with it; what the driver says goes to ``driver.log``."""
        with (self.project / "driver.log").open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.project,
                env=environment(self.project),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def words(self) -> str:
        """Return what the last driver said."""
        return (self.project / "driver.log").read_text(errors="replace")

    def named_command(self) -> list[str]:
        """Return the command that the last line of the last driver names; nothing if it had no last words."""
        found = re.search(r"the same command goes on: (.+)$", self.words.strip().rpartition("\n")[2])
        return shlex.split(found[1]) if found else []

    def _kill_somebody(self, driver: subprocess.Popen, *, again: bool) -> None:
        """Kill a random process of the study at a random moment; none, if the study ends before.

        Args:
            driver: that was started last; it may have been killed since.
            again: whether somebody was just killed: then the next is any process that is left, and soon.
        """
        if again:
            time.sleep(self.random.uniform(0, 2))
            self._kill(set(ROLES))
            return
        # A kill in four is aimed at a certain stage, if it comes soon; the others at whatever is at work first.
        roles = {self.random.choice(ROLES)} if self.random.random() < 0.25 else set(ROLES)
        delay, patience = self.random.uniform(0, 6), time.monotonic() + PATIENCE
        while driver.poll() is None and not roles & self.processes().keys():
            if time.monotonic() > patience:
                roles = set(ROLES)
            time.sleep(0.02)
        until, seen = time.monotonic() + delay, self._trace_size()
        if "train" in self.processes() and self.random.random() < 0.5:
            # Most of a short training is its start: half of the kills wait until steps are taken.
            patience = time.monotonic() + 2 * PATIENCE
            while driver.poll() is None and self._trace_size() == seen and time.monotonic() < patience:
                time.sleep(0.02)
            until = time.monotonic() + delay
        while driver.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if driver.poll() is None:
            self._kill(roles)

    def _trace_size(self) -> int:
        path = self.project / "trace.jsonl"
        return path.stat().st_size if path.exists() else 0

    def _kill(self, roles: set[str]) -> None:
        found = self.processes()
        if not found:
            return
        during = sorted(roles & found.keys()) or sorted(found)
        aims = [name for name in sorted(found) if any(role in name for role in during)]
        aim = self.random.choice([*(["driver"] if "driver" in found else []), *aims, *aims])
        victim, number = self.random.choice(found[aim]), self.random.choice(SIGNALS)
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            return
        self.kills.append(Kill(aim, signal.Signals(number).name, " and ".join(during)))

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the study's processes by what they do; orphans of killed drivers are among them."""
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.project) and process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(_role(process.cmdline()), []).append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait_for_orphans(self) -> None:
        """Wait until what a killed driver has left at work is done."""
        until = time.monotonic() + 120
        while self.processes() and time.monotonic() < until:
            time.sleep(0.1)
        assert not self.processes()


@dataclass
class Repeated:
    """Work that was done more than once: steps in all, and the worst at one kill, in seconds and as what may be."""

    steps: int = 0
    worst: float = 0.0
    allowed: float = 0.0

    def add(self, lines: list[dict], numbers: list[int], save_every: float) -> None:
        """Count what a cell's trace shows.

        Args:
            lines: its steps, in the order of time.
            numbers: of these steps.
            save_every: seconds between two saved states; with 0 every step is saved.
        """
        assert set(numbers) == set(range(STEPS)), "every step was taken"
        longest = max(b["time"] - a["time"] for a, b in pairwise(lines) if _alike(a, b))
        self.allowed = max(self.allowed, save_every + 2 * longest)
        for index in range(1, len(lines)):
            if _alike(lines[index - 1], lines[index]):
                assert numbers[index] == numbers[index - 1] + 1
                continue
            again = numbers[index - 1] - numbers[index] + 1  # steps that are taken once more from here on
            assert again >= 0
            if save_every == 0:
                assert again <= 2, "one that was not yet saved, and one that was being saved"
            self.steps += again
            if again:
                self.worst = max(self.worst, lines[index - 1]["time"] - lines[index - again]["time"] + longest)
        assert self.worst <= self.allowed


def _alike(a: dict, b: dict) -> bool:
    return a["process"] == b["process"]


def _role(command: list[str]) -> str:
    words = " ".join(command)
    script = re.search(r"workflow/scripts/(\w+)\.py", words)
    if "dvc" in command:
        return "dvc"
    if command and Path(command[0]).name in ("bash", "sh"):
        return f"shell of {script[1]}" if script else "shell"
    return script[1] if script else "driver" if "snakemake" in words else "other"


def numbers_of_steps(project: Path) -> dict[tuple[str, str], int]:
    """Return the number of each step of an undisturbed run, by cell and by what it draws."""
    counts: Counter[str] = Counter()
    found = {}
    for line in trace(project):
        found[line["cell"], str(line["drawn"])] = counts[line["cell"]]
        counts[line["cell"]] += 1
    assert set(counts.values()) == {STEPS} and len(found) == STEPS * len(CELLS)
    return found


def set_interval(project: Path, seconds: float) -> None:
    """Say how often state is saved; it decides no result."""
    path = project / "config/digits.yaml"
    path.write_text(re.sub(r"save_every_seconds: \S+", f"save_every_seconds: {seconds}", path.read_text()))
