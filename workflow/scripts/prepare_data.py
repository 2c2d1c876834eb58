"""Make a data set: python workflow/scripts/prepare_data.py --dataset digits --definition '{"kind": "digits"}'."""

import argparse
import json
from pathlib import Path

from targetwise import errors
from targetwise.data import store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="its name in the configuration")
    parser.add_argument("--definition", required=True, type=json.loads, help="its definition, as JSON")
    arguments = parser.parse_args()
    store.prepare(arguments.dataset, arguments.definition, Path("data") / arguments.dataset)


if __name__ == "__main__":
    errors.run(main)
