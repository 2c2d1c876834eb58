"""Whose lock it is: a killed driver's goes by itself, a living one's and a stranger's never."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from targetwise.jobs import drivers

DRIVER = """
import sys
from targetwise.jobs import drivers
drivers.register("digits")
print("registered", flush=True)
sys.stdin.read()
"""

LOCK = Path(".snakemake/locks/0.input.lock")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drivers, "_held", [])


@pytest.fixture
def driver():
    """A driver that is at work here and has Snakemake's lock."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"registered\n"
    lock()
    yield process
    process.kill()
    process.communicate()


def lock():
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    LOCK.write_text("results/digits/table.csv\n")


def records():
    return sorted(drivers.FOLDER.glob("*.json"))


def test_the_lock_of_a_killed_driver_is_removed_and_said_in_one_line(driver, capsys):
    driver.kill()
    driver.wait()
    drivers.register("digits")
    assert not LOCK.exists() and len(records()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: an earlier run was killed (study digits, host {socket.gethostname()}, process ")
    assert f"process {driver.pid}, since 20" in line


def test_the_lock_of_a_living_driver_stays_also_beside_a_killed_one(driver, capsys):
    drivers.register("other")
    assert LOCK.exists()
    dead = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    dead.stdout.readline()
    dead.kill()
    dead.communicate()
    drivers.remove_stale_locks()
    assert LOCK.exists()
    assert f"note: a run is under way here (study digits, host {socket.gethostname()}, process {driver.pid}" in (
        capsys.readouterr().err
    )


def test_a_stopped_driver_lives(driver):
    driver.send_signal(signal.SIGSTOP)
    drivers.register("digits")
    assert LOCK.exists()


def test_a_driver_of_another_host_is_never_declared_dead(capsys):
    drivers.FOLDER.mkdir(parents=True)
    foreign = {"study": "digits", "host": "login1", "process": 7, "since": "2026-11-24 02:00:00"}
    record = drivers.FOLDER / "login1-7-1.json"
    record.write_text(json.dumps(foreign))
    drivers.register("digits")  # which may be quicker than the other one gets its lock
    lock()
    drivers.remove_stale_locks()
    assert LOCK.exists() and record.exists()
    note = capsys.readouterr().err
    assert "note: a run is under way here (study digits, host login1, process 7, since 2026-11-24 02:00:00)" in note
    assert "if it was killed, type `snakemake --unlock --configfile results/digits/study.json`" in note
    LOCK.unlink()
    long_ago = time.time() - 2 * drivers.FORGOTTEN_SECONDS
    os.utime(record, (long_ago, long_ago))
    drivers.remove_stale_locks()
    assert not record.exists()


def test_a_run_of_another_study_is_no_reason_to_ignore_an_edited_configuration(driver):
    assert drivers.is_at_work("digits") and not drivers.is_at_work("cifar10")


def test_a_lock_that_nobody_recorded_stays():
    lock()
    drivers.register("digits")
    assert LOCK.exists()


def test_where_the_file_system_cannot_lock_its_process_says_whether_a_driver_lives(driver, monkeypatch):
    def refused(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(drivers.fcntl, "flock", refused)
    drivers.register("digits")
    assert LOCK.exists()
    driver.kill()
    driver.wait()
    drivers.remove_stale_locks()
    assert not LOCK.exists()


def test_a_lock_that_a_quicker_driver_has_taken_meanwhile_stays(driver, monkeypatch):
    driver.kill()
    driver.wait()
    honest = drivers._others

    def others():
        found = list(honest())
        LOCK.rename("gone")  # so that the new one is another file
        lock()
        return iter(found)

    monkeypatch.setattr(drivers, "_others", others)
    drivers.register("digits")
    assert LOCK.exists()


def test_a_driver_that_ends_by_itself_leaves_no_record():
    done = subprocess.run([sys.executable, "-c", DRIVER], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert done.stdout == b"registered\n" and records() == []


def test_a_record_in_the_middle_of_being_written_is_passed_over(driver):
    (drivers.FOLDER / "torn.json").write_text("{")
    driver.kill()
    driver.wait()
    drivers.register("digits")
    assert not LOCK.exists()
    assert os.getpid() in [json.loads(path.read_text())["process"] for path in records() if path.stem != "torn"]
