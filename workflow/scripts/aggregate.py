"""Make the tables of a study.

    python workflow/scripts/aggregate.py --study results/digits/study.json \
        --table results/digits/table.csv --comparisons results/digits/comparisons.csv --pairs results/digits/pairs.csv \
        --paper results/digits/table.tex
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.report import effects, latex, looks, statistics
from targetwise.report.table import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    parser.add_argument("--table", required=True, type=Path)
    parser.add_argument("--comparisons", required=True, type=Path)
    parser.add_argument("--pairs", required=True, type=Path)
    parser.add_argument("--paper", required=True, type=Path, help="the means, in LaTeX")
    arguments = parser.parse_args()
    study = files.read_json(arguments.study)
    frame = table(study)
    compared = statistics.comparisons(frame, statistics.declared(study))
    files.write_text(arguments.table, frame.to_csv(index=False))
    files.write_text(arguments.comparisons, compared.to_csv(index=False))
    files.write_text(arguments.pairs, statistics.pairs(frame).to_csv(index=False))
    files.write_text(arguments.paper, latex.render(frame, study))
    for name, found in effects.tables(frame, study).items():
        files.write_text(arguments.table.with_name(f"{name}.csv"), found.to_csv(index=False))
    looks.record(arguments.study.parent, frame, study)


if __name__ == "__main__":
    errors.run(main)
