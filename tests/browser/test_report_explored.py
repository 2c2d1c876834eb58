"""The report in a real browser, asked by a reader: filter, sort, search, compare, copy, save."""

import csv
import io
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import report_of
from helpers import ROOT
from PIL import Image
from playwright.sync_api import expect

from targetwise.files import read_json

KINDS = ("SVG", "PNG", "CSV")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return report_of(
        tmp_path_factory.mktemp("small"), {"parameterizations": ["epsilon", "v", "x0"], "seeds": [0, 1, 2]}
    )


def crossed(folder, rates):
    """Variants of two outputs and so many learning rates, at three scales with five seeds."""
    variants = {
        f"{target}_{place}": {"target": target, "training": {"learning_rate": 1e-4 * 1.5 ** (10 * place / rates)}}
        for target in ("epsilon", "v")
        for place in range(rates)
    }
    grid = {"parameterizations": list(variants), "scales": ["tiny", "small", "medium"], "seeds": [0, 1, 2, 3, 4]}
    return report_of(folder, grid, variants)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """300 cells."""
    return crossed(tmp_path_factory.mktemp("large"), 10)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two cells whose data set is here."""
    grid = {"parameterizations": ["epsilon", "v"], "seeds": [0]}
    return report_of(tmp_path_factory.mktemp("prepared"), grid, prepared=True)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Three outputs, sampled after two steps of each training and at its end, and with another sampler."""
    samplings = {"early": {"snapshot": 200}, "later": {"snapshot": 1000}, "last": {}, "few": {"steps": 10}}
    sections = {"training": {"snapshots": [200, 1000]}, "samplings": samplings}
    grid = {"parameterizations": ["epsilon", "v", "x0"], "seeds": [0, 1], "samplings": list(samplings)}
    return report_of(tmp_path_factory.mktemp("followed"), grid, sections=sections)


@pytest.fixture
def opened(chromium, request):
    """A function that opens a page and watches it: at the end nothing was complained about, and nothing asked for."""
    contexts, complaints, asked = [], [], []

    def open_page(path, width=1280, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda each: asked.append(each.url) if not each.url.startswith(("data:", "blob:")) else None
        )
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.drawing svg').length > 2")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split("#")[0].rsplit("/", 1)[1] for url in asked} <= {"report.html"}


def explored(page):
    """Return the values that the explorer shows, by cell."""
    return page.evaluate(
        "document.getElementById('explorer').view.data('table').map(row => [row.cell, row.parameterization])"
    )


def visible(page):
    """Return the cells of the table of every cell, as far as their rows are shown."""
    rows = "[...document.querySelectorAll('#cells tbody tr')].filter(row => !row.hidden)"
    return page.evaluate(f"{rows}.map(row => row.cells[0].textContent)")


def choose(page, group, label, value):
    page.locator(group).get_by_label(label, exact=True).select_option(value)


def unfolded(page):
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


def test_a_filter_holds_for_the_figure_and_the_table(opened, small):
    page = opened(small)
    assert {name for _, name in explored(page)} == {"epsilon", "v", "x0"}
    choose(page, "#filters", "parameterization", "v")
    expect(page.locator("#left")).to_have_text("3 of 8 finished draws")
    page.wait_for_function("document.getElementById('explorer').view.data('table').length == 3")
    assert {name for _, name in explored(page)} == {"v"}
    assert visible(page) == ["v-tiny-0", "v-tiny-1", "v-tiny-2"]
    choose(page, "#filters", "seed", "1")
    assert visible(page) == ["v-tiny-1"]
    choose(page, "#filters", "parameterization", "")
    assert visible(page) == ["epsilon-tiny-1", "v-tiny-1", "x0-tiny-1"]


def test_any_quantity_is_shown_over_any_axis_in_panels(opened, large):
    page = opened(large)
    for label, value in (
        ("Show", "training, minutes"),
        ("over", "training.learning_rate"),
        ("coloured by", "target"),
        ("a panel for each", "scale"),
    ):
        choose(page, "#asks", label, value)
    page.wait_for_function("document.querySelector('#explorer svg').textContent.includes('medium')")
    text = page.locator("#explorer svg").first.text_content()
    for words in ("training, minutes", "training.learning_rate", "target", "tiny", "small", "medium", "epsilon"):
        assert words in text


def asked(page):
    """Return what the explorer draws, in Vega-Lite."""
    return page.evaluate("JSON.parse(document.querySelector('#explorer script').textContent)")


def test_over_an_axis_with_numbers_lines_join_the_means_of_each_colour(opened, large):
    page = opened(large)
    choose(page, "#asks", "over", "training.learning_rate")
    choose(page, "#asks", "coloured by", "target")
    drawn = asked(page)
    x, y, colour = (drawn["encoding"][channel] for channel in ("x", "y", "color"))
    assert (x["field"], y["field"], colour["field"]) == ("training\\.learning_rate", "FD (digits features)", "target")
    assert (x["type"], x["scale"]["type"], y["scale"]["type"]) == ("quantitative", "log", "log")
    line, marks = drawn["layer"]
    assert line["mark"] == {"type": "line", "point": False} and line["encoding"]["y"]["aggregate"] == "mean"
    assert marks["encoding"]["href"] == {"field": "manifest"}
    assert len(drawn["data"]["values"]) == 299  # what is missing has no mark
    choose(page, "#filters", "training.learning_rate", "0.0001")
    drawn = asked(page)
    assert {row["parameterization"] for row in drawn["data"]["values"]} == {"epsilon_0", "v_0"}
    choose(page, "#asks", "Show", "training, minutes")
    choose(page, "#asks", "over", "FD (digits features)")
    drawn = asked(page)
    assert drawn["encoding"]["y"]["scale"]["type"] == "linear"  # all alike
    assert len(drawn["layer"]) == 1  # over what was measured nothing is joined


def test_a_question_is_saved_as_numbers_whatever_its_columns_are_called(opened, small):
    page = opened(small)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save explore as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert {row["training, minutes"] for row in rows} == {"10"}
    assert [row["cell"] for row in rows] == [cell for cell, _ in explored(page)]


def test_figures_are_as_wide_as_there_is_room(opened, small):
    page = opened(small)
    width = "document.querySelector('#explorer svg').getBoundingClientRect().width"
    before = page.evaluate(width)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(f"{width} < {before} - 300")
    assert page.evaluate("document.documentElement.scrollWidth") == 700


def test_what_is_folded_is_drawn_when_it_opens(opened, large):
    page = opened(large)
    folded = page.locator("details", has=page.locator(".chart")).first
    assert folded.locator("svg").count() == 0
    folded.locator("summary").first.click()
    expect(folded.locator(".chart svg").last).to_be_visible()


def test_what_is_sorted_is_filtered_by_its_own_values(opened, small):
    page = opened(small)
    heading = page.locator("#cells thead th").first.get_by_role("button")
    heading.click()
    heading.click()
    names = sorted((f"{name}-tiny-{seed}" for name in ("epsilon", "v", "x0") for seed in range(3)), reverse=True)
    assert visible(page) == names
    choose(page, "#filters", "parameterization", "epsilon")
    assert visible(page) == [name for name in names if name.startswith("epsilon")]


def test_the_table_is_sorted_and_what_is_missing_comes_last(opened, small):
    page = opened(small)
    heading = page.locator("#cells thead th", has_text="FD")
    values = {
        row["cell"]: row["FD (digits features)"]
        for row in page.evaluate("JSON.parse(document.getElementById('rows').textContent).rows")
    }
    known = sorted((value, cell) for cell, value in values.items() if value is not None)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert visible(page) == [cell for _, cell in known] + ["x0-tiny-2"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    shown = visible(page)
    assert [values[cell] for cell in shown[:-1]] == sorted((value for value, _ in known), reverse=True)
    assert shown[-1] == "x0-tiny-2"


def test_the_table_is_searched_by_all_words(opened, large):
    page = opened(large)
    unfolded(page)
    page.get_by_label("Search").fill("v_3 MEDIUM")
    expect(page.locator("#found")).to_have_text("5 of 300 rows")
    assert visible(page) == [f"v_3-medium-{seed}" for seed in range(5)]


def test_the_command_that_makes_a_cell_again_is_copied(opened, small):
    page = opened(small)
    row = page.locator("#cells tbody tr", has_text="v-tiny-1")
    row.get_by_role("button").last.click()
    expect(row.get_by_text("copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "targetwise reproduce cell@v-tiny-1 --configfile results/digits/study.json"


def test_a_row_of_text_is_sorted_by_its_letters(opened, small):
    """By what stands there, where no number does: the one that is missing has a reason, and the others have none."""
    page = opened(small)
    heading = page.locator("#cells thead th", has_text="status").get_by_role("button")
    heading.click()
    assert visible(page)[-1] == "x0-tiny-2", "finished before missing"
    heading.click()
    assert visible(page)[0] == "x0-tiny-2"


def test_a_copied_command_can_be_copied_again(opened, small):
    page = opened(small)
    section = page.get_by_role("region", name="Run it again")
    button = section.get_by_role("button", name="Copy snakemake --cores all all")
    button.click()
    expect(button).to_have_text("copied")
    whole = "snakemake --cores all all --configfile results/digits/study.json"
    assert page.evaluate("navigator.clipboard.readText()") == whole
    expect(button).to_have_text("copy")


def test_the_tab_key_stops_once_at_what_saves_a_figure_and_arrows_go_on(opened, small):
    page = opened(small)
    svg, png, numbers = (page.get_by_role("button", name=f"Save values-tiny as {kind}") for kind in KINDS)
    stops = [button.evaluate("each => each.tabIndex") for button in (svg, png, numbers)]
    assert stops == [0, -1, -1]
    svg.focus()
    page.keyboard.press("ArrowRight")
    expect(png).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(numbers).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(numbers).to_be_focused()


def test_numbers_are_saved_with_quotes_where_csv_needs_them(opened, small, tmp_path):
    name = 'a "b", c'
    html = small.read_text().replace('"parameterization":"epsilon"', '"parameterization":"a \\"b\\", c"')
    (tmp_path / "report.html").write_text(html)
    page = opened(tmp_path / "report.html")
    page.evaluate("URL.revokeObjectURL = address => (window.revoked = address)")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save values-tiny as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sorted({row["parameterization"] for row in rows}) == [name, "v", "x0"]
    assert len({len(row) for row in rows}) == 1
    page.wait_for_function(f"window.revoked == {download.value.url!r}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_is_saved_as_picture_in_light_colours_and_as_numbers(opened, small, scheme):
    page = opened(small, scheme=scheme)
    found = {}
    for kind in KINDS:
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save values-tiny as {kind}").click()
        assert download.value.suggested_filename == f"digits-values-tiny.{kind.lower()}"
        found[kind] = download.value.path().read_bytes()
    drawing = found["SVG"].decode()
    assert drawing.startswith("<svg") and "var(" not in drawing
    assert 'fill="#1b1f24"' in drawing and "#e8ebee" not in drawing
    picture = Image.open(io.BytesIO(found["PNG"])).convert("RGB")
    width = page.evaluate("document.querySelector('[data-name=values-tiny]').clientWidth")
    assert float(re.search(r'width="([\d.]+)"', drawing).group(1)) == width > 300
    assert picture.width == 2 * width and picture.getpixel((0, 0)) == (255, 255, 255)
    rows = list(csv.DictReader(io.StringIO(found["CSV"].decode())))
    told = read_json(small.parent / "v/tiny/seed1/fid/ddim-50/draw0.json")["value"]
    (mine,) = [row for row in rows if row["parameterization"] == "v" and row["seed"] == "1"]
    assert float(mine["FD (digits features)"]) == pytest.approx(told, rel=1e-5)
    assert len(rows) == 8


def test_samples_are_chosen_by_variant_and_setting(opened, large):
    page = opened(large)
    shown = page.locator(".columns:visible .scroll:first-child .column:visible h3")
    assert [text.split()[0] for text in shown.all_inner_texts()] == [f"epsilon_{place}" for place in range(6)]
    page.locator("#sampled").get_by_label("v_9", exact=True).check()
    page.locator("#sampled").get_by_label("epsilon_0", exact=True).uncheck()
    assert [text.split()[0] for text in shown.all_inner_texts()][-1] == "v_9"
    assert "epsilon_0" not in " ".join(shown.all_inner_texts())
    choose(page, "#sampled", "Setting", "medium")
    assert page.locator(".columns:visible").get_attribute("data-setting") == "medium"


def test_the_nearest_training_images_are_shown_on_demand_each_beside_its_sample(opened, prepared):
    page = opened(prepared)
    tick, nearest = page.get_by_label("nearest training image beside each"), page.locator(".nearest")
    assert nearest.count() >= 2 and page.locator(".nearest:visible").count() == 0
    tick.check()
    places = nearest.evaluate_all(
        """shown => shown.map(each => [each.previousElementSibling, each].map(image => {
            const { left, top, height } = image.getBoundingClientRect();
            return { left, top, height, pixels: image.naturalHeight };
        }))"""
    )
    for sample, near in places:
        assert near["left"] > sample["left"] and near["pixels"] > 8
        assert all(near[side] == pytest.approx(sample[side], abs=1) for side in ("top", "height", "pixels"))
    tick.uncheck()
    expect(nearest.first).to_be_hidden()


def test_a_slider_goes_through_one_training(opened, followed):
    page = opened(followed)
    slider, shown = page.get_by_role("slider", name="Trained until"), page.locator(".columns:visible")

    def stands_at(setting, words):
        assert shown.evaluate_all("shown => shown.map(each => each.dataset.setting)") == [setting]
        expect(page.locator("#sampled output")).to_have_text(words)
        expect(slider).to_have_attribute("aria-valuetext", words)

    stands_at("tiny, last", "the end")
    slider.focus()
    for setting, words in (("tiny, later", "step 1,000"), ("tiny, early", "step 200"), ("tiny, early", "step 200")):
        page.keyboard.press("ArrowLeft")
        stands_at(setting, words)
    page.keyboard.press("ArrowRight")
    stands_at("tiny, later", "step 1,000")
    page.locator("#sampled").get_by_label("v", exact=True).uncheck()
    assert len(shown.locator(".scroll:first-child .column:visible").all()) == 2
    choose(page, "#sampled", "Setting", "tiny, few")
    assert shown.evaluate_all("shown => shown.map(each => each.dataset.setting)") == ["tiny, few"]
    expect(slider).to_be_hidden()
    choose(page, "#sampled", "Setting", "tiny, last")
    stands_at("tiny, last", "the end")


def test_the_colours_follow_the_reader_and_paper_is_light(opened, small):
    page = opened(small)
    ink = "getComputedStyle(document.querySelector('[data-name=values-tiny] svg text')).fill"
    assert page.evaluate(ink) == "rgb(27, 31, 36)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ink) == "rgb(232, 235, 238)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(ink) == "rgb(27, 31, 36)"


def test_panels_are_seen_in_the_order_of_the_study(opened, large):
    page = opened(large)
    choose(page, "#asks", "a panel for each", "scale")
    page.wait_for_function("document.querySelector('#explorer svg').getBoundingClientRect().width > 900")
    places = page.evaluate(
        "[...document.querySelectorAll('#explorer svg text')].filter(each => ['tiny', 'small', 'medium'].includes("
        "each.textContent)).map(each => [each.getBoundingClientRect().x, each.textContent])"
    )
    assert list(dict.fromkeys(name for _, name in sorted(places))) == ["tiny", "small", "medium"]
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_nothing_that_is_left_is_said(opened, small):
    page = opened(small)
    choose(page, "#filters", "parameterization", "x0")
    choose(page, "#filters", "seed", "2")
    expect(page.locator("#left")).to_have_text("0 of 8 finished draws")
    expect(page.locator("#explorer svg")).to_contain_text("nothing is left of what was chosen")


def test_a_heading_is_seen_where_its_link_leads(opened, small):
    page = opened(small)
    page.get_by_role("navigation").get_by_role("link", name="Samples").click()
    heading = page.get_by_role("heading", name="Samples").bounding_box()
    assert heading["y"] > page.get_by_role("navigation").bounding_box()["height"]


def test_a_figure_that_vega_refuses_takes_no_other_along(opened, tmp_path):
    """It knows no scale of which a name is one that every JavaScript object has."""
    variants = {"constructor": {"target": "v"}}
    page = opened(report_of(tmp_path, {"parameterizations": ["constructor", "x0"], "seeds": [0, 1]}, variants))
    expect(page.get_by_text("This figure could not be drawn").first).to_be_attached()
    page.wait_for_function("document.querySelector('[data-name=clipped-tiny] svg, [data-name=loss-tiny-x0] svg')")
    page.get_by_label("Search").fill("x0")
    expect(page.locator("#found")).to_have_text("2 of 4 rows")


def test_cells_that_all_diverged_leave_a_page_that_works(opened, tmp_path):
    page = opened(report_of(tmp_path, {"parameterizations": ["epsilon", "v"], "seeds": [0, 1]}, diverged=True))
    page.get_by_label("Search").fill("v-tiny")
    expect(page.locator("#found")).to_have_text("2 of 4 rows")


def test_every_figure_is_drawn_before_one_prints_but_for_folded_ones(opened, large):
    page = opened(large)
    charts = "[...document.querySelectorAll('.chart')]"
    folded = "each.closest('details:not([open])')"
    page.wait_for_function(f"{charts}.every(each => {folded} || each.querySelector('svg'))")
    assert page.locator(".chart svg").count() >= 7
    assert page.evaluate(f"{charts}.filter(each => {folded} && each.querySelector('svg')).length") == 0


def test_a_page_of_3000_cells_opens_is_filtered_and_searched(opened, tmp_path):
    page = opened(crossed(tmp_path, 100))
    assert len(explored(page)) == 2999  # one is missing
    choose(page, "#filters", "parameterization", "v_7")
    expect(page.locator("#left")).to_have_text("15 of 2999 finished draws")
    page.wait_for_function("document.getElementById('explorer').view.data('table').length == 15")
    page.locator("details", has=page.locator("#cells")).evaluate("each => each.open = true")
    page.get_by_label("Search").fill("medium")
    expect(page.locator("#found")).to_have_text("5 of 3000 rows")
    assert visible(page) == [f"v_7-medium-{seed}" for seed in range(5)]
    assert (tmp_path / "results/digits/report.html").stat().st_size < 20e6


def test_what_is_printed_is_unfolded_and_has_no_controls(opened, small):
    page = opened(small, width=794)  # A4 at 96 dots per inch
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(folded)
    assert before
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"{folded} == 0")
    controls = page.locator("nav, select, input, button:not(th button)")
    assert controls.count() > 20 and not any(each.is_visible() for each in controls.all())
    assert page.evaluate("document.documentElement.scrollWidth") == 794
    boxes = "[...document.querySelectorAll('.scroll:not(.columns), .chart')]"
    assert (
        page.evaluate(f"{boxes}.filter(each => each.scrollWidth > each.clientWidth).map(each => each.ariaLabel)")
        == []
    )
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == before


def test_300_cells_stay_small(large):
    assert large.stat().st_size < 20e6


@pytest.mark.parametrize("width", [390, 1280, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_and_is_accessible(opened, small, width, scheme):
    page = opened(small, width, scheme)
    page.wait_for_timeout(500)
    page.screenshot(path=ROOT / f"results/screenshots/report-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert grave == [], [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in grave]
