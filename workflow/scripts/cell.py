"""One cell from data to number in one process, without Snakemake.

    python workflow/scripts/cell.py reference@epsilon-small-42

Needs torch, diffusers, numpy, scipy, safetensors and clean-fid only. If cut off, it goes on where it was.
"""

import argparse

from targetwise import chain, errors
from targetwise.training.stopping import Stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", metavar="STUDY@CELL", help="config/STUDY.yaml over config.yaml, and one of its cells")
    parser.add_argument(
        "--time-budget", type=float, metavar="SECONDS", help="save and stop in time, with exit code 75"
    )
    parser.add_argument("--margin", type=float, default=30.0, metavar="SECONDS", help="kept free for saving")
    arguments = parser.parse_args()
    stop = Stop(arguments.time_budget, arguments.margin).listen()
    study, cell = chain.load(arguments.cell)
    for row in chain.run(study, cell, stop):
        print(f"draw {row['draw']}: {row['metric']} {row['value']}, {row['n']} samples, {'; '.join(row['marks'])}")
    print(cell.folder)


if __name__ == "__main__":
    errors.run(main)
