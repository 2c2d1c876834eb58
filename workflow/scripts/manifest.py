"""Write down everything that a finished cell was made from and with.

    python workflow/scripts/manifest.py --specification results/digits/v/tiny/seed0/cell.json

It gathers what the stages recorded; manifest.json goes beside the specification. With it the cell is whole, so nothing
of it needs to be kept under second names any longer.
"""

import argparse
from pathlib import Path

from targetwise import errors
from targetwise.jobs.kept import release
from targetwise.records import manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    folder = parser.parse_args().specification.parent
    manifest.write(folder)
    release(folder)


if __name__ == "__main__":
    errors.run(main)
