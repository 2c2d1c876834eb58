"""One process at a time: locks, heartbeats, and what a kill leaves."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from targetwise.errors import StoppedEarlyError, UserError
from targetwise.jobs import exclusive
from targetwise.jobs.exclusive import ExclusiveFolder


@pytest.fixture
def folder(tmp_path):
    return ExclusiveFolder(tmp_path / "state/train")


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats in tenths of a second."""
    monkeypatch.setattr(exclusive, "BEAT_SECONDS", 0.03)
    monkeypatch.setattr(exclusive, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(exclusive, "STALE_SECONDS", 0.4)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=lambda number: errno.errorcode[number])
def no_locks(request, monkeypatch):
    """A file system without working locks, as some clusters have."""

    def flock(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


HOLDER = """
import sys
from targetwise.jobs import exclusive
exclusive.BEAT_SECONDS = 0.03
with exclusive.ExclusiveFolder(exclusive.Path(sys.argv[1])).locked():
    print("holding", flush=True)
    sys.stdin.read()
"""


def in_use_by(folder, process, host=None):
    """Assert that the folder is refused, and that the message says whose it is."""
    began = time.monotonic()
    with pytest.raises(UserError) as caught, folder.locked():
        pass
    assert time.monotonic() - began < 5
    holder = f"host {host or socket.gethostname()}, process {process}"
    assert str(caught.value).startswith(f"{folder.path} is in use by another process ({holder}")


def test_a_second_process_is_refused_until_the_first_is_gone(folder):
    """A real process, then SIGKILL, which leaves lock file and heartbeat behind."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SLURM_JOB_ID": "4711"},
    )
    try:
        assert holder.stdout.readline() == b"holding\n"
        for _ in range(100):
            if (folder.path / "heartbeat.json").exists():
                break
            time.sleep(0.02)
        in_use_by(folder, f"{holder.pid}, job 4711")
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert "heartbeat.json" in names(folder)
    began = time.monotonic()
    with folder.locked():
        pass
    assert time.monotonic() - began < 1


def test_the_lock_is_free_after_the_block_and_after_an_error(folder):
    for error in (None, ValueError, KeyboardInterrupt):
        try:
            with folder.locked():
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert names(folder) == ["lock"]


def test_the_same_process_cannot_enter_twice(folder):
    with folder.locked():
        in_use_by(folder, "")


def test_the_heartbeat_says_who_and_moves(folder, quick):
    with folder.locked():
        beats = set()
        until = time.monotonic() + 0.5
        while len(beats) < 3 and time.monotonic() < until:
            time.sleep(0.02)
            if (folder.path / "heartbeat.json").exists():
                beat = json.loads((folder.path / "heartbeat.json").read_text())
                assert (beat["host"], beat["process"]) == (socket.gethostname(), os.getpid())
                beats.add(beat["beat"])
        assert len(beats) == 3


def test_a_full_disk_does_not_end_the_training_through_its_heartbeat(folder, quick, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(exclusive, "write_json", full)
    with folder.locked():
        time.sleep(0.1)
        assert threading.active_count() >= 2


def test_without_locks_the_heartbeat_keeps_the_second_out(folder, quick, no_locks):
    with folder.locked():
        in_use_by(folder, os.getpid())
    with folder.locked():
        pass


def write_heartbeat(folder, **beat):
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "heartbeat.json").write_text(json.dumps(beat))


def test_a_heartbeat_of_another_host_that_stands_still_is_waited_for_and_then_passed_over(folder, quick):
    write_heartbeat(folder, host="elsewhere", process=1, job="", beat=3)
    began = time.monotonic()
    with folder.locked():
        pass
    assert time.monotonic() - began >= exclusive.STALE_SECONDS


def test_without_locks_one_of_two_that_begin_at_once_gives_way(folder, quick, no_locks, monkeypatch):
    """Both find silence and both write their heartbeat; the one that wrote last stays."""
    other, write = {"host": "elsewhere", "process": 12, "job": "", "beat": 0}, exclusive.write_json

    def write_and_be_overwritten(path, content):
        write(path, content)
        write(path, other)

    monkeypatch.setattr(exclusive, "write_json", write_and_be_overwritten)
    monkeypatch.setattr(exclusive, "BEAT_SECONDS", 10.0)
    in_use_by(folder, 12, host="elsewhere")
    assert json.loads((folder.path / "heartbeat.json").read_text()) == other


def test_a_heartbeat_of_another_host_that_moves_is_believed(folder, quick, no_locks):
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(0.02):
            exclusive.write_json(folder.path / "heartbeat.json", {"host": "elsewhere", "process": 12, "beat": count})
            count += 1

    write_heartbeat(folder, host="elsewhere", process=12, beat=-1)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        in_use_by(folder, 12, host="elsewhere")
    finally:
        stop.set()
        thread.join()


def test_a_heartbeat_of_a_process_that_is_gone_from_here_is_not_waited_for(folder):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_heartbeat(folder, host=socket.gethostname(), process=gone.pid, beat=3)
    began = time.monotonic()
    with folder.locked():
        pass
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{}"])
def test_a_damaged_heartbeat_stops_nobody_for_ever(folder, quick, content):
    folder.path.mkdir(parents=True)
    (folder.path / "heartbeat.json").write_bytes(content)
    with folder.locked():
        pass


def test_an_error_that_is_not_about_locks_is_not_hidden(folder, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken disk"), folder.locked():
        pass


def test_somebody_who_waits_comes_after_the_holder_and_says_once_who_that_is(folder, monkeypatch, capsys):
    monkeypatch.setattr(exclusive, "WAIT_SECONDS", 0.02)
    order = []

    def second():
        with ExclusiveFolder(folder.path).held():
            order.append("second")

    thread = threading.Thread(target=second)
    with folder.locked():
        thread.start()
        time.sleep(0.2)
        order.append("first")
        folder.remove()
    thread.join()
    assert order == ["first", "second"]
    said = capsys.readouterr().err
    assert said.count("waiting: ") == 1 and f"process {os.getpid()}" in said


def test_who_waits_stops_when_asked_and_says_why(folder, monkeypatch):
    monkeypatch.setattr(exclusive, "WAIT_SECONDS", 0.02)
    waiting = ExclusiveFolder(folder.path).held(lambda: "received SIGTERM")
    with folder.locked(), pytest.raises(StoppedEarlyError) as caught, waiting:
        pass
    assert "is in use by another process" in str(caught.value)
    assert str(caught.value).endswith("; received SIGTERM while waiting")


def test_a_removed_folder_takes_an_empty_parent_with_it_and_no_other(folder, tmp_path):
    other = ExclusiveFolder(tmp_path / "state/other")
    with other.locked():
        with folder.locked():
            folder.remove()
        assert names(other) == ["heartbeat.json", "lock"]
        other.remove()
    assert not (tmp_path / "state").exists()
