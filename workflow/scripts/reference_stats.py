"""Make a reference: the features of real images, their mean and covariance. Killed, it goes on where it stopped.

    python workflow/scripts/reference_stats.py --dataset digits --extractor digits --implementation clean-fid \
        --split train --output data/digits/reference/digits-fast-train.npz

On three machines that see the same folder, for one large reference: first --shard 0/3, --shard 1/3 and --shard 2/3,
and when all have ended the same command without --shard.
"""

import argparse
import re
from pathlib import Path

from targetwise import errors
from targetwise.compute.device import require_gpu
from targetwise.data import store
from targetwise.metric import extractors
from targetwise.metric.reference import Selection, make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="its name in the configuration")
    parser.add_argument("--extractor", required=True)
    parser.add_argument("--implementation", required=True, choices=extractors.IMPLEMENTATIONS)
    parser.add_argument("--split", required=True, choices=store.SPLITS)
    parser.add_argument("--first", type=int, help="only this many of the split's first images")
    parser.add_argument("--output", required=True, type=Path, help="the .npz to write; facts go beside it as .json")
    parser.add_argument("--processes", type=int, default=1, help="on this machine's CPU, of one thread each")
    parser.add_argument("--shard", type=_shard, metavar="K/N", help="extract a part and publish nothing")
    parser.add_argument("--gpu", action="store_true", help="refuse to compute on a CPU")
    a = parser.parse_args()
    if a.gpu:
        require_gpu()
    selection = Selection(a.dataset, a.split, a.first, a.extractor, a.implementation)
    make(selection, a.output, processes=a.processes, shard=a.shard)


def _shard(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d+/\d+", text) or int(text.split("/")[0]) >= int(text.split("/")[1]):
        raise argparse.ArgumentTypeError(f"'{text}' is not K/N with K from 0 to N−1")
    k, n = text.split("/")
    return int(k), int(n)


if __name__ == "__main__":
    errors.run(main)
