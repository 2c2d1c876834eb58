"""Measure held-out real images as if they were samples.

    python workflow/scripts/floor.py --metric results/digits/metric.json --images data/digits/dataset.npz \
        --reference data/digits/reference/digits-fast-train.npz --output results/digits/floor.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.cells import row_key
from targetwise.compute.device import require_gpu
from targetwise.data import store
from targetwise.metric import bounds, fid
from targetwise.metric.reference import Selection, load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", required=True, type=Path, help="metric.json")
    parser.add_argument("--images", required=True, type=Path, help="dataset.npz")
    parser.add_argument("--reference", required=True, type=Path, help="the reference's .npz")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    held_out = store.load(arguments.images.parent, "test")
    options = files.read_json(arguments.metric)
    reference = load_reference(arguments.reference, Selection.asked(options))
    fid.write_row_once(
        arguments.output.parent,
        "floor",
        row_key(options, reference.facts, "floor", held_out.digest),
        arguments.output,
        lambda parts: bounds.floor(held_out, options["floor_images"], reference, options["names"], parts),
    )


if __name__ == "__main__":
    errors.run(main)
