"""Whatever is killed, whenever: the study ends as if nothing had been, and only what was not saved is repeated.

TARGETWISE_CRASH_SEED=n tries other moments; the rounds are random, so the same number need not hit the same moments.
"""

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from crashing import (
    CELLS,
    COMMAND,
    STEPS,
    Repeated,
    Study,
    numbers_of_steps,
    prepare,
    results,
    run,
    set_interval,
    trace,
)

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project before its first run; the study has run undisturbed in a copy of it."""
    folder = tmp_path_factory.mktemp("crashes")
    prepare(folder / "project")
    shutil.copytree(folder / "project", folder / "undisturbed", symlinks=True)
    done = run(folder / "undisturbed", *COMMAND)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_study_that_is_killed_again_and_again_ends_like_one_that_was_not(prepared, tmp_path, rounds):
    undisturbed, numbers = results(prepared / "undisturbed"), numbers_of_steps(prepared / "undisturbed")
    seed = int(os.environ.get("TARGETWISE_CRASH_SEED", "0"))
    chance = random.Random(f"{seed} {rounds}")
    kills, studies, steps, worst = [], 0, 0, {0.0: 0.0, 1.0: 0.0}
    while len(kills) < rounds:
        project = tmp_path / f"study{studies}"
        shutil.copytree(prepared / "project", project, symlinks=True)
        study = Study(project, chance, chance.choice([0.0, 1.0]))
        set_interval(project, study.save_every)
        study.finish(min(rounds - len(kills), chance.randint(5, 15)))
        assert results(project) == undisturbed
        repeated = Repeated()
        for cell in map(str, CELLS):
            lines = [line for line in trace(project) if line["cell"] == cell]
            repeated.add(lines, [numbers[cell, str(line["drawn"])] for line in lines], study.save_every)
        assert not list(project.glob("results/**/kept")) and not list(project.glob("results/**/state"))
        kills += study.kills
        studies += 1
        steps += repeated.steps
        worst[study.save_every] = max(worst[study.save_every], repeated.worst)
        report = {
            "kills": len(kills),
            "studies": studies,
            "steps_repeated": steps,
            "worst_seconds_repeated_by_save_interval": worst,
            "victims": Counter(kill.victim for kill in kills),
            "signals": Counter(kill.signal for kill in kills),
            "during": Counter(kill.during for kill in kills),
        }
        if target := os.environ.get("TARGETWISE_CRASH_REPORT"):
            Path(target).write_text(json.dumps(report, indent=2))
        shutil.rmtree(project)
    print(json.dumps(report, indent=2))


@pytest.fixture
def study(prepared, tmp_path):
    """A study that has not begun, and saves so seldom that every start from nothing shows."""
    shutil.copytree(prepared / "project", tmp_path / "project", symlinks=True)
    set_interval(tmp_path / "project", 1000)
    return Study(tmp_path / "project", random.Random(0), 1000)


def eventually(condition, what):
    until = time.monotonic() + 200
    while not (found := condition()):
        assert time.monotonic() < until, f"still not: {what}"
        time.sleep(0.005)
    return found


def steps_taken(study):
    return Counter(line["cell"] for line in trace(study.project))


def test_what_finishes_after_its_driver_was_killed_is_not_made_again(study, prepared):
    """No state was saved: a second training would begin from nothing, and the trace would show it."""
    driver = study.start(COMMAND)
    eventually(lambda: len(steps_taken(study)) == len(CELLS), "both trainers are at work")
    driver.kill()
    driver.wait()
    study.wait_for_orphans()
    assert all((study.project / cell / "training.json").exists() for cell in CELLS)
    driver = study.start(COMMAND)
    eventually(lambda: "sample" in study.processes(), "a sampler is at work")
    assert "note: an earlier run was killed (study digits, host " in study.words
    driver.kill()
    driver.wait()
    study.wait_for_orphans()
    sampled = {path: path.read_bytes() for path in study.project.glob("results/digits/*/tiny/seed1/samples/*/*.json")}
    assert sampled
    assert study.start(COMMAND).wait(timeout=300) == 0, study.words[-3000:]
    assert steps_taken(study) == dict.fromkeys(map(str, CELLS), STEPS)
    assert {path: path.read_bytes() for path in sampled} == sampled, "with the seconds that the first one took"
    assert results(study.project) == results(prepared / "undisturbed")


def test_a_kill_after_the_last_step_loses_nothing_and_the_last_words_say_how_to_go_on(study, prepared):
    driver = study.start([*COMMAND[:3], "--quiet", "rules", *COMMAND[3:]])
    record = study.project / CELLS[0] / "kept/train/record.json"
    eventually(record.exists, "the training is whole")
    for trainer in study.processes()["train"]:
        if str(CELLS[0]) in " ".join(trainer.cmdline()):
            trainer.kill()
    assert driver.wait(timeout=300) == 1
    assert not (study.project / CELLS[0] / "training.json").exists(), "Snakemake has deleted it"
    *_, why, how = study.words.strip().splitlines()
    assert why.startswith("failed: train digits epsilon tiny 1 (results/digits/epsilon/tiny/seed1/log/train.log): ")
    assert how == "the same command goes on: snakemake --cores 2 --quiet rules --configfile config/digits.yaml -- all"
    assert study.start(study.named_command()).wait(timeout=300) == 0, study.words[-3000:]
    assert steps_taken(study) == dict.fromkeys(map(str, CELLS), STEPS)
    assert results(study.project) == results(prepared / "undisturbed")
