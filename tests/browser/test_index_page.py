"""The page of all studies in a real browser: as wide as the screen, reached by the keyboard, whole by itself."""

import contextlib
import copy

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers import EXAMPLE, ROOT
from synthetic import Files

from targetwise.report import index

LONG = "a_study_with_a_name_that_is_rather_long_as_people_like_them"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The page of a study under way, one with a report, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("workflow", "config", "config.yaml"):
        (folder / name).symlink_to(ROOT / name)
    with contextlib.chdir(folder):
        for name, finished in (("digits", 9), (LONG, 5)):
            files = Files(copy.deepcopy(EXAMPLE) | {"study": name})
            for cell in files.cells[:finished]:
                files.finish(cell, [600])
        (folder / "results/digits/report.html").write_text("<title>digits</title>")
        (folder / "results/broken").mkdir()
        (folder / "results/broken/study.json").write_text("{")
        index.write(look=True)
    return folder / index.PAGE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_it_fits_the_screen_and_loads_nothing(chromium, studies, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(studies.as_uri())
    page.screenshot(path=ROOT / f"results/screenshots/index-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert (said, asked) == ([], [studies.as_uri()])
    assert Axe().run(page).response["violations"] == []
    region = page.get_by_role("region", name="Studies")
    assert region.evaluate("each => each.scrollWidth > each.clientWidth") == (width == 390)
    if width == 390:
        region.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("each => each.scrollLeft > 0", arg=region.element_handle())
    page.get_by_role("link", name="digits").click()
    assert page.title() == "digits"
    context.close()
