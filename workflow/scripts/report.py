"""Write the page that answers a study's question.

    python workflow/scripts/report.py --study results/digits/study.json --output results/digits/report.html

A grid that is partly done gives a page that names what is missing.
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.report import page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, type=Path, help="study.json")
    parser.add_argument("--output", required=True, type=Path, help="the page; its links are relative to its folder")
    arguments = parser.parse_args()
    files.write_text(arguments.output, page.render(files.read_json(arguments.study), arguments.output.parent))


if __name__ == "__main__":
    errors.run(main)
