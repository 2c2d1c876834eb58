"""Measure the samples of a cell's untrained network.

    python workflow/scripts/ceiling.py --specification results/digits/v/tiny/seed0/cell.json \
        --sampling results/digits/sampling.json --reference data/digits/reference/digits-clean-fid-train.npz \
        --output results/digits/v/tiny/ceiling.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.config import source_files
from targetwise.data import store
from targetwise.metric import bounds, rows
from targetwise.metric.reference import load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--sampling", required=True, type=Path, help="sampling.json")
    parser.add_argument("--reference", required=True, type=Path, help="the reference's .npz")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    specification, options = files.read_json(arguments.specification), files.read_json(arguments.sampling)
    images = store.training_images(specification)
    reference = load_reference(arguments.reference)
    sources = [files.sha256_of_file(path) for path in source_files(specification["variant"])]
    rows.write_row_once(
        arguments.output.parent,
        "ceiling",
        [specification, options, sources, reference.facts],
        arguments.output,
        lambda parts: bounds.ceiling(specification, options, images, reference, parts),
    )


if __name__ == "__main__":
    errors.run(main)
