"""State that survives what happens to it: kills, damage, full disks, and a second trainer."""

import errno
import os
import resource

import pytest
import torch

from targetwise.training import state
from targetwise.training.state import StateFolder

KEY = "k" * 64


@pytest.fixture
def folder(tmp_path):
    return StateFolder(tmp_path / "state/train", KEY)


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
    assert capsys.readouterr().err.count("is of another specification; starting from scratch") == 2
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


def test_what_a_kill_left_half_written_is_removed(folder):
    """Else every kill in the middle of a save would cost the size of a state for ever."""
    folder.save(5, content(5))
    (folder.path / ".step-000000010.pt.12345.part").write_bytes(b"half")
    with folder.locked():
        assert not [name for name in names(folder) if name.endswith(".part") and "step" in name]
        assert holds(folder, 5)
