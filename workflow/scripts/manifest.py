"""Write down everything that a finished cell was made from and with.

    python workflow/scripts/manifest.py --specification results/digits/v/tiny/seed0/cell.json

It gathers what the stages recorded; manifest.json goes beside the specification.
"""

import argparse
from pathlib import Path

from targetwise import errors
from targetwise.records import manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    manifest.write(parser.parse_args().specification.parent)


if __name__ == "__main__":
    errors.run(main)
