"""State that survives what happens to it: kills, damage, full disks, and a second trainer."""

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from targetwise.errors import UserError
from targetwise.training import state
from targetwise.training.state import StateFolder

KEY = "k" * 64


@pytest.fixture
def folder(tmp_path):
    return StateFolder(tmp_path / "state", KEY)


@pytest.fixture
def quick(monkeypatch):
    """Heartbeats in tenths of a second."""
    monkeypatch.setattr(state, "BEAT_SECONDS", 0.03)
    monkeypatch.setattr(state, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(state, "STALE_SECONDS", 0.4)


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=lambda number: errno.errorcode[number])
def no_locks(request, monkeypatch):
    """A file system without working locks, as some clusters have."""

    def flock(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def content(step):
    """Return a state as training has it: tensors of several types, nested, and numbers."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"a.weight": torch.randn(3, 4, generator=generator)},
        "ema": [torch.randn(5, generator=generator).to(torch.bfloat16)],
        "optimizer": {
            "state": {0: {"step": torch.tensor(float(step))}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 1)}],
        },
        "window": torch.zeros(2, 3, dtype=torch.float64),
        "seconds": 1.5,
    }


def same(one, two):
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return one == two


def names(folder):
    return sorted(path.name for path in folder.path.iterdir()) if folder.path.exists() else []


def holds(folder, step):
    loaded = folder.load()
    return loaded is not None and same(loaded, {"key": KEY, "step": step, **content(step)})


# --- saving and loading --------------------------------------------------------------------------------------------


def test_what_was_saved_comes_back_bit_for_bit(folder):
    assert folder.load() is None
    folder.save(7, content(7))
    assert holds(folder, 7)
    assert holds(folder, 7)


def test_the_newest_counts_and_two_are_kept(folder):
    for step in (5, 10, 999_999_999, 20):
        folder.save(step, content(step))
    assert names(folder) == [
        "step-000000020.pt",
        "step-000000020.sha256",
        "step-999999999.pt",
        "step-999999999.sha256",
    ]
    assert holds(folder, 999_999_999)


def test_saving_a_step_again_replaces_it(folder):
    folder.save(5, content(5))
    folder.save(5, content(6))
    assert same(folder.load()["model"], content(6)["model"])


def damage_digest(path):
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:500] + b"x" + path.read_bytes()[501:]),
        lambda path: path.with_suffix(".sha256").unlink(),
        lambda path: path.with_suffix(".sha256").write_text(""),
        damage_digest,
    ],
    ids=["truncated", "empty", "one byte", "no digest", "empty digest", "damaged digest"],
)
def test_a_damaged_newest_state_gives_way_to_the_one_before(folder, capsys, damage):
    folder.save(5, content(5))
    folder.save(10, content(10))
    damage(folder.path / "step-000000010.pt")
    assert holds(folder, 5)
    said = capsys.readouterr().err
    assert "step-000000010.pt is damaged or was not finished; going back to the state before it" in said
    assert said.count("\n") == 1
    assert names(folder) == ["step-000000005.pt", "step-000000005.sha256"]
    folder.save(10, content(10))
    assert holds(folder, 10)


def test_when_all_are_damaged_the_work_begins_anew(folder, capsys):
    for step in (5, 10):
        folder.save(step, content(step))
        (folder.path / f"step-{step:09d}.pt").write_bytes(b"x")
    assert folder.load() is None
    assert capsys.readouterr().err.count("going back") == 2
    assert names(folder) == []


def test_a_kill_between_state_and_digest_leaves_the_one_before_in_force(folder, monkeypatch):
    folder.save(5, content(5))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(state, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.save(10, content(10))
    assert "step-000000010.pt" in names(folder)
    assert holds(folder, 5)


def test_nothing_is_removed_before_the_new_state_is_whole(folder, monkeypatch):
    """At every moment of a save a whole state with its digest lies there."""
    folder.save(5, content(5))
    folder.save(10, content(10))
    seen = []
    real = state.write_text

    def look(path, text):
        seen.append(names(folder))
        real(path, text)

    monkeypatch.setattr(state, "write_text", look)
    folder.save(15, content(15))
    assert {"step-000000005.pt", "step-000000010.pt", "step-000000015.pt"} <= set(seen[0])


def test_states_of_another_specification_are_refused_and_removed(folder, capsys):
    folder.save(5, content(5))
    folder.save(10, content(10))
    other = StateFolder(folder.path, "o" * 64)
    assert other.load() is None
    assert capsys.readouterr().err.count("is of another specification; starting anew") == 2
    assert names(folder) == []


def test_nothing_but_plain_values_is_unpickled(folder):
    """A state is trusted by its digest, and even then it cannot run code."""
    import pathlib
    import pickle

    folder.save(5, {"evil": pathlib.PurePosixPath("x")})
    with pytest.raises(pickle.UnpicklingError):
        folder.load()


def test_a_full_disk_leaves_the_old_state_and_says_so(folder):
    """The system's own error must come through, because errors.run knows what to say of it."""
    folder.save(5, content(5))
    before, (soft, hard) = names(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            folder.save(10, {"model": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert names(folder) == before
    assert holds(folder, 5)


def test_no_space_left_leaves_the_old_state(folder, monkeypatch):
    folder.save(5, content(5))
    before = names(folder)

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        folder.save(10, content(10))
    assert names(folder) == before
    assert holds(folder, 5)


def test_removal_leaves_nothing(folder):
    with folder.locked():
        folder.save(5, content(5))
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


# --- one process at a time -----------------------------------------------------------------------------------------

HOLDER = """
import sys
from targetwise.training import state
state.BEAT_SECONDS = 0.03
with state.StateFolder(state.Path(sys.argv[1]), "k" * 64).locked():
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
    assert str(caught.value).startswith(f"{folder.path} is in use by another trainer ({holder}")


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

    monkeypatch.setattr(state, "write_json", full)
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
    assert time.monotonic() - began >= state.STALE_SECONDS


def test_without_locks_one_of_two_that_begin_at_once_gives_way(folder, quick, no_locks, monkeypatch):
    """Both find silence and both write their heartbeat; the one that wrote last stays."""
    other, write = {"host": "elsewhere", "process": 12, "job": "", "beat": 0}, state.write_json

    def write_and_be_overwritten(path, content):
        write(path, content)
        write(path, other)

    monkeypatch.setattr(state, "write_json", write_and_be_overwritten)
    monkeypatch.setattr(state, "BEAT_SECONDS", 10.0)
    in_use_by(folder, 12, host="elsewhere")
    assert json.loads((folder.path / "heartbeat.json").read_text()) == other


def test_a_heartbeat_of_another_host_that_moves_is_believed(folder, quick, no_locks):
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(0.02):
            state.write_json(folder.path / "heartbeat.json", {"host": "elsewhere", "process": 12, "beat": count})
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
    folder.path.mkdir()
    (folder.path / "heartbeat.json").write_bytes(content)
    with folder.locked():
        pass


def test_an_error_that_is_not_about_locks_is_not_hidden(folder, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken disk"), folder.locked():
        pass


def test_what_a_kill_left_half_written_is_removed(folder):
    """Else every kill in the middle of a save would cost the size of a state for ever."""
    folder.save(5, content(5))
    (folder.path / ".step-000000010.pt.12345.part").write_bytes(b"half")
    with folder.locked():
        assert not [name for name in names(folder) if name.endswith(".part") and "step" in name]
        assert holds(folder, 5)
