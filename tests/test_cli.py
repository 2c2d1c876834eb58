"""The `targetwise` command, as one types it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import EXAMPLE
from synthetic import Files

from targetwise import cells, cli, errors
from targetwise.data import store
from targetwise.metric.reference import Selection, make
from targetwise.recipe import config
from targetwise.report.page import render

ROOT = Path(__file__).parent.parent
DIGITS = ["--configfile", str(ROOT / "config/digits.yaml")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *map(str, arguments)])
    cli.main()


def test_check_names_every_parameterization(project, monkeypatch, capsys):
    call(monkeypatch, "check", *DIGITS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study digits: 9 cells, 9 draws; the configuration is sound"
    assert [line.split(":")[0] for line in lines[1:]] == ["epsilon", "v", "x0"]
    assert "up to 157-fold (t = 999), over 10-fold at" in lines[1]


def test_check_says_which_variants_have_one_objective(project, monkeypatch, capsys):
    (project / "mine.yaml").write_text("grid: {parameterizations: [epsilon, x0_snr, v]}\n")
    call(monkeypatch, "check", *DIGITS, "mine.yaml")
    *_, before, last = capsys.readouterr().out.splitlines()
    assert before.startswith("v: inverts to") and last.startswith("epsilon, x0_snr: one objective")


def test_answer_says_whose_report_it_names_and_how_to_make_one(project, monkeypatch, capsys):
    def second_line(*files):
        call(monkeypatch, "answer", "--configfile", *files)
        first, second = capsys.readouterr().out.splitlines()
        assert first == "There is no answer, because no parameterization has a value."
        return second

    (project / "config").symlink_to(ROOT / "config")
    made = f"`snakemake --cores all all --configfile {DIGITS[1]}` makes it"
    assert second_line(DIGITS[1]) == f"there is no report yet; {made}"
    study = config.load([Path(DIGITS[1])])
    page = Path("results/digits/report.html")
    page.parent.mkdir(parents=True)
    page.write_text(render(study, page.parent))
    assert second_line(DIGITS[1]) == f"report: {page.resolve()}"
    Path("more.yaml").write_text("training: {steps: 700}\n")
    both = f"`snakemake --cores all all --configfile {DIGITS[1]} more.yaml` makes it again"
    assert second_line(DIGITS[1], "more.yaml") == f"report: {page.resolve()}, of another configuration; {both}"


def test_fid_measures_a_file_like_a_cell(project, monkeypatch, capsys):
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))
    reference = Path("data/digits/reference/digits-fast-train.npz")
    make(Selection("digits", "train", None, "digits", "clean-fid"), reference)
    test = store.load(Path("data/digits"), "test").images
    np.savez("mine.npz", test)
    capsys.readouterr()
    call(monkeypatch, "fid", "mine.npz", *DIGITS, "--output", "row.json")
    row = json.loads(capsys.readouterr().out)
    written = json.loads(Path("row.json").read_text())
    assert set(written.pop("contributions")) == {"frechet", "kid"} and row == written
    assert 0 < row["errors"]["frechet"] < 0.5 * row["value"]
    assert (row["metric"], row["n"], row["what"]) == ("FD (digits features)", 512, "file")
    assert row["value"] == pytest.approx(0.1536, abs=1e-3)


def test_fid_without_reference_says_how_to_make_it(project, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "fid", "mine.npz", *DIGITS)
    assert left.value.code == errors.EXIT_ERROR
    assert "`snakemake --cores all data/digits/reference/digits-fast-train.npz` makes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "named", "problem"),
    [
        (["own.npz"], "own.npz", "own.json, which says what own.npz was made from, does not exist"),
        (["own.json"], "own.npz", "own.npz does not exist"),
        ([], "own.npz", "own.npz does not exist"),
        (["own.npz", "own.json"], "own.json", "own.json is not an .npz file"),
    ],
)
def test_fid_says_what_a_reference_of_ones_own_needs(project, monkeypatch, capsys, there, named, problem):
    """No command makes it: it may be anybody's."""
    for name in there:
        Path(name).write_text("{}")
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "fid", "mine.npz", *DIGITS, "--reference", named)
    assert left.value.code == errors.EXIT_ERROR
    assert capsys.readouterr().err == (
        f"error: {problem}; --reference takes the .npz and the .json beside it that `snakemake` made of a data set; "
        "without it the study's own is taken, data/digits/reference/digits-fast-train.npz\n"
    )


def test_outside_the_project_it_says_where_to_run(tmp_path):
    done = subprocess.run(["targetwise", "check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_ERROR
    assert done.stderr == "error: config.yaml does not exist; run this in the project's root\n"


@pytest.fixture
def measured(project):
    """The demo's grid: the values are 40, 41, 42 for epsilon's seeds, then 43 … 45 for v's, then 46 … 48 for x0's."""
    files = Files(EXAMPLE)
    for cell in files.cells:
        files.finish(cell, [600])
    return files


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_table_prints_means_gaps_and_verdicts_and_writes_nothing_but_the_look(project, measured, monkeypatch, capsys):
    """Seeds 40, 41, 42 against 43, 44, 45: 7 % lower, within the demo's δ of 10 %; of x0 one seed is left."""
    gone = cells.find(EXAMPLE, "x0-tiny-0").folder / "fid/ddim-50/draw0.json"
    damaged = cells.find(EXAMPLE, "x0-tiny-1").folder / "training.json"
    gone.unlink()
    damaged.write_text("{")
    before = tree(project)
    call(monkeypatch, "table", *DIGITS)
    after = tree(project)
    assert len(json.loads(after.pop(project / "results/digits/looks.json"))) == 1
    assert after == before
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert ["tiny", "epsilon", "41.0", "1.0", "3", "0", "0", "0.25"] in words
    assert f"missing: x0-tiny-0 draw 0: {gone} was not made" in lines
    (line,) = [line for line in lines if line.startswith("missing: x0-tiny-1 draw 0: ")]
    assert f"{damaged} is damaged" in line
    assert [line[:6] for line in words[-3:]] == [
        ["tiny", "all", "pairs", *pair] for pair in (("epsilon", "v", "3"), ("epsilon", "x0", "1"), ("v", "x0", "1"))
    ]
    assert float(words[-3][6]) == pytest.approx((40 / 43 * 41 / 44 * 42 / 45) ** (1 / 3), abs=1e-6)
    assert lines[-3].endswith("equivalent") and all(line.endswith("too few seeds") for line in lines[-2:])


def test_table_is_written_where_output_says(project, measured, monkeypatch, capsys):
    call(monkeypatch, "table", *DIGITS, "--output", "new/all.csv")
    assert capsys.readouterr().out.splitlines()[-1] == "every cell's row: new/all.csv"
    assert pd.read_csv("new/all.csv")["value"].tolist() == [40, 41, 42, 43, 44, 45, 46, 47, 48]


def test_table_into_a_folder_is_refused_in_one_line(project, measured, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "table", *DIGITS, "--output", "results")
    assert left.value.code == errors.EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Is a directory: results;")
