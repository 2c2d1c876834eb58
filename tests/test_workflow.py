"""The whole DAG for real, on a study so small that it takes a minute: what runs, what does not run again, and what
a person reads when something is wrong. The tests share one copy of the project and follow one another."""

import html
import json
import math
import os
import re
import shlex
import shutil
import subprocess

import pandas as pd
import pytest
import yaml
from helpers import copy_working_tree

#: What runs again, beside its cells, when one variant is new or changed.
ONE_VARIANT = {"check_parameterization": 1, "ceiling": 1, "aggregate": 1, "report": 1, "track": 1, "version": 1}
RESULTS_SHOWN = ["table.csv", "comparisons.csv", "table.tex", "report.html"]
STUDY = ["--configfile", "config/digits.yaml", "tests/tiny.yaml"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the working tree, as a clone of it would be, with the pipeline run once."""
    copy = tmp_path_factory.mktemp("clone") / "project"
    copy_working_tree(copy)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
    ):
        subprocess.run(["git", *command], cwd=copy, check=True)
    done = snakemake(copy, "all")
    assert done.returncode == 0, done.stderr[-4000:]
    return copy


def environment(project):
    mine = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    mine.pop("MLFLOW_TRACKING_URI", None)
    return mine


def targetwise(project, *arguments):
    command = ["targetwise", *arguments]
    return subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=120)


def snakemake(project, *arguments, study=STUDY):
    command = ["snakemake", "--cores", "2", *study, "--", *arguments]
    if "-n" in arguments:
        command = ["snakemake", "-n", *study, "--", *(a for a in arguments if a != "-n")]
    mine = environment(project)
    return subprocess.run(command, cwd=project, env=mine, capture_output=True, text=True, timeout=600)


def planned(project, study=STUDY):
    """Return how many jobs of each rule a run would start."""
    done = snakemake(project, "-n", "all", study=study)
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).split("Job stats:")
    if len(table) == 1:
        assert "Nothing to be done" in table[0]
        return {}
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all")}


def edited(project, **changes):
    """Return --configfile arguments of the tiny study with ``changes`` laid over it."""
    path = project / "tests" / "edit.yaml"
    path.write_text(json.dumps(changes))
    return [*STUDY, "tests/edit.yaml"]


def outputs(project, ending):
    return {path: path.stat().st_mtime_ns for path in (project / "results").rglob(f"*{ending}")}


def test_every_cell_has_a_row_with_its_digests(project):
    table = pd.read_csv(project / "results/tiny/table.csv")
    assert list(zip(table.parameterization, table.scale, table.seed, table.draw, strict=True)) == [
        ("epsilon", "tiny", 0, 0),
        ("epsilon", "tiny", 1, 0),
        ("v", "tiny", 0, 0),
        ("v", "tiny", 1, 0),
    ]
    assert set(table.status) == {"finished"}
    assert set(table.metric) == {"FD (digits features)"}
    assert table.value.between(0, 1e5).all() and table.value.nunique() == 4
    for column in ("extractor_sha256", "reference_sha256", "samples_sha256", "model_sha256"):
        assert table[column].str.fullmatch("[0-9a-f]{64}").all()
    assert table.samples_sha256.nunique() == 4
    paper = (project / "results/tiny/table.tex").read_text()
    assert re.findall(r"^(\w+) & [\d.]+ .* \(2\) ", paper, re.MULTILINE) == ["epsilon", "v"]
    pairs = pd.read_csv(project / "results/tiny/pairs.csv")
    assert pairs[["a", "b", "seeds"]].to_numpy().tolist() == [["epsilon", "v", 2]]
    means = table.groupby("parameterization").value.mean()
    assert pairs.difference[0] == pytest.approx(means["epsilon"] - means["v"])


def test_seeds_are_paired(project):
    """Both parameterizations of a seed saw the same steps, and the seeds differ."""
    curves = {
        (name, seed): [
            json.loads(line)
            for line in (project / f"results/tiny/{name}/tiny/seed{seed}/train.jsonl").read_text().splitlines()
        ]
        for name in ("epsilon", "v")
        for seed in (0, 1)
    }
    assert all([line["step"] for line in curve] == [4, 8, 12] for curve in curves.values())
    assert len({curve[0]["loss"] for curve in curves.values()}) == 4


def test_no_state_and_no_half_written_file_is_left(project):
    names = [path.name for path in (project / "results").rglob("*")] + [
        path.name for path in project.glob("data/**/*")
    ]
    assert not {"state", "kept"} & set(names)
    assert not [name for name in names if name.endswith(".part")]


def test_report_names_the_metric_and_every_parameterization(project):
    page = (project / "results/tiny/report.html").read_text()
    assert "FD (digits features)" in page
    assert "epsilon" in page
    assert "<script src" not in page and 'src="http' not in page


def test_the_page_of_all_studies_is_there_without_being_asked_for(project):
    page = (project / "results/index.html").read_text()
    assert '<a href="tiny/report.html">tiny</a>' in page and "snakemake" not in page
    answer = targetwise(project, "answer", *STUDY).stdout.splitlines()[0]
    assert html.escape(answer) in page and "epsilon (" in answer


def test_snakemakes_own_report_holds_what_is_worth_seeing_and_needs_no_network(project, tmp_path):
    page = tmp_path / "all.html"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = ["snakemake", "--report", str(page), *STUDY]
    mine = {**environment(project), **nowhere}
    done = subprocess.run(command, cwd=project, env=mine, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"^Adding (\S+)", done.stderr, re.MULTILINE) == RESULTS_SHOWN
    text = page.read_text()
    assert "Study <em>tiny</em> trains" in text
    captions = {path.stem: path.read_text() for path in (project / "workflow/report/captions").glob("*.rst")}
    shown = {name for name, words in captions.items() if f"<p>{words[:30]}" in text}
    assert shown == captions.keys() - {"claims"}


def test_mlflow_has_a_run_per_cell(project):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["epsilon-tiny-0", "epsilon-tiny-1", "v-tiny-0", "v-tiny-1"]
    table = pd.read_csv(project / "results/tiny/table.csv").set_index(["parameterization", "seed"])
    run = runs["v-tiny-1"]
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == "12"
    assert run.data.metrics["FD_digits_features"] == pytest.approx(table.value["v", 1])
    history = client.get_metric_history(run.info.run_id, "loss")
    lines = [
        json.loads(line) for line in (project / "results/tiny/v/tiny/seed1/train.jsonl").read_text().splitlines()
    ]
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (line["step"], line["loss"], round(line["time"] * 1000)) for line in lines
    ]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "samples")] == ["samples/ddim-4-draw0.png"]


def test_second_run_does_nothing(project):
    assert planned(project) == {}


def test_git_sees_no_change(project):
    status = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_dataset_made_again_retrains_nothing(project):
    before = outputs(project, "model.safetensors")
    dataset = project / "data/digits/dataset.npz"
    content, made = dataset.read_bytes(), dataset.stat().st_mtime_ns
    dataset.unlink()
    done = snakemake(project, "data/digits/dataset.npz")
    assert done.returncode == 0, done.stderr[-3000:]
    assert dataset.read_bytes() == content and dataset.stat().st_mtime_ns > made
    done = snakemake(project, "all")
    assert done.returncode == 0, done.stderr[-3000:]
    assert outputs(project, "model.safetensors") == before
    assert planned(project) == {}
    (project / ".snakemake").rename(project / "records")
    try:
        assert planned(project) == {}, "neither when Snakemake's records are lost as well"
    finally:
        shutil.rmtree(project / ".snakemake")
        (project / "records").rename(project / ".snakemake")


@pytest.mark.deep
def test_what_is_missing_is_made_again_however_new_the_report_is(project):
    """What costs a training comes back from what is there; the rest is computed once more."""
    results = project / "results/tiny"
    weights = {path: path.read_bytes() for path in results.rglob("model.safetensors")}
    facts = {path: path.read_bytes() for path in results.rglob("training.json")}
    lost = [
        project / "data/digits/dataset.npz",
        results / "table.csv",
        results / "v/check.json",
        results / "epsilon/tiny/seed0/fid/ddim-4/draw0.json",
        results / "epsilon/tiny/seed1/manifest.json",
        results / "floor.json",
    ]
    before = {path: path.read_bytes() for path in lost[:3]}
    for path in lost:
        path.unlink()
    done = snakemake(project, "all")
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(path.exists() for path in lost) and planned(project) == {}
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.read_bytes() for path in weights} == weights
    assert {path: path.read_bytes() for path in facts} == facts, "with the time at which they were trained"
    assert "note: 11 finished results are up to date; put back, not made again" in done.stdout


@pytest.mark.deep
def test_a_training_that_somebody_forces_is_made_again(project):
    facts = project / "results/tiny/v/tiny/seed1/training.json"
    trained = json.loads(facts.read_text())
    done = snakemake(project, "all", study=[*STUDY, "--forcerun", str(facts.relative_to(project))])
    assert done.returncode == 0, done.stderr[-3000:]
    again = json.loads(facts.read_text())
    assert again["finished_at"] > trained["finished_at"] and again["model_sha256"] == trained["model_sha256"]


@pytest.mark.deep
def test_the_command_that_a_message_names_makes_a_damaged_file_again(project):
    row = project / "results/tiny/v/tiny/seed0/fid/ddim-4/draw0.json"
    whole = json.loads(row.read_text())
    row.write_text("{")
    done = targetwise(project, "table", *STUDY)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: results/tiny/v/tiny/seed0/fid/ddim-4/draw0.json is damaged (")
    row.unlink()
    (command,) = re.findall("`(.*)`", line)
    assert command == "snakemake --cores all all --configfile results/tiny/study.json"
    done = subprocess.run(shlex.split(command), cwd=project, env=environment(project), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {**json.loads(row.read_text()), "seconds": 0} == {**whole, "seconds": 0}
    assert planned(project) == {}


def test_changed_variant_is_known_without_snakemakes_records(project):
    """Dates are all that is left then, so this comes before anything has rewritten a specification."""
    (project / ".snakemake").rename(project / "records")
    try:
        assert planned(project) == {}
        jobs = planned(project, edited(project, parameterizations={"v": {"weighting": "snr"}}))
    finally:
        planned(project)  # puts the specifications back
        shutil.rmtree(project / ".snakemake")
        (project / "records").rename(project / ".snakemake")
    assert jobs == {**ONE_VARIANT, "train": 2, "sample": 2, "fid": 2, "manifest": 2}
    assert planned(project) == {}


def test_new_parameterization_runs_only_its_own_cells(project):
    shutil.copy(project / "workflow/parameterizations/v.py", project / "workflow/parameterizations/velocity.py")
    try:
        jobs = planned(project, edited(project, grid={"parameterizations": ["epsilon", "v", "velocity"]}))
    finally:
        (project / "workflow/parameterizations/velocity.py").unlink()
        planned(project)  # puts the specifications back
    assert jobs == {**ONE_VARIANT, "train": 2, "sample": 2, "fid": 2, "manifest": 2}


@pytest.mark.deep
def test_a_claim_as_the_documents_write_it_brings_its_cells_and_gets_a_verdict(project):
    section = (project / "docs/extending.md").read_text().split("## A claim\n")[1].split("\n## ")[0]
    claim, study = re.findall(r"^```yaml\n([\s\S]*?)^```", section, re.MULTILINE)
    path = project / re.search(r"`(workflow/claims/\w+\.yaml)`", section)[1]
    path.write_text(claim)
    grid = yaml.safe_load(study)["grid"]
    assert [path.stem] == grid["claims"]
    laid_over, table = edited(project, grid=grid), "results/tiny/claims.csv"
    try:
        done = snakemake(project, table, study=laid_over)
        again = snakemake(project, "-n", table, study=laid_over)
        told = targetwise(project, "claims", *laid_over)
    finally:
        path.unlink()
        planned(project)  # puts the specifications back
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Nothing to be done" in again.stdout + again.stderr
    (row,) = pd.read_csv(project / table).to_dict("records")
    assert (row["claim"], row["left"], row["right"], row["seeds"]) == (path.stem, "epsilon_v", "epsilon", 2)
    rows = (json.loads(each.read_text()) for each in project.glob("results/tiny/epsilon*/*/*/fid/*/draw0.json"))
    logs = {(r["cell"]["parameterization"], r["cell"]["seed"]): math.log(r["value"]) for r in rows}
    expected = sum(logs["epsilon_v", seed] - logs["epsilon", seed] for seed in (0, 1)) / 2
    assert row["estimate"] == pytest.approx(math.exp(expected)) and row["low"] < row["estimate"] < row["high"]
    (entry,) = json.loads((project / "results/tiny/declared_claims.json").read_text())
    assert entry["values"] == 2, "of epsilon's cells, which were there"
    assert row["marks"] == "declared after 2 values were there" and row["sha256"] == entry["sha256"]
    assert row["verdict"] in told.stdout and row["says"] in told.stdout, told.stderr


def test_sampler_change_retrains_nothing(project):
    jobs = planned(project, edited(project, sampling={"steps": 5}))
    planned(project)
    assert "train" not in jobs and jobs["sample"] == 4 and jobs["fid"] == 4


def test_dry_run_of_an_edited_configuration_leaves_a_run_under_way_alone(project):
    """Its jobs compare the specifications with their configuration, so nobody else may change them."""
    specification = project / "results/tiny/v/tiny/seed0/cell.json"
    before = specification.read_bytes()
    lock = project / ".snakemake/locks/0.input.lock"
    lock.write_text("")
    try:
        done = snakemake(project, "-n", "all", study=edited(project, training={"steps": 13}))
    finally:
        lock.unlink()
    assert done.returncode == 0, done.stderr
    assert specification.read_bytes() == before


def test_key_that_stands_twice_is_named_with_its_line(project):
    (project / "tests/edit.yaml").write_text("training: {steps: 12}\ntraining: {steps: 13}\n")
    done = snakemake(project, "-n", "all", study=[*STUDY, "tests/edit.yaml"])
    assert done.returncode != 0
    assert re.search(r"^error: .*edit.yaml.*training.*", done.stderr, re.MULTILINE), done.stderr


def test_custom_rule_file_is_picked_up(project):
    custom = project / "rules/custom/hello.smk"
    custom.parent.mkdir(exist_ok=True)
    custom.write_text('rule hello:\n    output: "results/hello.txt"\n    shell: "echo hello > {output}"\n')
    try:
        done = snakemake(project, "-n", "hello")
    finally:
        custom.unlink()
    assert done.returncode == 0 and "rule hello" in done.stdout + done.stderr


@pytest.mark.deep
def test_changed_variant_retrains_exactly_its_cells(project):
    study = edited(project, parameterizations={"v": {"weighting": "snr"}})
    before = outputs(project, "model.safetensors")
    done = snakemake(project, "all", study=study)
    assert done.returncode == 0, done.stderr[-3000:]
    after = outputs(project, "model.safetensors")
    results = project / "results/tiny"
    changed = {path.parent.relative_to(results).parts[0] for path in before if after[path] != before[path]}
    assert changed == {"v"}
    assert planned(project, study) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainig": {}}, ["trainig", "training"]),
        ({"grid": {"parameterizations": ["epsilon", "vv"]}}, ["grid.parameterizations", "vv", "'v'"]),
        ({"grid": {"scales": ["tiyn"]}}, ["grid.scales", "tiyn", "'tiny'"]),
        ({"grid": {"seeds": [0, 0]}}, ["grid.seeds", "0", "twice"]),
        ({"training": {"steps": -5}}, ["training.steps", "-5", "at least 1"]),
    ],
)
def test_bad_configuration_is_one_line_even_when_results_exist(project, changes, words):
    done = snakemake(project, "all", study=edited(project, **changes))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in done.stderr


def test_unsound_parameterization_stops_before_training(project):
    path = project / "workflow/parameterizations/wrong.py"
    path.write_text((project / "workflow/parameterizations/v.py").read_text().replace("a * x_t - b", "a * x_t + b"))
    try:
        done = snakemake(project, "all", study=edited(project, grid={"parameterizations": ["wrong"], "seeds": [5]}))
    finally:
        path.unlink()
    assert done.returncode != 0
    assert "error: parameterization wrong: predict_x0 does not invert compute_training_target" in done.stderr
    assert not list((project / "results/tiny/wrong").rglob("model.safetensors"))


@pytest.mark.deep
def test_a_cell_that_diverges_is_a_result_and_stops_nothing_else(project):
    """Sound in fp64, and so large that its squares overflow in fp32."""
    path = project / "workflow/parameterizations/loud.py"
    path.write_text(
        "def compute_training_target(x_0, noise, timesteps, schedule):\n    return 1e25 * x_0\n\n\n"
        "def predict_x0(model_output, x_t, timesteps, schedule):\n    return model_output / 1e25\n"
    )
    study = edited(project, study="loud", grid={"parameterizations": ["loud", "v"], "seeds": [0]})
    try:
        done = snakemake(project, "all", study=study)
        assert done.returncode == 0, done.stderr[-3000:]
        assert planned(project, study) == {}
    finally:
        path.unlink()
    table = pd.read_csv(project / "results/loud/table.csv").set_index("parameterization")
    assert table.status.to_dict() == {"loud": "diverged", "v": "finished"}
    assert table.reason["loud"] == "the loss was not finite at step 1"
    page = (project / "results/loud/report.html").read_text()
    assert "loud-tiny-0: the loss was not finite at step 1" in page
    index = (project / "results/index.html").read_text()
    assert '<a href="loud/report.html">loud</a>' in index and '<a href="tiny/report.html">tiny</a>' in index


def test_damaged_dataset_is_named_and_nothing_is_lost(project):
    dataset = project / "data/digits/dataset.npz"
    whole = dataset.read_bytes()
    stamp = dataset.stat()
    dataset.write_bytes(whole[: len(whole) // 2])
    os.utime(dataset, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    try:
        done = snakemake(project, "all", study=edited(project, grid={"parameterizations": ["epsilon"], "seeds": [7]}))
    finally:
        dataset.write_bytes(whole)
    assert done.returncode != 0
    assert "error: data/digits/dataset.npz is missing or damaged" in done.stderr
    assert not list((project / "results/tiny/epsilon/tiny/seed7").glob("*.safetensors"))
    assert "missing: epsilon-tiny-7 draw 0" in done.stdout + done.stderr  # the partial table, made by itself
    table = pd.read_csv(project / "results/tiny/table.partial.csv")
    assert table[["seed", "status"]].to_numpy().tolist() == [[7, "missing"]]


def test_partial_table_names_what_is_missing(project):
    study = edited(project, grid={"parameterizations": ["epsilon"], "seeds": [0, 9]})
    done = subprocess.run(
        ["targetwise", "table", *study, "--output", "results/tiny/table.partial.csv"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "missing: epsilon-tiny-9 draw 0" in done.stdout
    table = pd.read_csv(project / "results/tiny/table.partial.csv")
    assert table.status.tolist() == ["finished", "missing"]
