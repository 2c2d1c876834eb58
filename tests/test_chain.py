"""One cell without Snakemake: does what is missing, and writes what the pipeline would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from targetwise import cells, chain, files
from targetwise.cells import probes
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.recipe.config import merge
from targetwise.training.stopping import Stop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copy(ROOT / "config.yaml", tmp_path)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    text = (ROOT / "tests/tiny.yaml").read_text().replace("study: tiny", "study: short")
    digits = (ROOT / "config/digits.yaml").read_text()
    (tmp_path / "config/short.yaml").write_text(yaml.safe_dump(merge(yaml.safe_load(digits), yaml.safe_load(text))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_cell_from_data_to_number_and_nothing_twice(project, capsys):
    study, cell = chain.load("short/v-tiny-1")
    rows = chain.run(study, cell, Stop())
    assert [row["cell"]["parameterization"] for row in rows] == ["v"]
    assert rows[0]["value"] > 0 and rows[0]["n"] == 48
    said = capsys.readouterr().err
    for stage in (
        "preparing digits",
        "reference's features",
        "training v-tiny-1",
        "sampling ddim-4/draw0",
        "measuring ddim-4/draw0",
    ):
        assert stage in said
    made = {path: path.stat().st_mtime_ns for path in project.rglob("*") if path.suffix in (".npz", ".safetensors")}
    row = cell.folder / "fid/ddim-4/draw0.json"
    assert files.read_json(row) == rows[0]

    again = chain.run(study, cell, Stop())
    assert again == rows
    said = capsys.readouterr().err
    for stage in ("preparing", "features", "sampling", "measuring"):
        assert stage not in said
    assert {path: path.stat().st_mtime_ns for path in made} == made

    row.unlink()
    assert chain.run(study, cell, Stop())[0]["value"] == rows[0]["value"]
    said = capsys.readouterr().err
    assert "measuring ddim-4/draw0" in said and "sampling" not in said


@pytest.mark.deep
def test_what_probes_find_is_brought_up_to_date_too(project, capsys):
    study, cell = chain.load("short/v-tiny-1")
    for names, done in (["target_power"], True), (["target_power"], False), (["target_power", "x0_error"], True):
        chain.run({**study, "probes": names}, cell, Stop())
        assert ("probing v-tiny-1" in capsys.readouterr().err) == done
    found, reason = probes.read(cell)
    assert reason is None and {"target_power", "x0_error_terminal"} <= found.keys()


@pytest.fixture
def measured(project, capsys):
    """A measured cell, and a function that runs it again under a change and returns its row and what was done."""
    study, cell = chain.load("short/v-tiny-1")
    chain.run(study, cell, Stop())

    def again(change=lambda: None):
        change()
        capsys.readouterr()
        row = chain.run(study, cell, Stop())[0]
        return row, {line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines() if ":" in line}

    return study, cell.folder / "fid/ddim-4/draw0.json", again


@pytest.mark.parametrize("stage", ["metric", "reference"])
def test_a_row_of_another_protocol_is_measured_again(measured, monkeypatch, stage):
    _, path, again = measured
    before = files.read_json(path)
    monkeypatch.setitem(cells.PROTOCOL, stage, cells.PROTOCOL[stage] + 1)
    row, done = again()
    assert "measuring ddim-4/draw0" in done and "sampling ddim-4/draw0" not in done
    assert ("extracting the reference's features" in done) == (stage == "reference")
    assert row["key"] != before["key"] and row["value"] == before["value"]
    assert "measuring ddim-4/draw0" not in again()[1]


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"implementation": "clean-fid"}, "implementation", "clean-fid"),
        ({"reference": {"split": "test"}}, "reference", "digits test"),
    ],
)
def test_a_row_measured_in_another_way_is_measured_again(measured, change, name, found):
    study, _, again = measured
    row, done = again(lambda: study["metric"].update(change))
    assert row[name] == found and "measuring ddim-4/draw0" in done and "sampling ddim-4/draw0" not in done


@pytest.mark.deep
def test_a_row_that_somebody_put_there_is_measured_again(measured):
    """A row of another cell agrees in all digests where two cells happen to have the same images."""
    _, path, again = measured
    mine = files.read_json(path)
    for change in ({"key": "0" * 64, "value": 1.0}, {"key": None, "value": 2.0}):
        files.write_json(path, {**mine, **change})
        row, done = again()
        assert row["value"] == mine["value"] and "measuring ddim-4/draw0" in done
    old = {key: value for key, value in mine.items() if key != "key"}  # as it was before rows had keys
    files.write_json(path, {**old, "value": 3.0})
    assert again()[0] == files.read_json(path) and again()[0]["key"] == mine["key"]


@pytest.mark.deep
def test_another_metric_is_a_file_and_a_name_and_samples_nothing_again(measured):
    study, path, again = measured
    before = files.read_json(path)
    Path("workflow").unlink()
    shutil.copytree(ROOT / "workflow", "workflow")
    own = Path("workflow/metrics/shift.py")
    own.write_text(SHIFT)
    assert "measuring ddim-4/draw0" not in again()[1], "it is not named yet"
    row, done = again(lambda: study["metric"].update(names=["frechet", "kid", "shift"]))
    assert (
        "measuring ddim-4/draw0" in done
        and not {"sampling ddim-4/draw0", "extracting the reference's features"} & done
    )
    shift = row["values"]["shift"]
    assert row["values"] == {**before["values"], "shift": shift} and row["value"] == before["value"]
    assert 0 < shift**2 < row["value"], "a part of the Fréchet distance"
    row, _ = again(lambda: own.write_text(SHIFT.replace("return {", "return {'ones': 1.0, ")))
    assert row["values"] == {**before["values"], "shift": shift, "ones": 1}


SHIFT = re.search(r'```python\n("""shift:.*?)```', (ROOT / "docs/extending.md").read_text(), re.DOTALL)[1]


@pytest.mark.parametrize("name", ["short", "nothing@v-tiny-1", "short@v-tiny-9", "short@", "nothing/v-tiny-1"])
def test_unknown_cell_is_one_line(project, name):
    with pytest.raises(UserError, match=rf"^'{name}' is not STUDY@CELL, as in reference@epsilon|has no cell"):
        chain.load(name)


def test_study_and_cell_are_joined_by_an_at_or_a_slash(project):
    assert chain.load("short@v-tiny-1") == chain.load("short/v-tiny-1")


@pytest.mark.deep
def test_stopped_by_its_budget_it_says_so_and_goes_on(project):
    command = [sys.executable, str(ROOT / "workflow/scripts/cell.py"), "short/epsilon-tiny-0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*command, "--time-budget", "1"], env=environment, capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    assert "the time budget is used up; state saved after step 1 of 12" in done.stderr
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "draw 0: FD (digits features)" in done.stdout


def test_a_borrowed_machine_may_have_torch_diffusers_and_the_metric_only(project):
    """What make and Snakemake need is not there; a package that cannot be imported stands for one not installed."""
    absent = ("jsonschema", "snakemake", "mlflow", "dvc", "pandas", "sklearn", "matplotlib", "jinja2")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = ["cell.py", "short/epsilon-tiny-0"]
import runpy
runpy.run_path({str(ROOT / "workflow/scripts/cell.py")!r}, run_name="__main__")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))  # only these images are made by scikit-learn
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "draw 0: FD (digits features)" in done.stdout
    assert done.stderr.count("jsonschema is not installed: nothing is checked against config.schema.yaml here") == 1
