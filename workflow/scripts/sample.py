"""Draw images from a trained cell.

    python workflow/scripts/sample.py --specification results/digits/v/tiny/seed0/cell.json \
        --options results/digits/v/sampling-ddim-50.json --draw 0 --output results/digits/v/tiny/seed0/samples/ddim-50/draw0.npz

With several GPUs, write `torchrun --nproc-per-node=4` for `python`.
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.compute.device import require_gpu
from targetwise.compute.distributed import joined
from targetwise.data import store
from targetwise.sampling.denoiser import BATCH
from targetwise.sampling.stage import sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--options", required=True, type=Path, help="sampling-<sampler>.json")
    parser.add_argument("--draw", required=True, type=int)
    parser.add_argument("--batch", type=int, default=BATCH, help="images at a time; changes speed and memory only")
    parser.add_argument("--output", required=True, type=Path, help="the .npz to write; facts go beside it as .json")
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    specification, options = files.read_json(arguments.specification), files.read_json(arguments.options)
    images = store.training_images(specification)
    with joined() as world:
        folder = arguments.specification.parent
        sample(specification, options, images, folder, arguments.draw, arguments.output, world, batch=arguments.batch)


if __name__ == "__main__":
    errors.run(main)
