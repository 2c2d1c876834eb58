"""Measure held-out real images as if they were samples.

    python workflow/scripts/floor.py --sampling results/digits/sampling.json --images data/digits/dataset.npz \
        --reference data/digits/reference/digits-clean-fid-train.npz --output results/digits/floor.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.data import store
from targetwise.metric import bounds, rows
from targetwise.metric.reference import load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampling", required=True, type=Path, help="sampling.json")
    parser.add_argument("--images", required=True, type=Path, help="dataset.npz")
    parser.add_argument("--reference", required=True, type=Path, help="the reference's .npz")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    held_out = store.load(arguments.images.parent, "test")
    sampling = files.read_json(arguments.sampling)
    reference = load_reference(arguments.reference)
    rows.write_row_once(
        arguments.output.parent,
        "floor",
        [held_out.digest, sampling, reference.facts],
        arguments.output,
        lambda parts: bounds.floor(held_out, sampling["images"], reference, parts),
    )


if __name__ == "__main__":
    errors.run(main)
