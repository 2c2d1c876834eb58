"""Figures as files: all that the page has, in light colours; nothing of a page that has none."""

import sys
from pathlib import Path

import pytest
from test_report import APART, config, make_check, make_grid, render  # noqa: F401 (config is a fixture)

from targetwise import cli
from targetwise.errors import UserError
from targetwise.report import paper


@pytest.fixture
def page(config):  # noqa: F811
    make_grid(config, APART)
    for name in APART:
        make_check(config, name)
    path = Path("results/digits/report.html")
    path.write_text(render(config))
    return path


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<svg"), ("png", b"\x89PNG")])
def test_every_figure_becomes_a_file_of_its_kind(page, tmp_path, kind, begins):
    written = paper.write(page, tmp_path / "made", kind)
    names = [f"loss-tiny-{name}" for name in APART] + ["intervals-tiny", "values-tiny", "clipped-tiny"]
    names += ["check-gain-from-output-to-x0", "check-effective-weight"]
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names}
    assert sorted((tmp_path / "made").iterdir()) == sorted(written)
    assert all(path.read_bytes().startswith(begins) for path in written)


def test_a_file_is_in_the_light_colours_of_the_page_and_on_white(page, tmp_path):
    paper.write(page, tmp_path, "svg")
    drawing = (tmp_path / "values-tiny.svg").read_text()
    assert "var(" not in drawing and "light-dark" not in drawing
    assert 'fill="white"' in drawing and "#1b1f24" in drawing and "#0072b2" in drawing
    assert "#e8ebee" not in drawing  # ink where it is dark


def test_a_page_without_figures_is_said(config, tmp_path):  # noqa: F811
    path = tmp_path / "report.html"
    path.write_text(render(config))
    with pytest.raises(UserError, match="has no figures; nothing of the study is measured or trained yet"):
        paper.write(path, tmp_path / "made", "pdf")
    assert not (tmp_path / "made").exists()


def test_without_a_report_the_command_says_how_to_make_it(project, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["targetwise", "figures", "--configfile", "config/digits.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    made = "`snakemake --cores all all --configfile config/digits.yaml` makes it"
    assert capsys.readouterr().err == f"error: results/digits/report.html does not exist; {made}\n"
