"""A study with cells in every state, imported as a person does it, shown by MLflow's page in a real browser."""

import contextlib
import copy
import shutil
from pathlib import Path

import pytest
from helpers import EXAMPLE, ROOT, copy_working_tree, skip_or_fail_in_ci
from mlflow_tools import PATIENCE, configured, serving, targetwise
from playwright.sync_api import expect, sync_playwright
from synthetic import Files

from targetwise.data import store
from targetwise.recipe.variants import merge
from targetwise.report import page as reporting

STEPS = list(range(20, 620, 20))

expect.set_options(timeout=PATIENCE * 1000)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


def report_of(folder, grid, variants=None, *, diverged=False, prepared=False, sections=None):
    """Write a study's page in a folder of its own; its last cell is missing, or all have diverged.

    If its data set is ``prepared``, training images stand beside the samples.
    """
    for name in ("workflow", "config", "config.yaml"):
        (folder / name).symlink_to(ROOT / name)
    study = copy.deepcopy(EXAMPLE)
    study["parameterizations"].update(variants or {})
    study["grid"].update(grid)
    study = merge(study, sections or {})
    with contextlib.chdir(folder):
        if prepared:
            store.prepare("digits", study["datasets"]["digits"], Path("data/digits"))
        files = Files(study)
        for cell in files.cells:
            if diverged:
                files.publish(cell, [200, 400, 600], diverged="the loss was not finite at step 600")
                files.measure(cell, reason="there is no model")
            else:
                files.finish(cell, [200, 400, 600])
        shutil.rmtree(files.cells[-1].folder / "fid")
        path = folder / "results/digits/report.html"
        path.write_text(reporting.render(files.config, path.parent))
    return path


@pytest.fixture(scope="session")
def chromium():
    """Debian's browser; the one that Playwright brings would have to be downloaded."""
    program = shutil.which("chromium")
    if program is None:
        skip_or_fail_in_ci("chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def root(chromium, tmp_path_factory):
    """A clone's root, with a study imported by `targetwise track`."""
    folder = tmp_path_factory.mktemp("clone")
    copy_working_tree(folder)
    study = copy.deepcopy(EXAMPLE)
    study["grid"] |= {"parameterizations": ["epsilon", "v", "x0"], "seeds": [0, 1, 2]}
    with contextlib.chdir(folder):
        made = Files(study)
        *finished, running, killed, diverged = made.cells
        for cell in finished:
            made.finish(cell, STEPS)
        made.log(running, STEPS[:20], saved=300)
        made.log(killed, STEPS[:20], saved=200, alive=False)
        made.publish(diverged, STEPS[:10], diverged="the loss was not finite at step 191")
        done = targetwise("track", *configured(study))
        said, complaints = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0 and "9 imported, 0 unchanged, 0 waiting" in said, complaints
    return folder


@pytest.fixture(scope="session")
def address(root):
    """Where `mlflow ui` answers, started in the root as the README tells."""
    with serving(root, "ui") as where:
        yield where


@pytest.fixture
def page(chromium):
    """An empty page, without the panel with which MLflow greets whoever comes first."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def screenshot(page):
    """A function that keeps what the page shows, for a person to look at."""

    def keep(name: str) -> None:
        page.wait_for_timeout(1000)  # until what moves has come to rest
        page.screenshot(path=ROOT / f"results/screenshots/mlflow-{name}.png")

    return keep
