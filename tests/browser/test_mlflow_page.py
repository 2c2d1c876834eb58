"""What a person sees who types `mlflow ui` in the project's root; results/screenshots/ keeps what was seen."""

import io
import json
import re

import numpy as np
import pytest
from conftest import STEPS
from PIL import Image
from playwright.sync_api import expect

from targetwise.data.samples import load_samples

NAMES = [f"{name}-tiny-{seed}" for name in ("epsilon", "v", "x0") for seed in (0, 1, 2)]
CELL = "results/digits/v/tiny/seed1"


@pytest.fixture
def study(page, address):
    """The page of the study's runs, as one finds it from the start page."""
    page.goto(address)
    page.get_by_role("button", name="Model training", exact=True).click()
    page.get_by_role("link", name="digits", exact=True).click()
    expect(page.get_by_text("9 matching runs")).to_be_visible()
    return page


def open_run(page, name, tab):
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("tab", name=tab, exact=True).click()


def group(page, tag):
    page.get_by_role("button", name="Group by").click()
    page.get_by_role("menuitemcheckbox", name=tag, exact=True).first.click()


def test_every_cell_is_a_run_and_they_are_grouped_by_a_tag(study, screenshot):
    for name in NAMES:
        expect(study.get_by_role("link", name=name, exact=True)).to_be_visible()
    group(study, "parameterization")
    for name in ("epsilon", "v", "x0"):
        row = study.get_by_role("row").filter(has_text=f"Group: {name}")
        expect(row.get_by_text("3", exact=True)).to_be_visible()
    screenshot("runs")


@pytest.mark.parametrize(
    ("name", "state"),
    [("v-tiny-1", "Finished"), ("x0-tiny-0", "Running"), ("x0-tiny-1", "Killed"), ("x0-tiny-2", "Failed")],
)
def test_a_run_says_its_state_and_its_data(study, screenshot, name, state):
    open_run(study, name, "Overview")
    expect(study.get_by_text(state, exact=True)).to_be_visible()
    expect(study.get_by_text(re.compile(r"^digits \(0123456789abcdef"))).to_be_visible()
    expect(study.get_by_text("training.steps", exact=True)).to_be_attached()
    screenshot(f"run-{state.lower()}")


def test_the_curves_of_all_runs_lie_in_one_chart(study, screenshot):
    group(study, "parameterization")
    study.locator("label", has=study.locator("input[value=CHART]")).click()
    study.get_by_placeholder("Search metric charts").fill("^loss$")
    chart = study.locator(".js-plotly-plot")
    expect(chart).to_have_count(1)
    # The mean of each group; that of x0 ends with the longest of its unfinished cells, at step 300.
    expect(chart.locator("path.point")).to_have_count(2 * len(STEPS) + len([step for step in STEPS if step <= 300]))
    screenshot("curves")


def test_a_run_shows_its_own_curve(study, screenshot):
    open_run(study, "v-tiny-1", "Model metrics")
    study.get_by_placeholder("Search metric charts").fill("^loss$")
    expect(study.locator(".js-plotly-plot path.point")).to_have_count(len(STEPS))
    screenshot("run-curve")


def test_a_run_shows_its_samples_as_a_picture(study, root, screenshot):
    """The picture that the browser shows is of the cell's own first images, each pixel 5 × 5, in rows of 16."""
    open_run(study, "v-tiny-1", "Artifacts")
    study.get_by_text("samples", exact=True).click()
    study.get_by_text("ddim-50-draw0.png", exact=True).click()
    picture = study.locator("img").first
    expect(picture).to_be_visible()
    shown = picture.evaluate("async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]")
    pixels = np.asarray(Image.open(io.BytesIO(bytes(shown))).convert("L"))
    first, *_, last = load_samples(root / CELL / "samples/ddim-50/draw0.npz")[:64, :, :, 0]
    assert (pixels[:40, :40] == np.kron(first, np.ones((5, 5)))).all()
    assert (pixels[-40:, -40:] == np.kron(last, np.ones((5, 5)))).all()
    screenshot("samples")


def test_a_run_shows_its_manifest(study, root):
    open_run(study, "v-tiny-1", "Artifacts")
    study.get_by_text("manifest.json", exact=True).click()
    told = study.get_by_text(re.compile(r'^\s*\{\s*"cell"'))
    expect(told).to_be_visible()
    assert json.loads(told.inner_text()) == json.loads((root / CELL / "manifest.json").read_text())
