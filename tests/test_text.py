"""Words for people: one thing is singular, and columns are of one width."""

import pytest

from targetwise import text
from targetwise.versioning.restore import Outcome


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "cell"), "0 cells"),
        ((1, "cell"), "1 cell"),
        ((1285, "cell"), "1,285 cells"),
        ((1, "file", "are"), "1 file is"),
        ((2, "file", "are"), "2 files are"),
        ((1, "file", "were"), "1 file was"),
        ((0, "file", "were"), "0 files were"),
    ],
)
def test_one_is_singular(arguments, words):
    assert text.counted(*arguments) == words


def test_columns_are_of_one_width_and_lines_end_with_a_word():
    assert text.aligned([["a", "bb"], ["ccc", ""]]) == ["a    bb", "ccc"]
    assert text.aligned([["a", "bb"], ["ccc", ""]], str.rjust) == ["  a  bb", "ccc"]


def test_what_was_restored_is_said_in_singular_and_plural():
    one = Outcome("digits", whole=["v-tiny-0"], placed=1)
    assert one.lines() == ["digits: 1 cell is whole; 1 file was put in place"]
    more = Outcome("digits", whole=["v-tiny-0", "v-tiny-1"], placed=0)
    assert more.lines() == ["digits: 2 cells are whole; 0 files were put in place"]


def test_a_curve_is_on_a_logarithmic_scale_and_has_gaps():
    assert text.sparkline([1, 10, 100, 1000], 4) == "▁▃▆█"
    assert text.sparkline([None, 1, 4, 0, float("inf"), float("nan"), 1], 7) == " ▁█   ▁"
    assert text.sparkline([10.0**power for power in range(100)], 8) == "▁▂▃▄▅▆▇█"
    assert text.sparkline([], 5) == ""


def test_what_hardly_varies_makes_a_flat_line_in_the_middle():
    assert set(text.sparkline([1.0, 1.02, 0.99, 1.01] * 10)) <= set("▄▅")
    assert text.sparkline([3.0] * 5, 5) == "▅▅▅▅▅"
