"""Prove that a variant's functions fit together.

    python workflow/scripts/check_parameterization.py --specification results/digits/v/variant.json \
        --output results/digits/v/check.json
"""

import argparse
from pathlib import Path

from targetwise import check, errors, files, parameterization


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="variant.json")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    variant = files.read_json(arguments.specification)
    target = parameterization.load(variant["target"])
    loss_space = parameterization.load(variant["loss_space"])
    precisions = sorted(set(variant["precision"].values()))
    files.write_json(arguments.output, check.check(target, loss_space, variant, precisions))


if __name__ == "__main__":
    errors.run(main)
