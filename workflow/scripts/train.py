"""Train one cell; its results are published in the folder of its specification.

    python workflow/scripts/train.py --specification results/digits/v/tiny/seed0/cell.json

Kill it at any time: the same command goes on from the last saved state and ends with the same weights. With several
GPUs, write `torchrun --nproc-per-node=4` for `python`: only the speed changes.
"""

import argparse
from pathlib import Path

from targetwise import errors, files
from targetwise.cluster import slurm
from targetwise.compute.device import require_gpu
from targetwise.compute.distributed import joined
from targetwise.data import store
from targetwise.training.loop import train
from targetwise.training.stopping import Stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specification", required=True, type=Path, help="cell.json")
    parser.add_argument("--save-every-seconds", type=float, default=300.0, help="how much work a kill may cost")
    parser.add_argument(
        "--time-budget", type=float, metavar="SECONDS", help="of the job; save and stop in time, with code 75"
    )
    parser.add_argument("--margin", type=float, default=120.0, metavar="SECONDS", help="kept free for saving")
    parser.add_argument("--wait", action="store_true", help="wait while another trainer has the cell")
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    arguments = parser.parse_args()
    if arguments.gpu:
        require_gpu()
    used = slurm.seconds_used() if arguments.time_budget else 0.0
    stop = Stop(arguments.time_budget, arguments.margin, used).listen()
    specification = files.read_json(arguments.specification)
    images = store.training_images(specification)
    folder = arguments.specification.parent
    with joined() as world:
        train(
            specification,
            images,
            folder,
            save_every_seconds=arguments.save_every_seconds,
            stop=stop,
            world=world,
            wait=arguments.wait,
        )


if __name__ == "__main__":
    errors.run(main)
