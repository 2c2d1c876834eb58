"""The documentation, opened as files: it can be read, searched and followed, and nothing is asked of a network."""

import re

from playwright.sync_api import expect


def test_it_is_searched_and_read_from_files(site, page):
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="Findings: what became of the claims").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Findings: what became of the claims")
    page.get_by_role("textbox", name="Search").fill("Tukey")
    page.locator(".md-search-result__link").first.click()
    expect(page).to_have_url(re.compile(r"/statistics\.html"))
    assert {url.split(":")[0] for url in asked} <= {"file", "data"} and not complaints


def test_nothing_is_wider_than_a_phone(site, page):
    page.set_viewport_size({"width": 390, "height": 844})
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{path.name} is {width} pixels wide"
