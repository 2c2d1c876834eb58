"""docs/extending.md is followed as it is written: its files are put in a clone, its command is typed."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, copy_working_tree

PAGE = (ROOT / "docs/extending.md").read_text()
SECTION = PAGE.split("## Another procedure\n")[1].split("\n## ")[0]

#: The files of the page: a paragraph that begins with a path, then a block.
PARAGRAPHS = re.findall(r"^```\w*\n[\s\S]*?^```|(?:^.+\n)+", SECTION, re.MULTILINE)
FILES = {
    path[1]: block.split("\n", 1)[1].removesuffix("```")
    for paragraph, block in pairwise(PARAGRAPHS)
    if (path := re.match(r"`([\w/.]+)` ", paragraph)) and block.startswith("```")
}
COMMAND = re.search(r"^```\n(snakemake .*)\n```$", SECTION, re.MULTILINE)[1]

CELL = "results/perturbed/perturbed/tiny/seed0"
REPORT = "results/perturbed/report.html"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone in which somebody has followed the page, with a study of seconds in place of the demo's minutes."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    copy_working_tree(folder)
    for path, content in FILES.items():
        assert not (folder / path).exists(), path
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    small = {"grid": {"seeds": [0]}, "bounds": False}
    (folder / "small.yaml").write_text(json.dumps(small))
    done = typed(folder, REPORT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def typed(project, *options, command=COMMAND):
    """Type the page's command, for a study that takes seconds."""
    words = shlex.split(command.replace("config/digits.yaml", "config/digits.yaml tests/tiny.yaml") + " small.yaml")
    return run(project, [*words[:3], *options, *words[4:]])


def run(project, words):
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


def test_the_page_holds_what_the_tests_follow():
    assert list(FILES) == [
        "config/perturbed.yaml",
        "rules/custom/perturbed.smk",
        "workflow/scripts/train_perturbed.py",
    ]
    assert shlex.split(COMMAND)[:4] == ["snakemake", "--cores", "all", "all"]


def test_its_cell_is_in_table_and_report_like_any_other(project):
    table = pd.read_csv(project / "results/perturbed/table.csv").set_index("parameterization")
    assert table.status.to_dict() == {"epsilon": "finished", "perturbed": "finished"}
    assert table.steps.tolist() == [12, 12] and table.final_loss.notna().all() and table.value.nunique() == 2
    page = (project / REPORT).read_text()
    assert "Training loss of perturbed" in page and "perturbed-tiny-0" in page


def test_its_own_rule_trained_it_and_left_nothing_behind(project):
    record = json.loads((project / CELL / "training.json").read_text())
    assert "key" not in record and "key" in json.loads(
        (project / CELL.replace("/perturbed/t", "/epsilon/t") / "training.json").read_text()
    )
    assert sorted(path.name for path in (project / CELL).iterdir() if path.is_file()) == [
        "cell.json",
        "manifest.json",
        "model.safetensors",
        "train.jsonl",
        "training.json",
    ]
    assert not (project / CELL / "made").exists()
    assert json.loads((project / CELL / "manifest.json").read_text())["training"]["key"] is None
    assert "Nothing to be done" in (done := typed(project, "-n", REPORT)).stdout + done.stderr


def test_without_perturbation_it_follows_the_curve_of_epsilon(project, tmp_path, monkeypatch):
    """The page says so; steps, noise, weights and loss are then the same, up to the order of sums."""
    script = (project / "workflow/scripts/train_perturbed.py").read_text()
    (tmp_path / "script.py").write_text(script.replace("GAMMA = 0.1", "GAMMA = 0.0"))
    monkeypatch.chdir(project)
    made = {name: str(tmp_path / name) for name in ("model", "curve")}
    arguments = ["--specification", f"{CELL}/cell.json", "--model", made["model"], "--curve", made["curve"]]
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
    losses = [
        [json.loads(line)["loss"] for line in Path(path).read_text().splitlines()]
        for path in ("results/perturbed/epsilon/tiny/seed0/train.jsonl", made["curve"], f"{CELL}/train.jsonl")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)


def test_status_and_reproduce_say_what_the_page_says(project):
    study = ["--configfile", "config/digits.yaml", "tests/tiny.yaml", "config/perturbed.yaml", "small.yaml"]
    status = run(project, ["targetwise", "status", *study])
    assert "2 cells: 2 done" in status.stdout, status.stderr
    again = run(project, ["targetwise", "reproduce", "perturbed@perturbed-tiny-0", *study])
    assert again.returncode == 1
    assert again.stderr.endswith(
        "was trained by a rule of your own; only the pipeline's own training can be reproduced\n"
    )


def test_an_edit_of_its_script_trains_its_cells_again_and_no_others(project):
    script = project / "workflow/scripts/train_perturbed.py"
    before = script.read_text()
    script.write_text(before.replace("GAMMA = 0.1", "GAMMA = 0.2"))
    try:
        planned = typed(project, "-n", REPORT)
    finally:
        script.write_text(before)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE))
    assert jobs["train_perturbed"] == "1" and "train" not in jobs and jobs["sample"] == "1"


def test_a_wrong_training_json_stops_the_next_stage_with_one_line(project):
    """Somebody's rule wrote it without publish.py."""
    path = project / CELL / "training.json"
    before, stamp = path.read_bytes(), path.stat()
    path.write_text('{"status": "finished"}')
    try:
        done = typed(project, f"{CELL}/samples/ddim-4/draw0.npz")
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert done.returncode != 0
    said = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert len(said) == 1 and said.pop().startswith(f"error: {CELL}/training.json: reason is missing "), done.stderr
    assert "Traceback" not in done.stderr
