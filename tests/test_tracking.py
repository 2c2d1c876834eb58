"""What MLflow is told of a study: by files alone, while it runs and after it, through kills and rebuilds.

MLflow keeps a database open for as long as a process lives, so every import and every look is a process of its own.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow_server import serving
from synthetic import BEGAN, DIGEST, Files

from targetwise.errors import EXIT_INTERRUPTED, UserError
from targetwise.files import sha256_of_file
from targetwise.operations import status
from targetwise.records import runs, tracking

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
HERE = "sqlite:///mlflow.db"
FORK = get_context("fork")
STEPS = [20, 40, 60]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database of MLflow's in which nothing is; it takes seconds to make."""
    folder = tmp_path_factory.mktemp("empty")
    with contextlib.chdir(folder):
        apart(_open, HERE)
    return folder / "mlflow.db"


def _open(uri):
    MlflowClient(uri).search_experiments()


@pytest.fixture
def config(study, project, empty_database):
    """Two cells of the demo with two draws of samples each, in a project whose MLflow is empty."""
    shutil.copy(empty_database, project / "mlflow.db")
    study["grid"] |= {"parameterizations": ["epsilon", "v"], "seeds": [0]}
    study["sampling"]["draws"] = 2
    return study


@pytest.fixture
def made(config):
    """The files of the study's cells."""
    return Files(config)


def apart(function, *arguments):
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return pool.submit(function, *arguments).result()


def count(done):
    return {what: len(names) for what, names in done.items()}


def _import(config):
    return count(tracking.Importer(config).update())


def _update(config):
    return _import(config), _look(HERE, config["study"])


def update(config):
    """Import the study once; return what was done, and all that MLflow then has of it, by the runs' names."""
    return apart(_update, config)


def look(config, uri=HERE):
    """Return all that MLflow has of a study, by the runs' names."""
    return apart(_look, uri, config["study"])


def _look(uri, study):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run is doubled"
    return {run.info.run_name: _all_of(client, run) for run in found}


def _all_of(client, run):
    run_id, info, data = run.info.run_id, run.info, run.data
    curves = {key: client.get_metric_history(run_id, key) for key in data.metrics}
    files, folders = {}, [None]
    while folders:
        for file in client.list_artifacts(run_id, folders.pop()):
            if file.is_dir:
                folders.append(file.path)
            else:
                files[file.path] = sha256_of_file(Path(client.download_artifacts(run_id, file.path)))
    return {
        "id": run_id,
        "status": info.status,
        "span": (info.start_time, info.end_time),
        "tags": {key: value for key, value in data.tags.items() if key != tracking.FOLDER_TAG},
        "parameters": data.params,
        "points": {key: sorted((m.step, m.value, m.timestamp) for m in curve) for key, curve in curves.items()},
        "datasets": [each.to_dictionary() for each in run.inputs.dataset_inputs],
        "files": files,
    }


def without_ids(found):
    return {name: {key: value for key, value in run.items() if key != "id"} for name, run in found.items()}


def from_nothing(config, empty_database):
    """Return all that MLflow has after the study was imported into an empty database."""
    shutil.copy(empty_database, "mlflow.db")
    _, found = update(config)
    return without_ids(found)


# --- a run says what the files say


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
    assert run["parameters"]["training.steps"] == "600" and run["parameters"]["sampling.steps"] == "50"
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


def running(made, cell):
    made.log(cell, STEPS, saved=60)


def killed(made, cell):
    made.log(cell, STEPS, saved=40, alive=False)


def killed_after_it_spoke(made, cell):
    made.fail(cell, "train v-tiny-0: 45/600 steps, 3.0 steps/s")
    killed(made, cell)


def stopped(made, cell):
    killed(made, cell)
    made.fail(cell, "stopped: train v-tiny-0: the time budget is used up; state saved after step 40 of 600")


def failed(made, cell):
    killed(made, cell)
    made.fail(cell, "error: No space left on device")


def failed_at_once(made, cell):
    made.fail(cell, "error: the data are damaged")


def diverged(made, cell):
    made.publish(cell, STEPS, diverged="the loss was not finite at step 51")


def sampled_in_vain(made, cell):
    made.publish(cell, STEPS)
    for draw in range(2):
        made.measure(cell, draw, reason="the sampled images are not finite")


def trained(made, cell):
    made.publish(cell, STEPS)


def partly_measured(made, cell):
    made.publish(cell, STEPS)
    made.measure(cell, 0)


CASES = [
    (running, "RUNNING", 3, "step 60 of 600"),
    (killed, "KILLED", 2, "step 40 of 600 is saved"),
    (killed_after_it_spoke, "KILLED", 2, "45/600 steps"),
    (stopped, "KILLED", 2, "step 40 of 600 is saved"),
    (failed, "FAILED", 2, "error: No space left on device"),
    (failed_at_once, "FAILED", 0, "error: the data are damaged"),
    (diverged, "FAILED", 2, "the loss was not finite at step 51"),
    (sampled_in_vain, "FAILED", 3, "the sampled images are not finite"),
    (trained, "SCHEDULED", 3, "trained, not yet measured"),
    (partly_measured, "SCHEDULED", 3, "trained, not yet measured"),
]


def test_a_runs_state_is_its_cells(config, project):
    config["grid"] |= {"parameterizations": ["v"], "seeds": list(range(len(CASES) + 1))}
    made = Files(config)
    for (happen, *_), cell in zip(CASES, made.cells, strict=False):
        happen(made, cell)
    done, found = update(config)
    assert done == {"imported": len(CASES), "unchanged": 0, "waiting": 1}
    for (happen, state, losses, words), cell in zip(CASES, made.cells, strict=False):
        run = found[cell.name]
        assert run["status"] == state, happen
        assert len(run["points"].get("loss", [])) == losses, happen
        assert words in run["tags"]["reason" if state == "FAILED" else "progress"], happen
        assert (run["span"][1] is None) == (state == "RUNNING"), happen
    assert made.cells[-1].name not in found, "nothing was begun"


def test_what_was_left_by_another_specification_is_no_run(config, made):
    made.log(made.cells[0], STEPS, saved=40, alive=False)
    made.publish(made.cells[1], STEPS)
    for cell in made.cells:
        specification = cell.folder / "cell.json"
        specification.write_text(specification.read_text())  # younger than the log
    config["training"]["steps"] += 1
    assert [runs.Runs(config).describe(standing) for standing in status.standings(config)] == [None, None]


def test_a_training_by_a_rule_of_ones_own_is_a_run_too(config, made):
    cell = made.cells[0]
    made.finish(cell, STEPS)
    outcome = json.loads((cell.folder / "training.json").read_text())
    del outcome["key"]
    (cell.folder / "training.json").write_text(json.dumps(outcome))
    (cell.folder / "train.jsonl").write_text(json.dumps({"step": 20, "loss": 0.5, "time": BEGAN}) + "\n")
    run = runs.Runs(config).describe(status.standings(config)[0])
    assert run.state == "FINISHED"
    assert [point for point in run.points if point.name == "loss"] == [("loss", 0.5, BEGAN * 1000, 20)]


# --- a run grows


def _live(config, made):
    """Take a cell from its first line to its end through a kill, importing all the way; return what was seen."""
    cell, importer, sent, seen = made.cells[0], tracking.Importer(config), [], []
    log_batch = MlflowClient.log_batch

    def counted(client, run_id, metrics=(), **options):
        sent.append(len(metrics))
        return log_batch(client, run_id, metrics=metrics, **options)

    MlflowClient.log_batch = counted

    def look_now():
        sent.clear()
        importer.update()
        run = _look(HERE, config["study"])[cell.name]
        losses = [(step, when) for step, _, when in run["points"].get("loss", [])]
        seen.append((run["id"], run["status"], sum(sent), losses, "progress" in run["tags"]))

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
    ids, states, sent, losses, progress = zip(*seen, strict=True)
    assert len(set(ids)) == 1
    assert states == ("RUNNING", "RUNNING", "KILLED", "RUNNING", "SCHEDULED", "SCHEDULED", "FINISHED", "FINISHED")
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


# --- the importer is cut off, doubled, interrupted, misled


#: All by which the importer changes anything.
WRITES = (
    *("create_experiment", "create_run", "log_batch", "delete_tag", "log_inputs", "log_artifacts"),
    *("update_run", "set_terminated", "set_tag", "delete_run"),
)


class Killed(BaseException):
    """The importer is gone, and has done nothing more."""


def _killed_at_any_write(half, whole):
    """Import ``half``, then ``whole`` with a kill after each possible write; return what the next import makes of it.

    The first that is returned is of an import that was not cut off. Each has an experiment of its own.
    """
    client, calls, last = MlflowClient(HERE), 0, 0

    def counted(write):
        def call(*arguments, **options):
            nonlocal calls
            done = write(*arguments, **options)
            calls += 1
            if calls == last:
                raise Killed
            return done

        return call

    for name in WRITES:
        setattr(client, name, counted(getattr(client, name)))
    tracking.BATCH = 20
    found = []
    while True:
        name = f"killed after {len(found)}"
        for part in (half, whole):
            calls, last = 0, len(found) if part is whole else 0
            try:
                experiment = tracking.Experiment(client, name, {})
                for run in part:
                    experiment.write(run)
            except Killed:
                continue
        was_killed, calls, last = calls == last, 0, 0
        experiment = tracking.Experiment(client, name, {})
        for run in whole:
            experiment.write(run)
        found.append(without_ids(_look(HERE, name)))
        if len(found) > 1 and not was_killed:
            return found


def test_an_importer_killed_after_any_write_and_run_again_loses_and_doubles_nothing(config, made):
    """One cell's run is there and grows, the other's is made."""
    made.log(made.cells[0], STEPS, saved=40)
    half = [runs.Runs(config).describe(status.standings(config)[0])]
    for cell in made.cells:
        made.finish(cell, [*STEPS, 80])
    whole = [runs.Runs(config).describe(standing) for standing in status.standings(config)]
    expected, *found = apart(_killed_at_any_write, half, whole)
    assert set(expected) == {"epsilon-tiny-0", "v-tiny-0"}
    assert len(found) > 15
    for number, each in enumerate(found, 1):
        assert each == expected, f"killed after write {number}"


def targetwise(*arguments, **variables):
    """Start the command as one types it."""
    command = [sys.executable, "-c", "from targetwise.cli import main; main()", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def configured(config):
    """Write the configuration and return how it is given on the command line."""
    Path("overlay.json").write_text(json.dumps(config))
    return ["--configfile", "config/digits.yaml", "overlay.json"]


def test_200_cells_imported_by_two_at_once_both_killed_and_by_two_again(config, project):
    """On a database that is not there at first, so that both would make it."""
    (project / "mlflow.db").unlink()
    config["grid"]["seeds"] = list(range(100))
    made = Files(config)
    steps = list(range(20, 1020, 20))
    for cell in made.cells:
        made.finish(cell, steps)
    arguments = configured(config)
    two = [targetwise("track", *arguments) for _ in range(2)]
    while not rows("select 1 from runs where status = 'FINISHED' limit 1 offset 20"):
        assert [each.poll() for each in two] == [None, None], [each.communicate() for each in two]
        time.sleep(0.1)
    for each in two:
        each.kill()
        each.communicate()
    assert 20 <= rows("select count(*) from runs")[0][0] < 200
    ended = [each.communicate(timeout=300) for each in [targetwise("track", *arguments) for _ in range(2)]]
    said = sorted(words.splitlines()[-1] for words, _ in ended)
    assert said[0] == "0 imported, 200 unchanged, 0 waiting", ended
    assert "200 imported" not in said[1], "what was whole is not made again"
    assert rows("select count(*), count(distinct name) from runs") == [(200, 200)]
    lines = {cell.name: [made.line(cell, step) for step in steps] for cell in made.cells}
    losses = rows("select name, step, value, timestamp from metrics join runs using (run_uuid) where key = 'loss'")
    assert sorted(losses) == sorted(
        (name, line["step"], line["loss"], round(line["time"] * 1000))
        for name, each in lines.items()
        for line in each
    )
    assert rows("select count(*) from metrics group by run_uuid") == [(50 * 9 + 2 * 2 + 2,)] * 200


def rows(query):
    """Ask the database itself; nothing while it is not there."""
    try:
        with contextlib.closing(sqlite3.connect("file:mlflow.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


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

    tracking.time.sleep = sleep
    done = [count(each) for each in tracking.Importer(config).follow(7)]
    return done, slept, to_come, _look(HERE, config["study"])


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
        assert apart(_import, config) == {"imported": 2, "unchanged": 0, "waiting": 0}
        there = look(config, uri)
        assert without_ids(there) == without_ids(here)
        with contextlib.chdir(others):
            assert apart(_import, config) == {"imported": 2, "unchanged": 0, "waiting": 0}
        assert apart(_import, config) == {"imported": 0, "unchanged": 2, "waiting": 0}
        runs = MlflowClient(uri).search_runs([MlflowClient(uri).get_experiment_by_name("digits").experiment_id])
        assert {run["id"] for run in there.values()} < {run.info.run_id for run in runs} and len(runs) == 4
