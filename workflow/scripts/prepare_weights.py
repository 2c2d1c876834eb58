"""Bring an extractor's weights here.

    python workflow/scripts/prepare_weights.py --sources '[{"kind": "file", "path": "inception-2015-12-05.pt"}]' \
        --output data/weights/inception.pt
"""

import argparse
import json
from pathlib import Path

from targetwise import errors
from targetwise.metric import inception


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", required=True, type=json.loads, help="tried in this order, as JSON")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    inception.prepare(arguments.sources, arguments.output)


if __name__ == "__main__":
    errors.run(main)
