"""What the files of a cell say of it, and that MLflow says the same: its state, its curve, its reason."""

import json

from mlflow_tools import update
from synthetic import BEGAN, Files

from targetwise.operations import status
from targetwise.tracking import runs

STEPS = [20, 40, 60]


def running(made, cell):
    made.log(cell, STEPS, saved=60)


def killed(made, cell):
    made.log(cell, STEPS, saved=40, alive=False)


def killed_after_it_spoke(made, cell):
    made.fail(cell, "train v-tiny-0: 45/600 steps, 3.0 steps/s")
    killed(made, cell)


def stopped(made, cell):
    killed(made, cell)
    made.fail(cell, "stopped: train v-tiny-0: the time budget is used up; state saved after step 40 of 2500")


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
    (running, "RUNNING", 3, "step 60 of 2500"),
    (killed, "KILLED", 2, "step 40 of 2500 is saved"),
    (killed_after_it_spoke, "KILLED", 2, "step 40 of 2500 is saved"),
    (stopped, "KILLED", 2, "step 40 of 2500 is saved"),
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
        assert run["span"][0] <= run["span"][1], happen
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


def test_a_single_draw_is_told_once(config):
    config["sampling"]["draws"] = 1
    made = Files(config)
    made.finish(made.cells[0], STEPS)
    run = runs.Runs(config).describe(status.standings(config)[0])
    assert [point.name for point in run.points][-2:] == ["FD_digits_features", "kid"]
    assert not [point for point in run.points if point.name.startswith("draws/")]
