"""What MLflow is told of a study: by files alone, while it runs and after it, here or on a server."""

import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow_tools import (
    HERE,
    PATIENCE,
    apart,
    configured,
    count,
    from_nothing,
    import_once,
    look,
    look_here,
    serving,
    targetwise,
    update,
    without_ids,
)
from synthetic import BEGAN, DIGEST, Files

from targetwise.errors import EXIT_INTERRUPTED, UserError
from targetwise.files import sha256_of_file
from targetwise.tracking import importer

STEPS = [20, 40, 60]


def test_a_finished_cell_is_one_run_with_all_that_its_files_say(config, made):
    for cell in made.cells:
        made.finish(cell, STEPS)
    done, found = update(config)
    assert done == {"imported": 2, "unchanged": 0, "waiting": 0}
    assert sorted(found) == ["epsilon-tiny-0", "v-tiny-0"]
    run = found["v-tiny-0"]
    began = BEGAN + 10_000
    assert run["status"] == "FINISHED"
    assert run["span"] == (began * 1000, (began + 61) * 1000)
    lines = [made.line(made.cells[1], step) for step in STEPS]
    assert run["points"]["loss"] == [(line["step"], line["loss"], round(line["time"] * 1000)) for line in lines]
    assert [value for _, value, _ in run["points"]["loss_by_time/quarter_3"]] == [
        line["loss_by_quarter"][2] for line in lines
    ]
    assert [(step, value) for step, value, _ in run["points"]["draws/FD_digits_features"]] == [(0, 41.0), (1, 42.0)]
    assert [value for _, value, _ in run["points"]["FD_digits_features"]] == [41.5]
    assert run["parameters"]["training.steps"] == "2500" and run["parameters"]["sampling.steps"] == "50"
    assert run["tags"].items() >= {"parameterization": "v", "scale": "tiny", "seed": "0", "status": "done"}.items()
    assert run["tags"]["mlflow.source.git.commit"] == "c" * 40
    assert sorted(run["files"]) == [
        "manifest.json",
        "samples/ddim-50-draw0.png",
        "samples/ddim-50-draw1.png",
        "training.json",
    ]
    assert run["files"]["manifest.json"] == sha256_of_file(made.cells[1].folder / "manifest.json")
    (dataset,) = run["datasets"]
    assert dataset["dataset"]["name"] == "digits"
    assert dataset["dataset"]["digest"] == DIGEST[:36]
    assert json.loads(dataset["dataset"]["profile"])["sha256"] == DIGEST


def test_a_second_import_changes_nothing(config, made):
    made.finish(made.cells[0], STEPS)
    made.log(made.cells[1], STEPS, saved=40)
    _, before = update(config)
    assert update(config) == ({"imported": 0, "unchanged": 2, "waiting": 0}, before)


def _live(config, made):
    """Take a cell from its first line to its end through a kill, importing all the way; return what was seen."""
    cell, ours, sent, seen = made.cells[0], importer.Importer(config), [], []
    log_batch = MlflowClient.log_batch

    def counted(client, run_id, metrics=(), **options):
        sent.append(len(metrics))
        return log_batch(client, run_id, metrics=metrics, **options)

    MlflowClient.log_batch = counted

    def look_now():
        sent.clear()
        ours.update()
        run = look_here(HERE, config["study"])[cell.name]
        losses = [(step, when) for step, _, when in run["points"].get("loss", [])]
        ended = run["span"][1] / 1000 - BEGAN
        seen.append((run["id"], run["status"], ended, sum(sent), losses, "progress" in run["tags"]))

    made.log(cell, [20])
    look_now()
    made.log(cell, [20, 40, 60], saved=40)
    look_now()
    made.log(cell, [20, 40, 60, 80], saved=60, alive=False)
    look_now()
    # Resumed after step 60: what follows is trained again, later.
    earlier = made.line
    made.line = lambda cell, step: (
        earlier(cell, step) | ({"time": earlier(cell, step)["time"] + 500} if step > 60 else {})
    )
    made.log(cell, [20, 40, 60, 80, 100], saved=100)
    look_now()
    made.publish(cell, [20, 40, 60, 80, 100, 120])
    look_now()
    made.measure(cell, 0)
    look_now()
    made.finish(cell, [20, 40, 60, 80, 100, 120])
    look_now()
    look_now()
    return seen


def test_a_run_grows_in_place_and_ends_as_if_made_at_once(config, made, empty_database):
    seen = apart(_live, config, made)
    ids, states, ended, sent, losses, progress = zip(*seen, strict=True)
    assert len(set(ids)) == 1
    assert states == ("RUNNING", "RUNNING", "KILLED", "RUNNING", "SCHEDULED", "SCHEDULED", "FINISHED", "FINISHED")
    assert ended == (20, 60, 80, 600, 621, 621, 621, 621), "the last sign of life, saved or not"
    assert sent == (0, 18, 9, 18, 9, 2, 4, 0), "no point is sent twice"
    whole = [(step, round((BEGAN + step + (500 if step > 60 else 0)) * 1000)) for step in (20, 40, 60, 80, 100, 120)]
    assert list(losses) == [[], whole[:2], whole[:3], whole[:5], whole, whole, whole, whole]
    assert progress == (True,) * 6 + (False, False)
    assert without_ids(look(config)) == from_nothing(config, empty_database)


def test_a_cell_trained_anew_is_told_anew(config, made, empty_database):
    """The last saved state was lost, so the training began again under the same specification."""
    cell = made.cells[0]
    made.log(cell, STEPS, saved=60)
    update(config)
    made.delay = 1000.0
    made.log(cell, [20, 40], saved=40)
    _, found = update(config)
    assert [when for _, _, when in found[cell.name]["points"]["loss"]] == [
        (BEGAN + 1000 + s) * 1000 for s in (20, 40)
    ]
    assert without_ids(found) == from_nothing(config, empty_database)


def test_another_specification_is_another_run_in_the_same_place(config, made):
    for cell in made.cells:
        made.finish(cell, STEPS)
    _, before = update(config)
    config["parameterizations"]["v"] = {"target": "v", "weighting": "snr"}
    again = Files(config)
    unchanged = {"imported": 0, "unchanged": 1, "waiting": 1}
    assert update(config) == (unchanged, before), "a run stays until its cell has something new"
    again.finish(made.cells[1], STEPS)
    done, after = update(config)
    assert done == {"imported": 1, "unchanged": 1, "waiting": 0}
    assert after["epsilon-tiny-0"] == before["epsilon-tiny-0"]
    assert after["v-tiny-0"]["id"] != before["v-tiny-0"]["id"]
    assert after["v-tiny-0"]["parameters"]["variant.weighting"] == "snr"


def test_a_deleted_database_is_rebuilt_equal_run_by_run(config, made):
    made.finish(made.cells[0], STEPS)
    made.log(made.cells[1], STEPS, saved=40, alive=False)
    _, before = update(config)
    Path("mlflow.db").unlink()
    _, after = update(config)
    assert without_ids(after) == without_ids(before)
    assert after["v-tiny-0"]["id"] != before["v-tiny-0"]["id"]


def _following(config, made):
    """Follow a study of which each look finds more; return what each time was done, and whether it waited."""
    epsilon, v = made.cells
    to_come = [
        lambda: made.log(epsilon, STEPS, saved=40),
        lambda: made.finish(epsilon, STEPS),
        lambda: None,
        lambda: (made.log(v, STEPS, saved=40), made.fail(v, "error: No space left on device")),
    ]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        to_come.pop(0)()

    importer.time.sleep = sleep
    done = [count(each) for each in importer.Importer(config).follow(7)]
    return done, slept, to_come, look_here(HERE, config["study"])


def test_following_ends_when_no_cell_can_move_and_has_told_everything(config, made, empty_database):
    done, slept, to_come, found = apart(_following, config, made)
    assert done == [
        {"imported": 0, "unchanged": 0, "waiting": 2},
        {"imported": 1, "unchanged": 0, "waiting": 1},
        {"imported": 1, "unchanged": 0, "waiting": 1},
        {"imported": 0, "unchanged": 1, "waiting": 1},
        {"imported": 1, "unchanged": 1, "waiting": 0},
    ]
    assert slept == [7] * 4 and to_come == []
    assert [found[cell.name]["status"] for cell in made.cells] == ["FINISHED", "FAILED"]
    assert without_ids(found) == from_nothing(config, empty_database)


def test_ctrl_c_ends_following_in_one_line(config, made):
    made.log(made.cells[0], STEPS, saved=40)
    following = targetwise("track", "--follow", "0.1", *configured(config))
    assert "workflowType=machine_learning" in following.stdout.readline()
    assert following.stdout.readline() == "1 imported, 0 unchanged, 1 waiting\n"
    following.send_signal(signal.SIGINT)
    _, complaints = following.communicate(timeout=60)
    assert following.returncode == EXIT_INTERRUPTED
    assert complaints.startswith("interrupted") and complaints.count("\n") == 1


def test_an_inherited_server_is_not_asked(config, made, project):
    """Nor does an inherited wish for writing later leave anything unwritten."""
    made.finish(made.cells[0], STEPS)
    inherited = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_ENABLE_ASYNC_LOGGING": "true"}
    done = targetwise("track", *configured(config), **inherited)
    words, complaints = done.communicate(timeout=60)
    assert done.returncode == 0, complaints
    assert words.splitlines()[1:] == ["1 imported, 0 unchanged, 1 waiting"]
    assert "epsilon-tiny-0" in look(config)
    assert list((project / "mlruns").rglob("training.json"))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (None, ["mlflow.db", "file is not a database", "delete mlflow.db"]),
        ("http://127.0.0.1:9", ["http://127.0.0.1:9", "start the server, or leave tracking.uri out"]),
    ],
)
def test_what_cannot_be_written_to_is_one_line(config, made, monkeypatch, uri, words):
    made.finish(made.cells[0], STEPS)
    config["tracking"] = {"uri": uri}
    Path("mlflow.db").write_text("garbage" * 100)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as raised:
        update(config)
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


def test_a_server_receives_the_same(config, made, project, tmp_path_factory):
    """And keeps the runs of another project with a study of the same name apart."""
    made.finish(made.cells[0], STEPS)
    made.log(made.cells[1], STEPS, saved=40, alive=False)
    _, here = update(config)
    others = tmp_path_factory.mktemp("others")
    shutil.copytree(project, others, symlinks=True, dirs_exist_ok=True)
    (others / "results/.tracking.lock").unlink()
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "server", "--backend-store-uri", "sqlite:///server.db") as uri:
        config["tracking"] = {"uri": uri}
        done = targetwise("track", *configured(config))
        words, complaints = done.communicate(timeout=PATIENCE)
        assert done.returncode == 0, complaints
        where, what = words.splitlines()
        assert f" {uri}/#/experiments/" in where and what == "2 imported, 0 unchanged, 0 waiting"
        there = look(config, uri)
        assert without_ids(there) == without_ids(here)
        with contextlib.chdir(others):
            assert apart(import_once, config) == {"imported": 2, "unchanged": 0, "waiting": 0}
        assert apart(import_once, config) == {"imported": 0, "unchanged": 2, "waiting": 0}
        runs = MlflowClient(uri).search_runs([MlflowClient(uri).get_experiment_by_name("digits").experiment_id])
        assert {run["id"] for run in there.values()} < {run.info.run_id for run in runs} and len(runs) == 4
