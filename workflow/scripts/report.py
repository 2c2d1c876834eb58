"""Write the page that answers a study's question.

    python workflow/scripts/report.py --study results/digits/study.json --output results/digits/report.html

A grid that is partly done gives a page that names what is missing; it counts as a look at the values. The page of all
studies, results/index.html, then has the new answer too.
"""

import argparse
import sys
from pathlib import Path

from targetwise import cells, errors, files
from targetwise.jobs.kept import release
from targetwise.report import index, looks, page
from targetwise.report.table import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    parser.add_argument("--output", required=True, type=Path, help="the page; its links are relative to its folder")
    parser.add_argument(
        "--complete", action="store_true", help="every job before this one is done; none needs a copy"
    )
    arguments = parser.parse_args()
    study = files.read_json(arguments.study)
    if not arguments.complete:
        looks.record(arguments.study.parent, table(study), study)
    files.write_text(arguments.output, page.render(study, arguments.output.parent))
    if arguments.complete:
        for folder, job in cells.shared_jobs(study):
            release(folder, job)
    try:
        index.write(look=False)
    except OSError as error:  # the study is whole without it
        print(f"note: {index.PAGE} is not up to date: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    errors.run(main)
