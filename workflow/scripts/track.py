"""Import a study into MLflow.

python workflow/scripts/track.py --study results/digits/study.json --output results/digits/tracked.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.tracking import importer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    parser.add_argument("--output", required=True, type=Path, help="receives the names of the imported cells")
    arguments = parser.parse_args()
    done = importer.Importer(files.read_json(arguments.study)).update()
    files.write_json(arguments.output, sorted([*done["imported"], *done["unchanged"]]))


if __name__ == "__main__":
    errors.run(main)
