"""Measure one draw of a cell.

    python workflow/scripts/fid.py --specification results/digits/v/tiny/seed0/cell.json \
        --metric results/digits/metric.json --samples results/digits/v/tiny/seed0/samples/ddim-50/draw0.npz \
        --reference data/digits/reference/digits-fast-train.npz --output results/digits/v/tiny/seed0/fid/ddim-50/draw0.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.compute.device import require_gpu
from targetwise.metric import fid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--metric", required=True, type=Path, help="metric.json")
    parser.add_argument("--samples", required=True, type=Path, help="draw<d>.npz")
    parser.add_argument("--reference", required=True, type=Path, help="the reference's .npz")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    specification, options = files.read_json(arguments.specification), files.read_json(arguments.metric)
    fid.write_draw(specification, options, arguments.samples, arguments.reference, arguments.output)


if __name__ == "__main__":
    errors.run(main)
