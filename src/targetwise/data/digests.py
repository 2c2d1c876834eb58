"""What the data sets we know consist of: SHA-256 of their values in C order, and what is measured on them."""

from collections.abc import Mapping
from typing import Any

from targetwise.errors import UserError

#: Images (N, 8, 8, 1) uint8 and labels (N,) int64 little-endian.
DIGITS = {
    "train": "42845a0898d3457485f183d689d06a74c786b4147c0d865f5e497ad7a7cf6cce",
    "test": "5c4618af8e2397fe49dbc90dcde9d6a352448afc9fdfffa031d0ee31c01d0b41",
    "train_labels": "4c5f522a3cd3ed94754f49266cf347c71f3c10b01960f3236396699c66e8db5c",
    "test_labels": "1fc4c6fd574ebdf5dc9ce8056b9bb7e2a0710290f1259daef2beac54518ce4c0",
}

#: Images (N, 32, 32, 3) uint8 and labels (N,) int64 little-endian, in the canonical order.
CIFAR10 = {
    "train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "train_labels": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
    "test_labels": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
}

#: Images (N, 1, 1, D) uint8 of spirals of 4,096 points to train on and 2,048 held out, by D.
SPIRALS = {
    2: {
        "train": "a450b046e7621eca930c6dc3c2a5f1bb54621049b090c98973f243445011d6fb",
        "test": "a72059378b5d1bbd98918e42638770f8b3eb1ef315e923c6b9648e13fb7ff4a5",
    },
    8: {
        "train": "cb14651ccc6de20a06eff98e2288409d0315b537c2ed4c7df8370d4830da5600",
        "test": "cb251bfd82b10866dd8d9f08506f03f18ab30b713bbdfccb09fc1309cab934cf",
    },
    16: {
        "train": "04b3492dd372a4a47091396e6cfac98402cdabaf0f54ba5e823cce1401854987",
        "test": "361edd22b020ecd73d64d3c0231cc09d4b1a76656b62f18411a603ba1824cb80",
    },
    512: {
        "train": "57b5bd13cc1e8bcf06391f9961117bc0804f1b39ae7a88b074974225734420a8",
        "test": "c1407e070aae051f0eac461f815427bb0dec17becfbf1b4f2d01e5e41de44ec4",
    },
}

KNOWN: dict[str, Mapping[str, str]] = {"digits": DIGITS, "cifar10": CIFAR10}

#: How many classes a kind of data set has, labelled from 0; a kind that is not here has no labels.
CLASSES = {"digits": 10, "cifar10": 10}

#: Shapes (N, H, W, C) of the data sets whose images are always the same.
SHAPES = {
    "cifar10": {"train": [50000, 32, 32, 3], "test": [10000, 32, 32, 3]},
    "digits": {"train": [1285, 8, 8, 1], "test": [512, 8, 8, 1]},
}

#: Standard deviation of all pixels of the training images in [-1, 1].
PIXEL_DEVIATIONS = {"digits": 0.7526344246789909, "cifar10": 0.5031378501264409}


def pixel_deviation(name: str, definition: Mapping[str, Any]) -> float:
    """Return the standard deviation of the pixels of a data set's training images in [-1, 1], EDM's σ_data.

    Args:
        name: of the data set.
        definition: an entry of the configuration's ``datasets``.

    Raises:
        UserError: if it is one's own: a study is planned before its data set is there.
    """
    if definition["kind"] in PIXEL_DEVIATIONS:
        return PIXEL_DEVIATIONS[definition["kind"]]
    raise UserError(
        f"configuration: sigma_data is measured for {' and '.join(PIXEL_DEVIATIONS)} only; for data set {name} write "
        f"the number that data/{name}/manifest.json has as pixel_deviation once it is prepared"
    )


def declared(definition: Mapping[str, Any], split: str) -> str | None:
    """Return the digest that the images of a split, or its labels, must have; None where only the user knows them.

    Args:
        definition: an entry of the configuration's ``datasets``.
        split: ``train``, ``test``, ``train_labels`` or ``test_labels``.
    """
    known = KNOWN.get(definition["kind"], {})
    if (definition["kind"], definition.get("images"), definition.get("held_out")) == ("spiral", 4096, 2048):
        known = SPIRALS.get(definition["dimensions"], {})
    return known.get(split)


def shapes(definition: Mapping[str, Any]) -> Mapping[str, list[int]] | None:
    """Return the shapes (N, H, W, C) of ``train`` and ``test``; None where only preparing them tells.

    Args:
        definition: an entry of the configuration's ``datasets``.
    """
    if definition["kind"] == "spiral":
        image = [1, 1, definition["dimensions"]]
        return {"train": [definition["images"], *image], "test": [definition["held_out"], *image]}
    return SHAPES.get(definition["kind"])
