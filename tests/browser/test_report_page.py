"""The report in a real browser, on a telephone: what is wider than the screen can be reached, and says so."""

import io

import numpy as np
import pytest
from conftest import report_of
from helpers import ROOT
from PIL import Image

WIDTH, HEIGHT = 390, 800


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a study whose files are made up; one cell is missing and so has a long reason."""
    return report_of(tmp_path_factory.mktemp("project"), {})


@pytest.fixture(params=["light", "dark"])
def telephone(chromium, report, request):
    context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=request.param)
    page = context.new_page()
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.screenshot(path=ROOT / f"results/screenshots/report-unfolded-{WIDTH}-{request.param}.png", full_page=True)
    yield page
    context.close()


def brightness(region, column):
    """Return the mean of a region's column of pixels, between 0 and 255; the table's rules and words cover little."""
    pixels = np.asarray(Image.open(io.BytesIO(region.screenshot())).convert("L"))
    return float(np.median(pixels[:, column]))


def test_the_page_is_as_wide_as_the_screen(telephone):
    assert telephone.evaluate("document.documentElement.scrollWidth") == WIDTH


STOPS = "[...document.querySelectorAll('.scroll')].filter(each => each.tabIndex == 0).map(each => each.ariaLabel)"
WIDER = (
    "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth)"
    ".map(each => each.ariaLabel)"
)


def test_every_table_is_in_a_region_that_the_keyboard_scrolls(telephone):
    tables, within = (telephone.locator(each) for each in ("table", "[role=region].scroll > table"))
    assert tables.count() == within.count() == 5
    wide = telephone.get_by_role("region", name="Rows of every cell")
    before = wide.evaluate("each => each.scrollLeft")
    wide.focus()
    telephone.keyboard.press("ArrowRight")
    telephone.wait_for_function("each => each.scrollLeft > 0", arg=wide.element_handle())
    assert before == 0


def test_the_tab_key_stops_only_at_what_scrolls(telephone):
    telephone.wait_for_function(f"String({STOPS}) == String({WIDER})")
    stops = telephone.evaluate(STOPS)
    assert "Rows of every cell" in stops and "Values by parameterization" in stops
    telephone.set_viewport_size({"width": 1600, "height": HEIGHT})
    telephone.wait_for_function(f"String({STOPS}) == String({WIDER})")
    assert "Values by parameterization" not in telephone.evaluate(STOPS)


def test_a_table_that_goes_on_has_a_shadow_where_it_does(telephone):
    region = telephone.get_by_role("region", name="Rows of every cell")
    assert region.evaluate("each => each.scrollWidth > 2 * each.clientWidth")
    paper = brightness(telephone.get_by_role("heading", level=1), -1)
    assert abs(brightness(region, -1) - paper) > 15, "it goes on to the right"
    region.evaluate("each => each.scrollTo(each.scrollWidth, 0)")
    assert abs(brightness(region, -1) - paper) < 3, "this is its end"


def test_a_table_that_fits_has_no_shadow(telephone):
    telephone.set_viewport_size({"width": 1600, "height": HEIGHT})
    region = telephone.get_by_role("region", name="Values by parameterization")
    assert region.evaluate("each => each.scrollWidth == each.clientWidth")
    paper = brightness(telephone.get_by_role("heading", level=1), -1)
    assert abs(brightness(region, -1) - paper) < 3
