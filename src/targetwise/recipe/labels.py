"""Labels and guidance: what a class-conditional variant is told, and what it takes to ask for that.

A variant with ``training.label_dropout`` is class-conditional: its network sees the label of each image, and in
training, with that probability, one that stands for no label (Ho & Salimans 2022, arXiv:2207.12598, algorithm 1).
"""

import re
from collections.abc import Mapping
from typing import Any

from targetwise.data.digests import CLASSES, declared
from targetwise.errors import UserError
from targetwise.recipe import kinds, variants

#: How a network's file shows that it takes labels.
TAKES_LABELS = re.compile(rb"^def build\([^)]*\bclasses\b", re.MULTILINE)


def classes(config: Mapping[str, Any], name: str) -> int | None:
    """Return how many classes a variant's network is told of; None where it sees no labels."""
    if "label_dropout" not in variants.settings(config, name)["training"]:
        return None
    return CLASSES[config["datasets"][config["data"]["dataset"]]["kind"]]


def specified(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what ``cell.json`` says of a variant's labels: nothing where its network sees none."""
    dataset = config["datasets"][config["data"]["dataset"]]
    found = classes(config, name)
    return {"classes": found, "labels_sha256": declared(dataset, "train_labels")} if found else {}


def evaluations(sampling: Mapping[str, Any]) -> int:
    """Return how often a guided step asks the network: once where one of the two estimates has no part in it."""
    return 1 if sampling.get("guidance", 1) in (0, 1) else 2


def check(config: Mapping[str, Any], name: str) -> None:
    """Make sure that a variant of the grid can have the labels, and its sampling the guidance, that it asks for.

    Raises:
        UserError: naming what lacks.
    """
    dropout = variants.settings(config, name)["training"].get("label_dropout")
    if dropout is not None:
        _check_labels(config, name)
    for sampling, options in variants.samplings(config, name).items():
        asked = next((field for field in options if field.startswith("guidance")), None)
        if asked is None:
            continue
        where = f"configuration: sampling.{asked} (parameterization {name}, sampling {sampling})"
        if dropout is None:
            raise UserError(f"{where} guides by labels, which its network does not see; set training.label_dropout")
        if "guidance" not in options:
            raise UserError(f"{where} shapes a guidance that is not there; set sampling.guidance")
        if dropout == 0 and options["guidance"] != 1:
            raise UserError(
                f"{where} needs an estimate without label, which is learned from dropped labels; "
                "training.label_dropout is 0, so only guidance 1 is possible"
            )
        low, high = options.get("guidance_interval", (0, 1))
        if low >= high:
            raise UserError(f"{where}: guidance_interval is [{low}, {high}]; it must rise")


def _check_labels(config: Mapping[str, Any], name: str) -> None:
    dataset = config["data"]["dataset"]
    kind = config["datasets"][dataset]["kind"]
    where = f"configuration: training.label_dropout (parameterization {name})"
    if kind not in CLASSES:
        raise UserError(
            f"{where} needs labels, but datasets.{dataset} of kind {kind} has none; kinds with labels: "
            f"{', '.join(sorted(CLASSES))}"
        )
    for scale in config["grid"]["scales"]:
        network = variants.network_name(variants.network(config, name, scale))
        file = kinds.file_of("networks", network)
        if not TAKES_LABELS.search(file.read_bytes()):
            able = f"conditional_{network}"
            hint = f"; take {able}" if kinds.file_of("networks", able).is_file() else ""
            raise UserError(
                f"{where}: build of {file} (scale {scale}) takes no classes, so this network sees no labels{hint}"
            )
