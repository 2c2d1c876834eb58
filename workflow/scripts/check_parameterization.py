"""Check that a variant's functions fit together.

    python workflow/scripts/check_parameterization.py --specification results/digits/v/variant.json \
        --output results/digits/v/check.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.check.process import check_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="variant.json")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    files.write_json(arguments.output, check_files(files.read_json(arguments.specification)))


if __name__ == "__main__":
    errors.run(main)
