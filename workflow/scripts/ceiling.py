"""Measure the samples of a cell's untrained network.

    python workflow/scripts/ceiling.py --specification results/digits/v/tiny/seed0/cell.json \
        --sampling results/digits/v/sampling-ddim-50.json --metric results/digits/metric.json \
        --reference data/digits/reference/digits-fast-train.npz \
        --output results/digits/v/tiny/ceiling.json
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.cells import row_key, sampling_files, source_digests, source_files
from targetwise.compute.device import require_gpu
from targetwise.data import store
from targetwise.diffusion.randomness import golden_draw
from targetwise.metric import bounds, fid
from targetwise.metric.reference import Selection, load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--sampling", required=True, type=Path, help="sampling-<sampler>.json")
    parser.add_argument("--metric", required=True, type=Path, help="metric.json")
    parser.add_argument("--reference", required=True, type=Path, help="the reference's .npz")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    paths = (arguments.specification, arguments.sampling, arguments.metric)
    specification, sampling, options = (files.read_json(path) for path in paths)
    images = store.training_images(specification)
    reference = load_reference(arguments.reference, Selection.asked(options))
    variant, network = specification["variant"], specification["network"]
    sampler = arguments.sampling.stem.removeprefix("sampling-")
    sources = source_digests([*source_files(variant, network), *sampling_files(variant, network, sampling)])
    fid.write_row_once(
        arguments.output.parent,
        "ceiling",
        row_key(options, reference.facts, "ceiling", specification, sampler, sampling, sources, golden_draw()),
        arguments.output,
        lambda parts: bounds.sampled(
            "ceiling", specification, sampling, images, reference, options["names"], parts, sampler=sampler
        ),
    )


if __name__ == "__main__":
    errors.run(main)
