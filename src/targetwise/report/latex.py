r"""The means of a study as a table for a paper: ``table.tex``, which needs ``\usepackage{booktabs}`` and no more."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from targetwise.files import sha256_of_json
from targetwise.report import statistics
from targetwise.report.answer import answer, cell_states, metric_of
from targetwise.report.budget import budget
from targetwise.report.words import CERTAINTY, records

#: Of a variant's entry, whose seeds are not all finished: its mark, and the note below the table.
MARKS = {
    "diverged": (r"\dagger", "Some seeds diverged and are left out."),
    "missing": (r"\ddagger", "Some seeds are missing."),
}


def render(frame: pd.DataFrame, config: Mapping[str, Any]) -> str:
    r"""Return the table of means to ``\input``, a row for each variant and a column for each setting.

    An entry is the mean ± the sample standard deviation over seeds, with two digits of the latter, and the number of
    seeds in parentheses. It is bold where the comparisons show it to be the lowest of its column.

    Args:
        frame: of :func:`targetwise.report.table.table`.
        config: the whole configuration.

    Returns:
        LaTeX: comments that say what a caption must, a ``tabular``, and below it a note for each mark that is used.
    """
    summary, states = statistics.summary(frame), cell_states(frame)
    compared = statistics.compared(frame, statistics.declared(config))
    found = answer(states, summary, compared, frame, config)
    lowest = {(scale.scale, scale.winner) for scale in found.scales}
    entries = pd.DataFrame(
        {
            setting: {
                row.parameterization: _entry(row, (setting, row.parameterization) in lowest) for row in records(rows)
            }
            for setting, rows in summary.groupby("setting", sort=False)
        }
    )
    tabular = (
        entries.style.format_index(escape="latex", axis="index")
        .format_index(escape="latex", axis="columns")
        .to_latex(hrules=True, column_format="l" + "r" * len(entries.columns))
    )
    notes = [f"${mark}$ {note}" for name, (mark, note) in MARKS.items() if summary[name].any()]
    below = [rf"\par\smallskip{{\footnotesize {' '.join(notes)}\par}}"] if notes else []
    unfinished = [f"Diverged: {cell}" for cell in found.diverged] + [f"Missing: {cell}" for cell in found.missing]
    comments = [*_caption(config, metric_of(frame)), *unfinished]
    return "\n".join([*(f"% {' '.join(line.split())}" for line in comments), tabular.rstrip("\n"), *below, ""])


def _entry(row: Any, is_lowest: bool) -> str:
    marks = "".join(mark for name, (mark, _) in MARKS.items() if getattr(row, name))
    raised = rf"\rlap{{$^{{{marks}}}$}}" if marks else ""  # takes no width, so that numbers stay below each other
    if not row.seeds:
        return f"--{raised}"
    # Of one seed the spread is not known; the error of its value then says how many digits mean anything.
    spread = next((each for each in (row.deviation, row.error) if each > 0), math.nan)
    digits = _decimals(spread) if math.isfinite(spread) else 2
    text = f"{row.mean:.{digits}f}".replace("-", "$-$")
    if row.seeds > 1:
        text += rf" $\pm$ {row.deviation:.{digits}f}"
    return (rf"\textbf{{{text}}}" if is_lowest else text) + f" ({row.seeds}){raised}"


def _decimals(spread: float) -> int:
    """Return how many decimals show two digits of a spread, e.g. 1 for 1.234, 3 for 0.0456 and 0 for 45.6."""
    return max(0, 1 - int(f"{spread:.1e}".partition("e")[2]))


def _caption(config: Mapping[str, Any], metric: str) -> list[str]:
    given = budget(config)
    return [
        f"{metric}, lower is better: mean ± sample standard deviation over seeds, their number in parentheses.",
        f"Bold: shown to be the lowest of its column, by simultaneous {CERTAINTY} intervals with seeds as blocks.",
        f"Budget: {given['steps']} steps of {given['batches']} images; {given['sampling']}; "
        f"data set {config['data']['dataset']}.",
        f"Study {config['study']}, configuration SHA-256 {sha256_of_json(config)}; needs \\usepackage{{booktabs}}.",
    ]
