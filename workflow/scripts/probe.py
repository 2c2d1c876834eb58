"""Measure a trained network itself, by the probes of its study.

    python workflow/scripts/probe.py --specification results/digits/v/tiny/seed0/cell.json \
        --options results/digits/probes.json --output results/digits/v/tiny/seed0/probe.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.compute.device import require_gpu
from targetwise.probing.stage import probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--options", required=True, type=Path, help="probes.json")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    specification, options = files.read_json(arguments.specification), files.read_json(arguments.options)
    probe(specification, options, arguments.specification.parent, arguments.output)


if __name__ == "__main__":
    errors.run(main)
