"""What a study declares about its comparisons: checked when it is read, and deciding no result."""

import copy
import json
import os
import re
import subprocess

import pytest
from helpers import EXAMPLE, copy_working_tree

from targetwise import cells
from targetwise.errors import UserError
from targetwise.operations.examination import candidate
from targetwise.recipe import comparisons
from targetwise.recipe import config as configuration
from targetwise.report.table import table


def study(declared=None, **overlay):
    """Return the demo's study with two outputs in two loss spaces, and what is declared of it."""
    changes = {
        "grid": {"parameterizations": ["v", "x0", "v_in_x0", "x0_in_v"]},
        "parameterizations": {"v_in_x0": {"target": "v", "loss_space": "x0"}},
    }
    laid = configuration.merge(configuration.merge(EXAMPLE, changes), overlay)
    return configuration.validate(configuration.merge(laid, {"comparison": declared or {}}))


def refusal(declared, **overlay):
    with pytest.raises(UserError) as caught:
        study(declared, **overlay)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("configuration: comparison.")
    return line.removeprefix("configuration: comparison.")


def test_the_studies_of_the_repository_declare_their_smallest_difference():
    assert configuration.load()["comparison"] == {
        "baseline": None,
        "smallest_difference": 0.05,
        "families": {},
        "factors": [],
        "curves": [],
    }
    assert EXAMPLE["comparison"]["smallest_difference"] == 0.10


def test_what_is_declared_is_in_study_json_and_in_no_other_specification():
    one, other = study(), study({"baseline": "v", "smallest_difference": 0.2, "factors": ["target", "loss_space"]})
    before, after = cells.specifications(one), cells.specifications(other)
    assert {path.name for path in before if before[path] != after[path]} == {"study.json"}
    assert before.keys() == after.keys()


@pytest.mark.parametrize(
    "declared",
    [
        {"baseline": "x0", "smallest_difference": None},
        {"smallest_difference": 1},
        {"families": {"outputs": ["v", "x0"], "all": ["v", "x0", "v_in_x0", "x0_in_v"]}},
        {"families": None},
        {"factors": ["target", "loss_space"]},
    ],
    ids=str,
)
def test_what_the_grid_can_answer_is_taken_as_it_is(declared):
    found = study(declared)["comparison"]
    assert {name: found[name] for name in declared} == declared
    assert configuration.validate(study(declared)) == study(declared)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"baseline": "x0_in_u"},
            "baseline is 'x0_in_u', which is not in grid.parameterizations; did you mean 'x0_in",
        ),
        ({"baseline": "epsilon"}, "baseline is 'epsilon', which is not in grid.parameterizations; (choices: v, v_in"),
        ({"baseline": 3}, "baseline is 3; it must be a text or null"),
        ({"smallest_difference": 0}, "smallest_difference is 0; it must be greater than 0"),
        ({"smallest_difference": 5}, "smallest_difference is 5; it must be at most 1"),
        ({"families": {"a": ["v", "w"]}}, "families.a names 'w', which is not in grid.parameterizations"),
        ({"families": {"a": ["v"]}}, "families.a holds 'v' alone; a comparison needs two"),
        ({"families": {"a": ["v", "v"]}}, "families.a names 'v' twice; each may appear once"),
        ({"families": {"A b": ["v", "x0"]}}, "families holds the name 'A b'; a name is at most 64 lower-case"),
        ({"families": ["v", "x0"]}, "families is ['v', 'x0']; it must be a mapping of keys or null"),
        ({"factors": ["targt"]}, "factors names 'targt', in which no cells differ; did you mean 'target'?"),
        ({"factors": ["scale"]}, "factors names 'scale', in which no cells differ"),
        ({"factors": "target"}, "factors is 'target'; it must be a list"),
        (
            {"factors": ["target", "weighting"]},
            "factors names 'weighting', which is constant in every cell of the grid; vary it, or leave it out",
        ),
        ({"factors": ["target"]}, "factors cannot tell v from v_in_x0, which differ in loss_space; name that too"),
        ({"curves": ["target"]}, "curves names 'target', which is 'v' for v; a curve is over numbers"),
        ({"curves": ["training.learning_rate"]}, "curves names 'training.learning_rate', which is 0.002 in every"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_the_grid_cannot_answer_is_refused_in_one_line(declared, message):
    assert refusal(declared).startswith(message)


def test_a_section_that_is_missing_or_misspelt_is_named():
    without = copy.deepcopy(EXAMPLE)
    del without["comparison"]
    with pytest.raises(UserError, match="comparison is missing"):
        configuration.validate(without)
    with pytest.raises(UserError, match="unknown key 'factor' in comparison; did you mean 'factors'"):
        study({"factor": ["target"]})


SWEEP = {"x0_lr": {"target": "x0", "each": {"training.learning_rate": [1e-3, 2e-3, 4e-3]}}}
SWEPT = ["x0_lr_0p001", "x0_lr_0p002", "x0_lr_0p004"]


def test_a_family_of_a_sweep_is_all_its_variants():
    grid = {"parameterizations": ["v", "x0_lr"]}
    found = study({"families": {"rates": ["x0_lr"], "both": ["v", "x0_lr"]}}, grid=grid, parameterizations=SWEEP)
    assert found["comparison"]["families"] == {"rates": SWEPT, "both": ["v", *SWEPT]}
    line = refusal({"baseline": "x0_lr"}, grid=grid, parameterizations=SWEEP)
    assert line.startswith("baseline is 'x0_lr', which is not in grid.parameterizations; did you mean 'x0_lr_0p00")


def test_a_curve_needs_values_that_differ_in_nothing_else():
    grid = {"parameterizations": ["v", "x0_lr"]}
    assert study({"curves": ["training.learning_rate"]}, grid=grid, parameterizations=SWEEP)
    together = {
        "slow": {"target": "v", "training": {"learning_rate": 1e-3, "steps": 5000}},
        "fast": {"target": "v", "training": {"learning_rate": 2e-3, "steps": 2500}},
    }
    two = {"parameterizations": list(together)}
    line = refusal({"curves": ["training.learning_rate"]}, grid=two, parameterizations=together)
    assert "no two variants or settings differ in it alone" in line


def test_factors_that_change_only_together_are_refused():
    sizes = {name: {"target": name, "parameters": {"k": k}} for name, k in (("v", 1.0), ("x0", 2.0))}
    line = refusal(
        {"factors": ["target", "parameters.k"]}, grid={"parameterizations": ["v", "x0"]}, parameterizations=sizes
    )
    assert line.startswith(
        "factors names 'target', but within a setting no two cells differ in it and agree in param"
    )


def test_scale_and_sampling_are_factors_where_the_grid_has_several():
    overlay = {
        "grid": {"scales": ["tiny", "wide"], "samplings": ["few", "many"]},
        "scales": {"wide": {"network": "mlp", "width": 256, "layers": 4}},
        "samplings": {"few": {"steps": 10}, "many": {"steps": 50}},
    }
    assert study({"factors": ["target", "loss_space", "scale", "sampling"]}, **overlay)
    assert study({"curves": ["network.width", "sampling.steps"]}, **overlay), "a curve may go across settings"
    line = refusal({"factors": ["target", "loss_space", "network.width"]}, **overlay)
    assert line.startswith("factors names 'network.width', but within a setting no two cells differ in it and agree")
    assert line.endswith(
        "leave network.width out, or compare across settings by naming scale and sampling in its place"
    )


def test_fields_are_named_as_the_columns_of_the_table(project):
    found = study({}, grid={"samplings": ["few"]}, samplings={"few": {"steps": 10, "sampler": "dpmpp_2m"}})
    points = comparisons.recipes(found, lambda name: configuration.variant(found, name))
    assert comparisons.differing(points) == table(found).attrs["fields"] == ["loss_space", "target"]


def test_what_is_declared_of_a_study_does_not_hinder_a_look_at_one_variant(project):
    declared = {"baseline": "v", "families": {"two": ["v", "x0"]}, "factors": ["target", "loss_space"]}
    assert candidate(study(declared), "epsilon").name == "epsilon"


# --- in the pipeline


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy of the project with the tables of a tiny study."""
    folder = tmp_path_factory.mktemp("declared") / "project"
    copy_working_tree(folder)
    typed(folder, {})
    return folder


def typed(folder, declared, *options):
    """Run Snakemake up to the tables of the tiny study, with something declared; return what it says."""
    (folder / "mine.yaml").write_text(json.dumps({"comparison": declared, "bounds": False, "grid": {"seeds": [0]}}))
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    command = ["snakemake", "--cores", "2", *options, "--configfile", "config/digits.yaml", "tests/tiny.yaml"]
    command += ["mine.yaml", "--", "results/tiny/table.csv", "results/tiny/report.html", "results/tiny/tracked.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.deep
def test_another_declaration_makes_tables_and_report_again_and_nothing_else(made):
    said = typed(made, {"smallest_difference": 0.2, "baseline": "v"}, "-n")
    jobs = {name for name, _ in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)} - {"total"}
    assert jobs == {"aggregate", "report", "track"}
    typed(made, {})
    assert "Nothing to be done" in typed(made, {}, "-n")


@pytest.mark.deep
def test_looks_are_kept_by_the_tables_and_trigger_nothing(made):
    path = made / "results/tiny/looks.json"
    (first,) = json.loads(path.read_text())
    assert (first["values"], first["seeds"]) == (2, {"tiny": {"epsilon": 1, "v": 1}})
    written = path.stat().st_mtime_ns
    typed(made, {}, "--forcerun", "aggregate")
    assert path.stat().st_mtime_ns == written, "the same rows are the same look"
    assert "Nothing to be done" in typed(made, {}, "-n")
    typed(made, {"smallest_difference": 0.2})
    assert [look["comparison"]["smallest_difference"] for look in json.loads(path.read_text())] == [0.1, 0.2]
    path.write_text("[")
    command = ["targetwise", "table", "--configfile", "config/digits.yaml", "tests/tiny.yaml", "mine.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(made / "src")}
    done = subprocess.run(command, cwd=made, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: results/tiny/looks.json is damaged (it is not JSON); bring it back from a copy, or delete it, and "
        "that the values were looked at before is forgotten\n"
    )
