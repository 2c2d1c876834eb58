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

#: ``train`` and ``test`` of the digits in other forms, by (size, brightness, tint); their labels are those above.
DIGITS_FORMS: dict[tuple[int, bool, bool], tuple[str, str]] = {
    (8, False, True): (
        "9313f87ea9e1054f7c98f18c8e57ffc1f0359b8b718e571a9790694ca0023d77",
        "8879e3085028417bf87b79ca03ee1a7888666240b1a3969cf9016aca177e30bf",
    ),
    (8, True, False): (
        "be1ab84c27d1717af333df19c6cfb8bf654d8a63384362771cbc57820dc0c7bb",
        "5b1e9e32c61180966940d9a426618f392e1e12c225cabff507159e77da4928b7",
    ),
    (8, True, True): (
        "2543cf09740bcbba12a5f9b0dd2f53f07878d30b5052c6fc65f9347e452df162",
        "0ea9eba4d68201c387198faef5feb38e318867bda9fe53c70dcb217c9a25d343",
    ),
    (16, False, False): (
        "547cd4009c9b00b1696431134ce8b497a2f155c41d7dd2e0581b0d93b78073d9",
        "069ac574efd766515a9e6dde186edce8785c701521477c23bc8a858030dc9e29",
    ),
    (16, False, True): (
        "7081903cb84a14f67b60a9a411d574762b5bb075bc774aa024554b70a939778e",
        "26a8d54dd4d6db9cc010ebb71e3e3cc37d5e9f259f7a02c231b605f56d41b641",
    ),
    (16, True, False): (
        "3676a8643d2c20e38a641316d38f7784152673eaae276ec3a7dddf52a20f81c4",
        "904dad090b7a20bdf88da62857256c7739ddf953ae0bc6d3253bc7381fbccfe0",
    ),
    (16, True, True): (
        "cdebbddac86dee1fc9dfd101fe082c8f3666d22856f573cd74d9a53b1162b102",
        "98438ee2face4c15c3d2d084fc17eec2cb263ff47ebf1115f20b60bd239eba1b",
    ),
    (32, False, False): (
        "f523900efec144c902e0a01791ba28718193750c62ce324e6291c75ccd34c0fe",
        "a0585e446f53c05153e0cc6aefc4bd3078834756854ce760779a626c74a0fbd3",
    ),
    (32, False, True): (
        "53c230e180f7d216b100e666fc3684963cdfbdd59fc92572ac54337746ca04e1",
        "b5d88a9ac47eb8241b5f4175141529d59fe49429db19d776eb076816fa5b2a05",
    ),
    (32, True, False): (
        "f3cf24619d85c389c67934b040ebaff9ca8a14ee9c6364bdff869e7aaf86a78e",
        "7d85833fe7a5f1831874b205b19bb3386c71702a9ce505110d6283ca501fc59b",
    ),
    (32, True, True): (
        "f348ad524ba161327457b820febf2a008d0be7cc58a44158d7c116ed6ffe579e",
        "8239463c7a40f9dc223f9619770500f35a84ce8f4074042e307a285894d9e746",
    ),
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

#: Shapes (N, H, W, C) of the data sets whose images are always the same, and how many the digits are in any form.
SHAPES = {"cifar10": {"train": [50000, 32, 32, 3], "test": [10000, 32, 32, 3]}}
DIGITS_IMAGES = {"train": 1285, "test": 512}

#: Standard deviation of all pixels of the training images in [-1, 1].
PIXEL_DEVIATIONS = {"digits": 0.7526344246789909, "cifar10": 0.5031378501264409}

#: The same of the digits by (brightness, tint); an image of every size has the same pixels, each more often.
DIGITS_DEVIATIONS = {
    (False, False): PIXEL_DEVIATIONS["digits"],
    (False, True): 0.5158379298037333,
    (True, False): 0.4735859338234094,
    (True, True): 0.362651268887391,
}


def pixel_deviation(name: str, definition: Mapping[str, Any]) -> float:
    """Return the standard deviation of the pixels of a data set's training images in [-1, 1], EDM's σ_data.

    Args:
        name: of the data set.
        definition: an entry of the configuration's ``datasets``.

    Raises:
        UserError: if it is one's own: a study is planned before its data set is there.
    """
    if definition["kind"] == "digits":
        return DIGITS_DEVIATIONS[_form(definition)[1:]]
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
    is_digits = definition["kind"] == "digits" and not split.endswith("_labels")
    if is_digits and _form(definition) in DIGITS_FORMS:
        return DIGITS_FORMS[_form(definition)][("train", "test").index(split)]
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
    if definition["kind"] == "digits":
        return {split: [count, *digits_shape(definition)] for split, count in DIGITS_IMAGES.items()}
    return SHAPES.get(definition["kind"])


def digits_shape(definition: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of a data set of the kind ``digits``."""
    size, _, tint = _form(definition)
    return size, size, 3 if tint else 1


def _form(definition: Mapping[str, Any]) -> tuple[int, bool, bool]:
    return definition.get("size", 8), definition.get("brightness", False), definition.get("tint", False)
