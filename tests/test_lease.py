"""Two processes never use one GPU; who finds none free waits, and one that dies gives its own back."""

import signal
import subprocess
import sys
import time

import pytest

from targetwise.compute import lease
from targetwise.errors import StoppedEarlyError, UserError

GPUS = ["GPU-a", "GPU-b"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "FOLDER", tmp_path / "gpus")
    monkeypatch.setattr(lease, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(lease, "_held", {})
    yield tmp_path / "gpus"
    for file in lease._held.values():
        file.close()


@pytest.fixture
def another(folder):
    """Start processes that take a GPU, say which, and keep it until they are killed."""
    started = []

    def start(names=GPUS):
        code = (
            "import pathlib, sys, time\nfrom targetwise.compute import lease\n"
            f"lease.FOLDER = pathlib.Path({str(folder)!r})\n"
            f"print(lease.take({names!r}, wait=False), flush=True)\ntime.sleep(600)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_each_process_gets_a_gpu_of_its_own(another):
    assert another()[1] == 0
    assert another()[1] == 1
    with pytest.raises(UserError, match=r"^every GPU that this process sees is in use by process \d+, \d+; wait"):
        lease.take(GPUS, wait=False)


def test_gpus_are_known_by_name_and_not_by_their_place(another):
    assert another(["GPU-b"])[1] == 0
    assert lease.take(["GPU-b", "GPU-a"]) == 1


def test_a_stage_after_another_in_one_process_stays_on_its_gpu(another):
    assert lease.take(GPUS) == 0
    assert lease.take(GPUS) == 0
    assert another()[1] == 1


def test_a_killed_process_gives_its_gpu_back(another):
    process, _ = another(GPUS[:1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lease.take(GPUS[:1], wait=False) == 0


def test_who_waits_says_for_whom_and_goes_on_when_it_ends(another, capsys):
    process, _ = another(GPUS[:1])
    looks = []

    def stop():
        looks.append(time.monotonic())
        if len(looks) == 3:
            process.kill()
            process.wait()
        return False

    assert lease.take(GPUS[:1], stop) == 0
    assert len(looks) >= 3
    told = capsys.readouterr().err
    assert told == f"waiting: every GPU that this process sees is in use by process {process.pid}\n"


def test_who_waits_can_be_stopped(another):
    another(GPUS[:1])
    with pytest.raises(StoppedEarlyError, match="asked to stop while waiting"):
        lease.take(GPUS[:1], lambda: True)
