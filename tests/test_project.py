"""The project as a whole: its pins agree, its README is true, its outside libraries have one owner each."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "src/targetwise").rglob("*.py"))
BY_NAME = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path for path in MODULES}

#: Who may import what; everybody else goes through the owner.
OWNERS = {
    "mlflow": {"importer", "experiment"},
    "dvc": {"dvc"},
    "snakemake": set(),
    "cleanfid": {"clean_fid", "inception"},
    "matplotlib": {"figure"},
    "vl_convert": {"vega", "paper"},
    "jinja2": {"templates"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("library", OWNERS)
def test_outside_library_has_its_owner_only(library):
    assert {path.stem for path in MODULES if library in imports(path)} <= OWNERS[library]


def test_a_cell_on_a_bare_gpu_machine_needs_little():
    """`make cell-gpu` runs without Snakemake, MLflow, DVC, pandas, scikit-learn, statsmodels and matplotlib."""
    heavy = {"snakemake", "mlflow", "dvc", "pandas", "sklearn", "statsmodels", "matplotlib", "jinja2"}
    seen, waiting = set(), ["targetwise.chain"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        tree = ast.parse(BY_NAME[name].read_text())
        for node in tree.body:  # what is imported inside a function is not needed before it is called
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("targetwise"):
                found = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                waiting += sorted((found & set(BY_NAME)) - seen)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                modules = (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                )
                assert not {module.split(".")[0] for module in modules} & heavy, f"{name} imports {modules}"
    assert {"targetwise.training.loop", "targetwise.sampling.stage", "targetwise.metric.fid"} <= seen


def locked():
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", text, re.MULTILINE))


def test_environment_has_the_pins_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    conda = dict(pin.split("==") for pin in pins if "==" in pin)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {re.match(r"[a-z0-9-]+", requirement.lower())[0] for requirement in wanted}
    assert conda == {name: locked()[name] for name in names}


def test_lock_names_no_host_and_hashes_everything():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|file://|--index-url|--find-links", text)
    entries = re.findall(r"^[a-z0-9._-]+==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert len(entries) > 100 and all("--hash=sha256:" in entry for entry in entries)


def test_readme_names_every_folder_and_its_pictures_exist():
    readme = (ROOT / "README.md").read_text()
    listed = {path.name for path in ROOT.iterdir() if path.is_dir()}
    ignored = {".git", ".venv", "data", "results", "site", "mlruns", ".snakemake", ".ci"}
    for folder in listed - ignored:
        if not folder.startswith(".") and not folder.endswith(".egg-info"):
            assert f"`{folder}/" in readme, folder
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).is_file(), picture


def test_readmes_parameterization_is_the_file_and_sound():
    """The example that everybody copies first."""
    from targetwise.check.roundtrip import check
    from targetwise.diffusion import parameterization
    from targetwise.recipe.config import load, variant

    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    path = ROOT / "workflow/parameterizations/u.py"
    assert code == path.read_text()
    target = parameterization.load_file(path)
    study = load([ROOT / "config/digits.yaml"], ROOT / "config.yaml")
    found = check(target, target, variant(study, "v"), [])
    assert found["gain_to_x0"]["largest"] < 1.0001


@pytest.mark.parametrize("path", [ROOT / "rules/common.smk", *MODULES], ids=lambda path: path.name)
def test_every_make_command_that_a_message_names_is_a_target(path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"[`&] ?make ([^`\s]+)", path.read_text())) <= set(targets)


@pytest.mark.parametrize(("ci", "code", "word"), [("true", 1, "Failed"), ("", 0, "SKIPPED")])
@pytest.mark.parametrize(
    ("tests", "package"), [("slurm/test_driver.py", "slurm-wlm"), ("browser/test_mlflow_page.py", "chromium")]
)
def test_where_a_tool_is_missing_its_tests_are_skipped_and_in_ci_they_fail(tests, package, ci, code, word):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"tests/{tests}"]
    environment = {**os.environ, "CI": ci, "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    assert word in done.stdout and f"on Debian: apt-get install {package}" in done.stdout
