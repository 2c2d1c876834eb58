"""Record a study's finished cells in DVC, or hold one of them against the configuration.

python workflow/scripts/version.py --study results/digits/study.json --output results/digits/versioned.json
python workflow/scripts/version.py --study results/digits/study.json --finished
python workflow/scripts/version.py --study results/digits/study.json --check v-tiny-1
"""

import argparse
from pathlib import Path

from targetwise import cells, errors, files
from targetwise.cells.agreement import Agreement
from targetwise.jobs.kept import release
from targetwise.versioning import dvc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--output", type=Path, help="receives what was recorded, and why the rest was not")
    task.add_argument("--finished", action="store_true", help="record the cells that are whole, and no others")
    task.add_argument("--check", metavar="CELL", help="fail if its files are of another configuration")
    arguments = parser.parse_args()
    study = files.read_json(arguments.study)
    if arguments.check:
        cell = cells.find(study, arguments.check)
        Agreement(study).require(cell)
        release(cell.folder)
    else:
        record = dvc.commit(study, finished_only=arguments.finished)
        print("\n".join(dvc.summary(record)))
        if arguments.output:
            files.write_json(arguments.output, record)


if __name__ == "__main__":
    errors.run(main)
