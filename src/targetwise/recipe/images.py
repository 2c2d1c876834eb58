"""The data set that a configuration names: where it comes from, and what can be asked of its images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.data.digests import shapes
from targetwise.errors import UserError, nearest
from targetwise.recipe import variants

#: Numbers per image, at most, whose pixels are taken as features: their covariance is of so many rows and columns.
PIXELS = 4096

#: Numbers of a training split, at most, of which the exact denoiser is sampled: some minutes of one core.
EXACT = 2**22


def source_folders(dataset: Mapping[str, Any]) -> list[str]:
    """Return the folders of one's own images, so that adding or removing a file makes the data set again.

    Args:
        dataset: an entry of ``datasets``.
    """
    if dataset["kind"] != "images":
        return []
    return sorted(str(folder) for folder in Path(dataset["folder"]).expanduser().glob("**/"))


def has_exact(config: Mapping[str, Any]) -> bool:
    """Return whether the bounds have a third: samples by the exact denoiser, where the training split is small.

    It is small if it has at most :data:`EXACT` numbers, and if that is known before it is prepared.
    """
    found = shapes(config["datasets"][config["data"]["dataset"]])
    return bool(config["bounds"]) and found is not None and math.prod(found["train"]) <= EXACT


def check(config: Mapping[str, Any]) -> None:
    """Make sure that the data set is there, and that its images can be mirrored and have features, where they are to.

    Raises:
        UserError: at the first thing that is wrong.
    """
    dataset = config["data"]["dataset"]
    if dataset not in config["datasets"]:
        raise UserError(f"configuration: data.dataset is '{dataset}'; {nearest(dataset, config['datasets'])}")
    _check_digests(config)
    _check_extractor(config["metric"]["extractor"], dataset, config["datasets"][dataset])
    if config["datasets"][dataset]["kind"] == "spiral":
        for name in config["grid"]["parameterizations"]:
            if variants.settings(config, name)["data"]["horizontal_flip"]:
                raise UserError(
                    f"configuration: data.horizontal_flip is true (parameterization {name}), but the images of "
                    f"{dataset}, of kind spiral, have no left and right; set it to false"
                )


def _check_digests(config: Mapping[str, Any]) -> None:
    """Refuse a download without a digest: it would have to be trusted by its address."""
    for section in ("datasets", "weights"):
        for name, definition in config[section].items():
            for index, source in enumerate(definition.get("sources", [])):
                if source["kind"] == "url" and not {"md5", "sha256"} & set(source):
                    raise UserError(
                        f"configuration: {section}.{name}.sources.{index} has no digest; a url needs sha256 (or md5)"
                    )


def _check_extractor(extractor: str, dataset: str, definition: Mapping[str, Any]) -> None:
    kind = definition["kind"]
    right = {"digits": "digits", "spiral": "pixels"}.get(kind, "inception")
    if extractor not in (right, "pixels"):
        raise UserError(
            f"configuration: metric.extractor is '{extractor}', but data.dataset is '{dataset}' of kind "
            f"{kind}; take '{right}'"
        )
    channels = definition.get("channels", 3)
    if extractor == "inception" and channels != 3:
        raise UserError(
            f"configuration: metric.extractor is 'inception', which takes three channels, but datasets.{dataset}."
            f"channels is {channels}"
        )
    if extractor == "pixels":
        known = shapes(definition)
        numbers = math.prod(known["train"][1:]) if known else channels * definition["size"] ** 2
        if numbers > PIXELS:
            raise UserError(
                f"configuration: metric.extractor is 'pixels', which takes up to {PIXELS:,} numbers per image, but "
                f"those of {dataset} have {numbers:,}; take '{right}'"
            )
