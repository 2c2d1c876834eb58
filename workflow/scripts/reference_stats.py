"""Extract the reference's features.

    python workflow/scripts/reference_stats.py --dataset digits --extractor digits --split train \
        --output data/digits/reference/digits-train.npz
"""

import argparse
from pathlib import Path

from targetwise import data, errors, extractors, fid
from targetwise.device import choose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="its name in the configuration")
    parser.add_argument("--extractor", required=True)
    parser.add_argument("--split", required=True, choices=data.SPLITS)
    parser.add_argument("--output", required=True, type=Path, help="the .npz to write; facts go beside it as .json")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    device = choose(arguments.threads)
    images = data.load(Path("data") / arguments.dataset, arguments.split)
    extractor = extractors.load(arguments.extractor, device)
    features = extractor.features(images.images, device, "reference features")
    fid.write_reference(images, arguments.split, arguments.dataset, extractor, features, arguments.output)


if __name__ == "__main__":
    errors.run(main)
