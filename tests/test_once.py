"""A job that is done once: its parts, its result, and what is left of both after a kill at any point."""

import os

import numpy as np
import pytest

from targetwise.compute.distributed import World
from targetwise.errors import UserError
from targetwise.jobs import kept as keeping
from targetwise.jobs.kept import release
from targetwise.jobs.once import once
from targetwise.jobs.parts import Parts


class Killed(BaseException):
    """Ends a process wherever it is."""


@pytest.fixture
def outputs(tmp_path):
    return [tmp_path / "deep/draw0.npz", tmp_path / "deep/draw0.json"]


def make(kept, outputs, content="content"):
    for output in outputs:
        kept.path(output).write_text(f"{content} of {output.name}")


def run(tmp_path, outputs, key="key", content="content"):
    """Do the job and return whether it was made."""
    made = []

    def work(kept, parts):
        made.append(parts)
        make(kept, outputs, content)

    once(tmp_path, "job", key, outputs, work)
    return bool(made)


def texts(outputs):
    return [output.read_text() for output in outputs]


WHOLE = ["content of draw0.npz", "content of draw0.json"]


def test_outputs_that_snakemake_deleted_come_back_bit_for_bit_and_are_not_made_again(tmp_path, outputs, capsys):
    assert run(tmp_path, outputs)
    assert texts(outputs) == WHOLE
    assert not (tmp_path / "state").exists()
    for output in outputs:
        output.unlink()
    assert not run(tmp_path, outputs, content="another")
    assert texts(outputs) == WHOLE
    assert "draw0.json was finished by an earlier run, and kept" in capsys.readouterr().err


def test_a_kept_result_takes_no_room_of_its_own(tmp_path, outputs):
    run(tmp_path, outputs)
    assert all(output.samefile(tmp_path / "kept/job" / output.name) for output in outputs)


def test_where_there_are_no_hard_links_it_is_a_copy(tmp_path, outputs, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    run(tmp_path, outputs)
    outputs[0].unlink()
    assert not run(tmp_path, outputs) and texts(outputs) == WHOLE


def test_after_its_release_the_job_is_done_again(tmp_path, outputs):
    run(tmp_path, outputs)
    release(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert run(tmp_path, outputs, content="another") and texts(outputs)[0] == "another of draw0.npz"


def test_a_result_of_another_key_is_never_used(tmp_path, outputs):
    run(tmp_path, outputs)
    assert run(tmp_path, outputs, key="other", content="another")
    assert texts(outputs)[0] == "another of draw0.npz"
    assert run(tmp_path, outputs), "and the first is gone"


@pytest.mark.parametrize("damage", ["half", "missing", "no record", "damaged record"])
def test_a_damaged_result_is_never_used(tmp_path, outputs, damage):
    run(tmp_path, outputs)
    kept = tmp_path / "kept/job"
    if damage == "half":
        (kept / "draw0.npz").write_text("content")  # in place, so the output is damaged too
    elif damage == "missing":
        (kept / "draw0.npz").unlink()
    elif damage == "no record":
        (kept / "record.json").unlink()
    else:
        (kept / "record.json").write_text("{")
    assert run(tmp_path, outputs) and texts(outputs) == WHOLE


@pytest.mark.parametrize("point", range(6))
def test_a_kill_at_any_point_leaves_a_whole_result_or_none(tmp_path, outputs, point, monkeypatch):
    """Points: while making, before the record, while the record is written, between two links, after all of them."""
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count > point:
            raise Killed

    real_link, real_json = keeping.link, keeping.write_json
    monkeypatch.setattr(keeping, "link", lambda a, b: (tick(), real_link(a, b)))
    monkeypatch.setattr(keeping, "write_json", lambda path, content: (tick(), real_json(path, content), tick()))

    def work(kept, parts):
        for output in outputs:
            kept.path(output).write_text(f"content of {output.name}")
            if output is outputs[0]:
                tick()

    with pytest.raises(Killed):
        once(tmp_path, "job", "key", outputs, work)
        tick()
    monkeypatch.undo()
    before = (tmp_path / "kept/job/record.json").exists()
    assert before == (point >= 2)
    for output in outputs:  # as Snakemake does
        output.unlink(missing_ok=True)
    assert run(tmp_path, outputs) != before
    assert texts(outputs) == WHOLE and not (tmp_path / "state").exists()


def test_an_error_keeps_the_parts_and_the_next_run_gets_them(tmp_path, outputs):
    seen = []

    def work(kept, parts):
        seen.append(parts.read("first"))
        parts.write("first", np.arange(3))
        if len(seen) == 1:
            raise UserError("no space")
        make(kept, outputs)

    with pytest.raises(UserError):
        once(tmp_path, "job", "key", outputs, work)
    once(tmp_path, "job", "key", outputs, work)
    assert seen[0] is None and seen[1].tolist() == [0, 1, 2]
    assert not (tmp_path / "state").exists()


def test_only_the_main_process_of_several_writes(tmp_path, outputs, monkeypatch):
    """What the others are told comes from the main one, who has looked first."""
    told = []
    monkeypatch.setattr(World, "any", lambda self, flag: told.append((self.rank, flag)) or flag)
    Parts(tmp_path / "state/job", "key")
    once(tmp_path, "job", "key", outputs, lambda kept, parts: told.append("worked"), World(1, 2, 1))
    assert told == [(1, False), "worked"] and not (tmp_path / "kept").exists()
    once(tmp_path, "job", "key", outputs, lambda kept, parts: make(kept, outputs), World(0, 2, 0))
    told.clear()
    once(tmp_path, "job", "key", outputs, lambda kept, parts: told.append("worked"), World(0, 2, 0))
    assert told == [(0, True)]


# --- parts ---------------------------------------------------------------------------------------------------------


def test_parts_are_read_back_exactly_and_those_of_another_key_are_gone(tmp_path):
    parts = Parts(tmp_path, "key")
    array = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    parts.write("a", array)
    again = Parts(tmp_path, "key").read("a")
    assert again.dtype == array.dtype and np.array_equal(again, array)
    assert Parts(tmp_path, "other").read("a") is None
    assert Parts(tmp_path, "key").read("a") is None


@pytest.mark.parametrize("position", ["start", "middle", "end", "cut", "empty"])
def test_a_damaged_part_is_as_good_as_none(tmp_path, position):
    parts = Parts(tmp_path, "key")
    parts.write("a", np.arange(1000))
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    if position in ("cut", "empty"):
        path.write_bytes(whole[: len(whole) // 2] if position == "cut" else b"")
    else:
        at = {"start": 0, "middle": len(whole) // 2, "end": len(whole) - 30}[position]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    assert parts.read("a") is None and not path.exists()
    parts.write("a", np.arange(3))
    assert parts.read("a").tolist() == [0, 1, 2]


def test_parts_of_a_kind_that_were_made_under_other_conditions_are_gone(tmp_path):
    parts = Parts(tmp_path, "key")
    parts.keep_only("images", {"torch": "1"})
    for name in ("images-0-2", "features-0-2"):
        parts.write(name, np.arange(3))
    Parts(tmp_path, "key").keep_only("images", {"torch": "1"})
    assert parts.read("images-0-2") is not None
    Parts(tmp_path, "key").keep_only("images", {"torch": "2"})
    assert parts.read("images-0-2") is None and parts.read("features-0-2") is not None
