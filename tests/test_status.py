"""What `targetwise status` reads off the files of a run."""

import json
import os
import time
from pathlib import Path

import pytest
from helpers import as_measured, whole_outcome

from targetwise import cells, cli, errors, files
from targetwise.data.digests import declared
from targetwise.diffusion.randomness import golden_draw
from targetwise.files import canonical_json, sha256_of_file, sha256_of_text, write_json
from targetwise.operations import logs, status
from targetwise.progress import Progress
from targetwise.recipe import config
from targetwise.recipe.config import load


@pytest.fixture
def study(project):
    """A grid of one cell whose specification is on disk, in a project of its own."""
    (project / "overlay.yaml").write_text(
        json.dumps({"grid": {"parameterizations": ["v"], "seeds": [0]}, "training": {"steps": 1000}})
    )
    config = load([project / "config/digits.yaml", project / "overlay.yaml"])
    cells.write_specifications(config)
    return config


@pytest.fixture
def folder(study):
    (cell,) = cells.grid(study)
    (cell.folder / "log").mkdir(parents=True)
    (cell.folder / "state/train").mkdir(parents=True)
    return cell.folder


def standing(study):
    (found,) = status.standings(study)
    return found.state, found.detail


def publish(study, folder, **changes):
    specification = files.read_json(folder / "cell.json")
    names = ("parameterizations/v", "paths/linear", "networks/mlp", "times/uniform")
    sources = {f"workflow/{name}.py": sha256_of_file(Path(f"workflow/{name}.py")) for name in names}
    images = declared(study["datasets"]["digits"], "train")
    key = sha256_of_text(canonical_json([specification, sources, images, golden_draw()]))
    write_json(folder / "training.json", whole_outcome(key=key, model_sha256="m", **changes))


def measure(study, folder, **changes):
    """Write the row of the cell's only draw, as it is under the configuration of ``study``."""
    digests = dict.fromkeys(("samples_sha256", "reference_sha256", "extractor_sha256"), "1" * 64)
    row = {"draw": 0, "status": "finished", "reason": None, "sampler": "ddim-50", "model_sha256": "m", **digests}
    (cell,) = cells.grid(study)
    write_json(folder / "fid/ddim-50/draw0.json", {**as_measured(study, {**row, "cell": vars(cell)}), **changes})


def test_nothing_made_yet(study, folder):
    assert standing(study) == ("waiting", "")


def test_running_says_step_speed_and_time_left(study, folder):
    write_json(folder / "state/train/heartbeat.json", {"host": "node3", "process": 1, "job": "117", "beat": 4})
    assert standing(study) == ("running", "train: began (host node3, job 117)")
    line = {"step": 250, "images_per_second": 400.0}
    (folder / "state/train/train.jsonl").write_text(json.dumps({"step": 0}) + "\n" + json.dumps(line) + "\n")
    assert standing(study) == ("running", "train: step 250 of 1000, 1.6 steps/s, 8 min left (host node3, job 117)")


def test_a_heartbeat_that_stopped_is_nobodys(study, folder):
    write_json(folder / "state/train/heartbeat.json", {"host": "node3", "process": 1, "job": "", "beat": 4})
    os.utime(folder / "state/train/heartbeat.json", (0, time.time() - 2 * status.FRESH_SECONDS))
    for step in (100, 200):
        (folder / f"state/train/step-{step:09d}.sha256").touch()
    assert standing(study) == ("waiting", "step 200 of 1000 is saved")


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("error: the data are damaged", "failed"),
        ("RuntimeError: this cell always fails", "failed"),
        ("stopped: train v-tiny-0: the time budget is used up; state saved after step 7 of 1000", "waiting"),
        ("waiting: state is in use by another process", "waiting"),
    ],
)
def test_last_words_of_the_log(study, folder, words, state):
    (folder / "log/train.log").write_text(f"something before\n{words}\n\n")
    assert standing(study) == (state, words if state == "failed" else "")


@pytest.mark.parametrize(
    "end", ["train v-tiny-0: 1000/1000 steps, 9.1 steps/s\n", "train: 100%|##########| 1000/1000\n"]
)
def test_work_that_came_to_its_end_did_not_fail(study, folder, end):
    """Somebody has deleted its result since, as a message told them to."""
    (folder / "log/train.log").write_text(f"train v-tiny-0: 500/1000 steps, 9.0 steps/s\n{end}")
    assert standing(study) == ("waiting", "")


TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 9, in main
    step()
ValueError: inner

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 7, in main
    raise RuntimeError("outer")
RuntimeError: outer: half of
the message is on a line of its own
"""
WARNING = """/site-packages/torch/cuda/__init__.py:61: UserWarning: a driver is old
  warnings.warn("a driver is old")
"""
TORCHRUN = """Traceback (most recent call last):
  File "torchrun", line 8, in <module>
    sys.exit(main())
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
workflow/scripts/train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
  traceback : To enable traceback see: https://docs.pytorch.org/elastic/errors.html
============================================================
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (f"error: the disk is full\n{WARNING}", "error: the disk is full"),
        ("error: the disk is full\ntrain v-tiny-0: 7/10 steps, 3.1 steps/s, 1 s left\n", "error: the disk is full"),
        (f"error: the disk is full\n{TORCHRUN}", "error: the disk is full"),
        (f"error: an earlier one\n{TRACEBACK}error: the last one\n", "error: the last one"),
        (f"{TRACEBACK}{WARNING}", "RuntimeError: outer: half of"),
        (f"{TRACEBACK}train v-tiny-0: 7/10 steps, 3.1 steps/s\n", "RuntimeError: outer: half of"),
        ("".join(f"[rank1]: {line}\n" for line in TRACEBACK.splitlines()) + TORCHRUN, "RuntimeError: outer: half of"),
        (f"slurmstepd: error: *** DUE TO TIME LIMIT ***\n{WARNING}", "slurmstepd: error: *** DUE TO TIME LIMIT ***"),
    ],
)
def test_the_reason_is_the_scripts_own_or_its_exception(study, folder, log, reason):
    (folder / "log/train.log").write_text(log)
    assert standing(study) == ("failed", reason)


@pytest.mark.parametrize("log", [WARNING, "", "W1121 18:07:22.1 torch/x.py:12] [0/8] WARNING: recompiled\n"])
def test_progress_and_warnings_are_no_reason(study, folder, log):
    path = folder / "log/train.log"
    path.write_text(log)
    assert standing(study) == ("waiting", ""), "it may be about to begin"
    path.write_text(f"train v-tiny-0: 7/10 steps, 3.1 steps/s, 1 s left\n{log}")
    assert standing(study) == ("failed", f"ended without a reason in {path}")
    (folder / "state/train/step-000000005.sha256").touch()
    assert standing(study) == ("failed", f"ended without a reason in {path}; step 5 of 1000 is saved")


def test_a_measurement_that_died_without_a_word_is_not_running_for_ever(study, folder):
    publish(study, folder)
    log = folder / "log/fid-ddim-50-draw0.log"
    log.write_text(f"measure v-tiny-0: 128/512 images\n{WARNING}")
    assert standing(study) == ("running", "fid ddim-50/draw0: 128/512 images")
    for path, ago in ((folder / "training.json", 3), (log, 2)):
        os.utime(path, (0, time.time() - ago * status.FRESH_SECONDS))
    os.utime(folder / "cell.json", (0, 0))
    assert standing(study) == ("failed", f"fid: ended without a reason in {log}")


def test_the_lines_of_our_own_progress_are_known_as_such(capsys):
    with Progress("train v-tiny-0", 10, "step") as progress:
        progress.advance(5)
    (line,) = capsys.readouterr().err.splitlines()
    assert logs.Words.of(f"error: whatever\n{line}\n") == logs.Words("error: whatever", "error: whatever", line)


def test_a_log_older_than_the_specification_tells_of_another_cell(study, folder):
    (folder / "log/train.log").write_text("error: whatever\n")
    os.utime(folder / "log/train.log", (0, time.time() - 100))
    assert standing(study) == ("waiting", "")


def test_from_trained_to_done(study, folder):
    publish(study, folder)
    assert standing(study) == ("waiting", "trained, not yet measured")
    (folder / "log/sample-ddim-50-draw0.log").write_text("sample v-tiny-0: 128/512 images\n")
    assert standing(study) == ("running", "sample ddim-50/draw0: 128/512 images")
    write_json(folder / "samples/ddim-50/draw0.json", {})
    assert standing(study) == (
        "waiting",
        "trained, not yet measured",
    )  # and not running until its log is a minute old
    (folder / "samples/ddim-50/draw0.json").unlink()
    (folder / "log/sample-ddim-50-draw0.log").write_text(TRACEBACK + WARNING)
    assert standing(study) == ("failed", "sample: RuntimeError: outer: half of")
    (folder / "log/sample-ddim-50-draw0.log").write_text("error: no space left\n")
    assert standing(study) == ("failed", "sample: error: no space left")
    measure(study, folder)
    assert standing(study) == ("done", "")
    measure(study, folder, model_sha256="of an earlier model")
    assert standing(study)[0] == "failed"
    (folder / "fid/ddim-50/draw0.json").write_text('{"a":')
    state, detail = standing(study)
    assert state == "failed" and detail.startswith(
        "results/digits/v/tiny/seed0/fid/ddim-50/draw0.json is damaged; delete"
    )


def test_diverged_is_a_result_with_its_reason(study, folder):
    publish(study, folder, status="diverged", reason="the loss was not finite at step 31")
    assert standing(study) == ("diverged", "the loss was not finite at step 31")


def test_another_configuration_is_not_done(study, folder):
    publish(study, folder)
    measure(study, folder)
    study["training"]["steps"] += 1
    assert standing(study) == ("waiting", "trained, but configuration, parameterization or data changed since")


@pytest.mark.parametrize(
    "change",
    [lambda study: study["metric"].update(names=["kid"]), lambda study: study["metric"]["reference"].update(first=9)],
    ids=["metric", "reference"],
)
def test_a_row_that_was_measured_otherwise_is_not_done(study, folder, change):
    publish(study, folder)
    measure(study, folder)
    change(study)
    assert standing(study) == ("waiting", "trained, not yet measured")


def test_a_row_of_samples_that_were_sampled_otherwise_is_not_done(study, folder):
    """Also where the samples are gone, as they are while they are made again."""
    publish(study, folder)
    measure(study, folder)
    study["sampling"]["clip"] = not study["sampling"]["clip"]
    assert standing(study) == ("waiting", "trained, not yet measured")


def test_half_written_and_missing_files_are_no_reason_to_end(study, folder):
    (folder / "training.json").write_text("{")
    (folder / "state/train/heartbeat.json").write_bytes(b"\xff")
    assert standing(study)[0] == "running"


def test_the_table_counts_and_the_lines_tell(study, folder):
    (folder / "log/train.log").write_text("error: whatever\n")
    shown = status.render(status.standings(study)).splitlines()
    assert shown[0].split() == ["parameterization", "scale", *status.STATES]
    assert shown[1].split() == ["v", "tiny", "·", "·", "·", "1", "·"]
    assert shown[3:] == ["v-tiny-0  failed  error: whatever", "", "1 cell: 1 failed"]


def test_watch_ends_when_nothing_can_move(study, folder, capsys, monkeypatch):
    slept = []

    def finish(seconds):
        slept.append(seconds)
        publish(study, folder, status="diverged", reason="it did")

    monkeypatch.setattr(status.time, "sleep", finish)
    status.watch(study, 7)
    assert slept == [7]
    assert "1 cell: 1 diverged" in capsys.readouterr().out


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *arguments])
    cli.main()


@pytest.mark.parametrize("option", [("status", "--watch"), ("track", "--follow")])
@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "1e300", "often"])
def test_an_interval_is_a_positive_number_of_seconds(study, monkeypatch, capsys, option, seconds):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, *option, seconds)
    assert left.value.code == errors.EXIT_ERROR
    wanted = "it must be a number of seconds above 0 and at most 86400"
    assert capsys.readouterr() == ("", f"error: {option[1]} is {seconds}; {wanted}\n")


def finish_another(study, name):
    """Leave what a finished training of another study leaves."""
    another = config.validate({**study, "study": name})
    cells.write_specifications(another)
    (cell,) = cells.grid(another)
    write_json(cell.folder / "training.json", {"status": "finished"})


def test_a_study_without_results_names_those_that_have_some(study, folder, monkeypatch, capsys):
    finish_another(study, "digits")
    finish_another(study, "mine")
    cells.write_specifications(config.validate({**study, "study": "planned"}))
    call(monkeypatch, "status")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "study cifar10 has no results; others have: digits (targetwise status --configfile config/digits.yaml), "
        "mine (targetwise status --configfile results/mine/study.json)"
    )


def test_a_study_with_results_names_no_others(study, folder, monkeypatch, capsys):
    finish_another(study, "mine")
    (folder / "log/train.log").write_text("error: whatever\n")
    call(monkeypatch, "status", "--configfile", "config/digits.yaml", "overlay.yaml")
    assert "mine" not in capsys.readouterr().out


def test_where_nothing_was_made_no_other_study_is_named(project, monkeypatch, capsys):
    call(monkeypatch, "status")
    assert capsys.readouterr().out.splitlines()[-1] == "27 cells: 27 waiting"
