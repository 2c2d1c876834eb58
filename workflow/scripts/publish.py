"""Publish what a training procedure of your own made, as the result of a cell (docs/extending.md).

    python workflow/scripts/publish.py --specification results/digits/v/tiny/seed0/cell.json \
        --model my.safetensors --curve my.jsonl

Everything is checked before anything is written. Run it where you trained: it records the machine and its versions.
"""

import argparse
from pathlib import Path

from targetwise import errors
from targetwise.training.publishing import publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json; the result goes beside it")
    parser.add_argument("--model", required=True, type=Path, help="the weights to sample from, as safetensors")
    parser.add_argument("--curve", required=True, type=Path, help="JSON lines with step, loss and time")
    parser.add_argument("--status", choices=("finished", "diverged"), default="finished")
    parser.add_argument("--reason", help="why it diverged")
    parser.add_argument(
        "--seconds", type=float, help="what it took; by default from the curve's first line to its last"
    )
    publish(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.run(main)
