"""Judge the claims of a study.

python workflow/scripts/claims.py --study results/digits_claims/study.json --output results/digits_claims/claims.csv
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.report import claims, looks
from targetwise.report.table import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    study = files.read_json(arguments.study)
    frame = table(study)
    looks.record(arguments.study.parent, frame, study)
    files.write_text(arguments.output, claims.table(study, frame).to_csv(index=False))


if __name__ == "__main__":
    errors.run(main)
