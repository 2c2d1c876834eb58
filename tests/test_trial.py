"""An idea tried beside what a study has finished: `targetwise try FILE`, for real and where it must refuse."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import EXAMPLE, ROOT, copy_working_tree, link_workflow
from synthetic import Files

from targetwise import cells, errors
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_file
from targetwise.operations import trial
from targetwise.operations.examination import candidate
from targetwise.recipe import config

STUDY = ["--configfile", "config/digits.yaml", "tests/tiny.yaml"]
MINE = '''"""y = (ε − x_0)/2."""


def compute_training_target(x_0, noise, timesteps, schedule):
    return (noise - x_0) / 2


def predict_x0(model_output, x_t, timesteps, schedule):
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return (x_t - 2 * b * model_output) / (a + b)
'''


# --- for real


def typed(project, *words):
    mine = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=project, env=mine, capture_output=True, text=True, timeout=580)


def values(project, study, name):
    """Return a variant's values by seed, read off its rows."""
    rows = (project / "results" / study / name / "tiny").glob("seed*/fid/*/draw0.json")
    return {row["cell"]["seed"]: row["value"] for row in map(read_json, rows)}


@pytest.mark.deep
def test_a_file_is_trained_beside_a_study_and_compared_seed_by_seed(tmp_path):
    project = tmp_path / "project"
    copy_working_tree(project)
    rows = [
        f"results/tiny/{name}/tiny/seed{seed}/fid/ddim-4/draw0.json" for name in ("v", "epsilon") for seed in (0, 1)
    ]
    done = typed(project, "snakemake", "--cores", "2", *STUDY, "--", *rows)
    assert done.returncode == 0, done.stderr[-4000:]
    before = {path: sha256_of_file(path) for path in (project / "results/tiny").rglob("*") if path.is_file()}
    (tmp_path / "mine.py").write_text(MINE)
    done = typed(project, "targetwise", "try", "../mine.py", *STUDY)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]

    lines = done.stdout.splitlines()
    found = {
        name: values(project, study, name)
        for study, name in (("tiny_try", "mine"), ("tiny", "v"), ("tiny", "epsilon"))
    }
    assert all(sorted(each) == [0, 1] for each in found.values())
    table = {line.split()[0]: line.split()[1:] for line in lines if re.match(r"(mine|v|epsilon) +\d", line)}
    for name, each in found.items():
        assert float(table[name][0].replace(",", "")) == pytest.approx(sum(each.values()) / 2, rel=5e-3)
        assert table[name][-1] == "2"
    for other in ("v", "epsilon"):
        (line,) = [line for line in verdicts(lines) if re.search(rf"\b{other}\b", line)]
        mine, theirs = (np.log([found[name][seed] for seed in (0, 1)]) for name in ("mine", other))
        ratio = float(np.exp(theirs.mean() - mine.mean()))
        if line.startswith("resolved: "):
            lower, higher, share = re.search(r"(\w+) is below (\w+) by ([\d.]+) %", line).groups()
            assert [lower, higher] == (["mine", other] if ratio > 1 else [other, "mine"])
            assert float(share) == pytest.approx(100 * (1 - min(ratio, 1 / ratio)), rel=0.02, abs=0.6)
        else:
            assert float(re.search(r"(?:=|is) ([\d.]+) \(", line)[1]) == pytest.approx(ratio, rel=0.01)
        assert re.search(r"% interval \S+ ", line) and "2 seeds" in line

    # What was there stays as it was, and the file is where a study can name it.
    assert {path: sha256_of_file(path) for path in before} == before
    assert (project / "workflow/parameterizations/mine.py").read_text() == MINE
    assert "  mine: {target: mine}" in lines
    trained = {path: path.stat().st_mtime_ns for path in (project / "results/tiny_try").rglob("draw0.*")}
    again = typed(project, "targetwise", "try", "mine", *STUDY)
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "what is made is not made again"
    assert verdicts(again.stdout.splitlines()) == verdicts(lines)


def verdicts(lines):
    return [line for line in lines if re.match(r"(resolved|not resolved|equivalent|too few seeds): ", line)]


# --- refused, with nothing left behind


@pytest.fixture
def project(tmp_path, monkeypatch):
    link_workflow(tmp_path)
    for name in ("config.yaml", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(seeds=(0, 1, 2)):
    """Finish every cell of the demo, without training."""
    study = config.merge(EXAMPLE, {"grid": {"seeds": list(seeds)}})
    made = Files(study)
    for cell in made.cells:
        made.finish(cell, [20, 40])
    return study


def test_without_anything_finished_it_says_what_makes_it(project):
    with pytest.raises(UserError) as caught:
        trial.baselines(EXAMPLE, [Path("config/digits.yaml")])
    assert str(caught.value) == (
        "no cell of study digits is finished, so there is nothing to compare with; `make demo` makes them"
    )
    with pytest.raises(UserError, match=re.escape("`snakemake --cores all all --configfile a.yaml` makes them")):
        trial.baselines(EXAMPLE, [Path("a.yaml")])


def test_a_trial_is_a_study_of_its_own_at_the_scale_and_with_the_seeds_that_are_finished(project):
    study = finished(seeds=(3, 5))
    beside = trial.baselines(study, [])
    own, file = trial.prepare(study, candidate(study, "mine.py", ["weighting=snr"]), beside)
    assert [cell.name for cell in cells.grid(own)] == ["mine_snr-tiny-3", "mine_snr-tiny-5"]
    assert own["study"] == "digits_try"
    assert own["parameterizations"]["mine_snr"] == {"target": "mine", "weighting": "snr"}
    assert config.load([Path("config/digits.yaml"), file]) == own
    assert Path("workflow/parameterizations/mine.py").read_text() == MINE


def test_only_finished_seeds_are_trained(project):
    study = finished()
    for cell in cells.grid(study):
        if cell.seed == 1:
            (cell.folder / "training.json").unlink()
    own, _ = trial.prepare(study, candidate(study, "mine.py"), trial.baselines(study, []))
    assert own["grid"]["seeds"] == [0, 2]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("v", "study digits has v and has finished it; another idea needs another name"),
        ("./u.py", "workflow/parameterizations/u.py is another file than u.py; give yours another name"),
    ],
)
def test_a_name_that_is_taken_is_refused_and_nothing_is_written(project, what, said):
    study = finished()
    Path("u.py").write_text(MINE)
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    with pytest.raises(UserError) as caught:
        trial.prepare(study, candidate(study, what), trial.baselines(study, []))
    assert str(caught.value) == said
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_file_that_is_refused_is_not_trained(project):
    finished()
    Path("mine.py").write_text(MINE.replace("2 * b", "b"))
    before = sorted(project.rglob("*"))
    words = ("targetwise", "try", "mine.py", "--configfile", "config/digits.yaml")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == errors.EXIT_ERROR
    assert "parameterization mine: predict_x0 does not invert compute_training_target: at t = " in done.stderr
    assert sorted(project.rglob("*")) == before


def test_what_fails_while_it_is_made_is_said_and_the_way_on(project, monkeypatch):
    study = finished()
    own, file = trial.prepare(study, candidate(study, "mine.py"), trial.baselines(study, []))
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(trial.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"the trial did not finish .exit code 1.; .* the same command goes on from"):
        trial.train(own, [file])


def test_rows_that_measure_something_else_are_not_compared(project):
    study = finished()
    beside = trial.baselines(study, [])
    own, _ = trial.prepare(study, candidate(study, "mine.py"), beside)
    made = Files(own)
    for cell in made.cells:
        made.finish(cell, [20, 40])
    lines = verdicts(trial.compare(own, beside))
    assert len(lines) == 3 and all(re.search(r"\bmine\b", line) for line in lines)
    others = [re.search(r"\b(epsilon|v|x0)\b", line)[0] for line in lines]
    assert sorted(others) == ["epsilon", "v", "x0"]
    with pytest.raises(UserError, match="the rows cannot be put in one table, because n differs"):
        trial.compare(own, beside.assign(n=beside["n"] + 1))


def test_each_sampling_of_the_study_is_compared_by_itself(project):
    samplings = {"samplings": {"few": {"steps": 10}, "many": {"steps": 50}}}
    study = config.validate(config.merge(finished(), samplings | {"grid": {"samplings": ["few", "many"]}}))
    for each in (study, config.merge(study, {"study": "beside", "grid": {"parameterizations": ["edm_f"]}})):
        made = Files(each)
        for cell in made.cells:
            made.finish(cell, [20, 40])
    lines = trial.compare(each, trial.baselines(study, []))
    assert [line for line in lines if line.endswith(":")] == ["tiny, few:", "tiny, many:"]
    assert len(verdicts(lines)) == 2 * 3


def test_a_diverged_seed_of_the_trial_is_named(project):
    study = finished()
    beside = trial.baselines(study, [])
    own, _ = trial.prepare(study, candidate(study, "mine.py"), beside)
    made = Files(own)
    first, *others = made.cells
    for cell in others:
        made.finish(cell, [20, 40])
    made.publish(first, [20], diverged="loss was not finite at step 20")
    made.measure(first, reason="loss was not finite at step 20")
    lines = trial.compare(own, beside)
    assert lines[0] == "seed 0 diverged: loss was not finite at step 20"
    assert len(verdicts(lines)) == 3 and all("2 seeds" in line for line in verdicts(lines))


def test_what_next_can_be_pasted(project):
    study = finished()
    lines = trial.what_next(candidate(study, "mine.py", ["parameters.k=0.5", "weighting=p2"]))
    overlay = "parameterizations:\n" + next(line for line in lines if line.startswith("  mine_0p5_p2: "))
    Path("added.yaml").write_text(overlay)
    Path("workflow/parameterizations/mine.py").write_text(MINE)
    added = config.load([Path("added.yaml")])["parameterizations"]["mine_0p5_p2"]
    assert added == {"target": "mine", "parameters": {"k": 0.5}, "weighting": "p2"}
