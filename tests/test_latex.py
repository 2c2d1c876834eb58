"""The table for a paper: entries against numbers rounded by hand, and names that LaTeX would take for commands."""

import copy
import math
import re
import shutil
import subprocess

import pandas as pd
import pytest
from helpers import EXAMPLE

from targetwise.report import latex
from targetwise.report.table import TABLE_COLUMNS

#: Of three far apart, v is shown to be the lowest: deviations 1.258, 1 and 0.764.
APART = {"epsilon": [60, 61, 62.5], "v": [40, 41, 42], "x0": [50.5, 51.5, 52]}
#: The means differ, and the seeds scatter more.
MIXED = {"epsilon": [60, 40, 50], "v": [41, 60, 52], "x0": [50, 45, 61]}


def frame(grid, error=math.nan):
    """Return a table of {setting: {variant: [a seed's value, or 'diverged' or 'missing']}}."""
    records = []
    for setting, variants in grid.items():
        for name, values in variants.items():
            for seed, value in enumerate(values):
                finished = not isinstance(value, str)
                records.append(
                    {
                        "parameterization": name,
                        "scale": setting,
                        "setting": setting,
                        "seed": seed,
                        "draw": 0,
                        "status": "finished" if finished else value,
                        "metric": "FD (digits features)" if finished else None,
                        "value": value if finished else math.nan,
                        "error": error if finished else math.nan,
                        "reason": None if finished else "lost\nat 5 %",
                    }
                )
    return pd.DataFrame.from_records(records, columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS)


def render(grid, error=math.nan):
    return latex.render(frame(grid, error), copy.deepcopy(EXAMPLE))


def rows(text):
    """Return the entries of the tabular's rows, the header first."""
    between = text.split("\\toprule\n")[1].split("\\bottomrule\n")[0].replace("\\midrule\n", "")
    return [[entry.strip() for entry in re.split(r"(?<!\\)&", line[: -len("\\\\")])] for line in between.splitlines()]


def test_a_table_as_a_paper_prints_it():
    assert rows(render({"tiny": APART, "small": MIXED})) == [
        ["", "tiny", "small"],
        ["epsilon", r"61.2 $\pm$ 1.3 (3)", r"50 $\pm$ 10 (3)"],
        ["v", r"\textbf{41.0 $\pm$ 1.0} (3)", r"51.0 $\pm$ 9.5 (3)"],
        ["x0", r"51.33 $\pm$ 0.76 (3)", r"52.0 $\pm$ 8.2 (3)"],
    ]


def test_comments_say_what_a_caption_must_and_nothing_else_stands_outside_of_the_table():
    text = render({"tiny": APART})
    assert re.fullmatch(r"(%[^\n]+\n)+\\begin\{tabular\}\{lr\}\n.*\\end\{tabular\}\n", text, re.DOTALL)
    comments = " ".join(line[2:] for line in text.splitlines() if line.startswith("%"))
    said = ["FD (digits features), lower is better", "sample standard deviation", "simultaneous 95 % intervals"]
    said += ["2,500 steps of 256 images", "DDIM with 50 steps, 1 draw of 512 images", "data set digits"]
    assert all(words in comments for words in [*said, "Study digits", r"\usepackage{booktabs}"])
    assert r"\dagger" not in text


def test_names_are_not_taken_for_commands():
    text = render({"a_b, ddim": {"x_0%": [1.0, 2.0], "R&D #{1}": [3.0, 4.0], r"\v~^$": [5.0, 6.0]}})
    header, *names = (row[0] if row[0] else row[1] for row in rows(text))
    assert header == r"a\_b, ddim"
    assert names[:2] == [r"x\_0\%", r"R\&D \#\{1\}"]
    assert names[2].startswith(r"\textbackslash") and r"\$" in names[2] and "^$" not in names[2]


@pytest.mark.parametrize(("error", "entry"), [(math.nan, "61.25 (1)"), (0.0312, "61.251 (1)"), (14.0, "61 (1)")])
def test_one_seed_has_no_spread_and_the_digits_that_its_error_leaves(error, entry):
    grid = {"tiny": {"epsilon": [61.251], "v": [41.0]}}
    assert rows(render(grid, error))[1] == ["epsilon", entry]
    assert "textbf" not in render(grid, error)


@pytest.mark.parametrize(
    ("values", "entry"),
    [
        ([0.0101, 0.0123], r"0.0112 $\pm$ 0.0016 (2)"),
        ([1800.0, 1900.0], r"1850 $\pm$ 71 (2)"),
        ([1.0, 1.1407], r"1.070 $\pm$ 0.099 (2)"),  # 0.09949
        ([1.0, 1.1409], r"1.07 $\pm$ 0.10 (2)"),  # 0.09963 is 0.10 in two digits
        ([-2.0, -4.0], r"$-$3.0 $\pm$ 1.4 (2)"),
        ([5.0, 5.0], r"5.00 $\pm$ 0.00 (2)"),
    ],
)
def test_the_spread_has_two_digits_and_the_mean_as_many_decimals(values, entry):
    assert rows(render({"tiny": {"v": values}}))[1] == ["v", entry]


def test_what_is_not_finished_is_marked_named_and_explained_below_the_table():
    grid = {
        "tiny": {"lost": ["missing", "missing"], "loud": [50.0, "diverged"], "v": [40.0, 41.0]},
        "small": {"lost": ["missing", "diverged"], "loud": ["diverged", "diverged"], "v": [30.0, 31.0]},
    }
    text = render(grid)
    assert rows(text)[1:] == [
        ["lost", r"--\rlap{$^{\ddagger}$}", r"--\rlap{$^{\dagger\ddagger}$}"],
        ["loud", r"50.00 (1)\rlap{$^{\dagger}$}", r"--\rlap{$^{\dagger}$}"],
        ["v", r"40.50 $\pm$ 0.71 (2)", r"30.50 $\pm$ 0.71 (2)"],
    ]
    assert "% Diverged: loud-tiny-1: lost at 5 %\n" in text and "% Missing: lost-tiny-0: lost at 5 %\n" in text
    below = text.split("\\end{tabular}\n")[1]
    assert (
        r"$\dagger$ Some seeds diverged and are left out." in below and r"$\ddagger$ Some seeds are missing." in below
    )


def test_a_grid_of_which_nothing_is_done_is_a_table_all_the_same():
    text = render({"tiny": {"epsilon": ["missing"], "v": ["missing"]}})
    assert [row[1] for row in rows(text)[1:]] == [r"--\rlap{$^{\ddagger}$}"] * 2
    assert "Some seeds are missing" in text and "diverged" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_takes_it(tmp_path):
    (tmp_path / "table.tex").write_text(render({"a_1": {"x_0%": [1.0, "diverged"], "R&D": ["missing", 4.0]}}))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\begin{table}\centering\caption{c}"
        r"\input{table.tex}\end{table}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
