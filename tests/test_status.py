"""What `targetwise status` reads off the files of a run."""

import json
import os
import time

import pytest

from targetwise import cells, files
from targetwise.config import load, parameterization_file
from targetwise.files import canonical_json, sha256_of_file, sha256_of_text, write_json
from targetwise.operations import status


@pytest.fixture
def study(project):
    """A grid of one cell whose specification is on disk, in a project of its own."""
    (project / "overlay.yaml").write_text(
        json.dumps({"grid": {"parameterizations": ["v"], "seeds": [0]}, "training": {"steps": 1000}})
    )
    config = load([project / "config/digits.yaml", project / "overlay.yaml"])
    cells.write_specifications(config)
    write_json(project / "data/digits/manifest.json", {"splits": {"train": {"sha256": "d" * 64}}})
    return config


@pytest.fixture
def folder(study):
    (cell,) = cells.grid(study)
    (cell.folder / "log").mkdir(parents=True)
    (cell.folder / "state").mkdir()
    return cell.folder


def standing(study):
    (found,) = status.standings(study)
    return found.state, found.detail


def publish(study, folder, **changes):
    specification = files.read_json(folder / "cell.json")
    digest = sha256_of_file(parameterization_file("v"))
    key = sha256_of_text(canonical_json([specification, digest, digest, "d" * 64]))
    write_json(
        folder / "training.json", {"key": key, "status": "finished", "reason": None, "model_sha256": "m", **changes}
    )


def test_nothing_made_yet(study, folder):
    assert standing(study) == ("waiting", "")


def test_running_says_step_speed_and_time_left(study, folder):
    write_json(folder / "state/heartbeat.json", {"host": "node3", "process": 1, "job": "117", "beat": 4})
    assert standing(study) == ("running", "began (host node3, job 117)")
    line = {"step": 250, "images_per_second": 100.0}
    (folder / "state/train.jsonl").write_text(json.dumps({"step": 0}) + "\n" + json.dumps(line) + "\n")
    assert standing(study) == ("running", "step 250 of 1000, 100 images/s, 8 min left (host node3, job 117)")


def test_a_heartbeat_that_stopped_is_nobodys(study, folder):
    write_json(folder / "state/heartbeat.json", {"host": "node3", "process": 1, "job": "", "beat": 4})
    os.utime(folder / "state/heartbeat.json", (0, time.time() - 2 * status.FRESH_SECONDS))
    for step in (100, 200):
        (folder / f"state/step-{step:09d}.sha256").touch()
    assert standing(study) == ("waiting", "step 200 of 1000 is saved")


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("error: the data are damaged", "failed"),
        ("RuntimeError: this cell always fails", "failed"),
        ("stopped: train v-tiny-0: the time budget is used up; state saved after step 7 of 1000", "waiting"),
        ("waiting: state is in use by another trainer", "waiting"),
    ],
)
def test_last_words_of_the_log(study, folder, words, state):
    (folder / "log/train.log").write_text(f"something before\n{words}\n\n")
    assert standing(study) == (state, words if state == "failed" else "")


def test_a_log_older_than_the_specification_tells_of_another_cell(study, folder):
    (folder / "log/train.log").write_text("error: whatever\n")
    os.utime(folder / "log/train.log", (0, time.time() - 100))
    assert standing(study) == ("waiting", "")


def test_from_trained_to_done(study, folder):
    publish(study, folder)
    assert standing(study) == ("waiting", "trained, not yet measured")
    (folder / "log/sample-ddim-50-draw0.log").write_text("sample v-tiny-0: 128/512 images\n")
    assert standing(study) == ("running", "sample: sample v-tiny-0: 128/512 images")
    (folder / "log/sample-ddim-50-draw0.log").write_text("error: no space left\n")
    assert standing(study) == ("failed", "sample: error: no space left")
    write_json(folder / "fid/ddim-50/draw0.json", {"model_sha256": "m"})
    assert standing(study) == ("done", "")
    write_json(folder / "fid/ddim-50/draw0.json", {"model_sha256": "of an earlier model"})
    assert standing(study)[0] == "failed"


def test_diverged_is_a_result_with_its_reason(study, folder):
    publish(study, folder, status="diverged", reason="the loss was not finite at step 31")
    assert standing(study) == ("diverged", "the loss was not finite at step 31")


def test_another_configuration_is_not_done(study, folder):
    publish(study, folder)
    write_json(folder / "fid/ddim-50/draw0.json", {"model_sha256": "m"})
    study["training"]["steps"] += 1
    assert standing(study) == ("waiting", "trained, but configuration, parameterization or data changed since")


def test_half_written_and_missing_files_are_no_reason_to_end(study, folder):
    (folder / "training.json").write_text("{")
    (folder / "state/heartbeat.json").write_bytes(b"\xff")
    assert standing(study)[0] == "running"


def test_the_table_counts_and_the_lines_tell(study, folder):
    (folder / "log/train.log").write_text("error: whatever\n")
    shown = status.render(status.standings(study)).splitlines()
    assert shown[0].split() == ["parameterization", "scale", *status.STATES]
    assert shown[1].split() == ["v", "tiny", "·", "·", "·", "1", "·"]
    assert shown[3:] == ["v-tiny-0  failed  error: whatever", "", "1 cells: 1 failed"]


def test_watch_ends_when_nothing_can_move(study, folder, capsys, monkeypatch):
    slept = []

    def finish(seconds):
        slept.append(seconds)
        publish(study, folder, status="diverged", reason="it did")

    monkeypatch.setattr(status.time, "sleep", finish)
    status.watch(study, 7)
    assert slept == [7]
    assert "1 cells: 1 diverged" in capsys.readouterr().out
