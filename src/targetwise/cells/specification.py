"""The specification files: what decides each result of a study, and nothing else, one for each stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.cells.grid import RESULTS, grid, sampling_file
from targetwise.data.digests import declared
from targetwise.errors import UserError
from targetwise.files import read_json, write_json_if_changed
from targetwise.recipe import labels, variants
from targetwise.recipe.config import variant

#: One number per stage, raised by hand when its numerics change, so that what is older is made again, and nothing
#: else. tests/test_protocol.py holds short runs that must not move without them. DVC reads this line as it stands.
PROTOCOL = {"training": 2, "sampling": 2, "metric": 1, "reference": 1}

#: The same of probes, which DVC does not keep.
PROBING = 1

#: The same of the verdicts on claims: raised, they are given again.
JUDGING = 2


def specifications(config: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Return every specification file of the study: what decides a result, and nothing else.

    A stage is out of date exactly when its own file changed, so there is one per stage: ``cell.json`` (training),
    ``variant.json`` (the check before it), ``sampling-<sampler>.json`` (without what decides no image: how many
    draws there are, and how many images are made at a time), ``metric.json`` (and with how many images the floor is
    measured), ``probes.json`` if there are any, and ``study.json`` with the whole resolved configuration (table and
    report).
    """
    study = RESULTS / config["study"]
    files: dict[Path, dict[str, Any]] = {
        study / "study.json": dict(config),
        study / "metric.json": {
            "protocol": PROTOCOL["metric"],
            "dataset": config["data"]["dataset"],
            "floor_images": config["sampling"]["images"],
            **config["metric"],
            "reference": {"protocol": PROTOCOL["reference"], **config["metric"]["reference"]},
        },
    }
    if config["probes"]:
        files[study / "probes.json"] = {"protocol": PROBING, "names": config["probes"]}
    dataset = config["datasets"][config["data"]["dataset"]]
    resolved = {name: variant(config, name) for name in config["grid"]["parameterizations"]}
    settings = {name: variants.settings(config, name) for name in resolved}
    for name, each in resolved.items():
        files[study / name / "variant.json"] = {
            "protocol": PROTOCOL["training"],
            **each,
            "precision": settings[name]["training"]["precision"],
        }
        for sampler, options in variants.samplings(config, name).items():
            decisive = variants.decisive("sampling", options)
            files[sampling_file(study, name, sampler)] = {"protocol": PROTOCOL["sampling"], **decisive}
    told = {name: labels.specified(config, name) for name in resolved}
    of_all_seeds = {
        (name, scale): {
            "network": variants.network(config, name, scale),
            "training": variants.decisive("training", variants.training(config, name, scale)),
        }
        for name in resolved
        for scale in config["grid"]["scales"]
    }
    for cell in grid(config):
        files[cell.folder / "cell.json"] = {
            "protocol": PROTOCOL["training"],
            "cell": {
                "study": cell.study,
                "parameterization": cell.parameterization,
                "scale": cell.scale,
                "seed": cell.seed,
            },
            "variant": resolved[cell.parameterization],
            "data": {
                **settings[cell.parameterization]["data"],
                "train_sha256": declared(dataset, "train"),
                **told[cell.parameterization],
            },
            **of_all_seeds[cell.parameterization, cell.scale],
        }
    return files


def write_specifications(config: Mapping[str, Any], *, replace: bool = True) -> None:
    """Write each specification whose content changed; the others keep their dates.

    Args:
        config: the whole configuration.
        replace: whether those that exist may change; False while a run that reads them is under way.
    """
    for path, content in specifications(config).items():
        if replace or not path.exists():
            write_json_if_changed(path, content)


def require_specifications(config: Mapping[str, Any]) -> None:
    """Make sure that a job reads the configuration that its run was started with.

    Raises:
        UserError: if a specification on disk differs from what the configuration now gives.
    """
    for path, content in specifications(config).items():
        if read_json(path) != content:
            raise UserError(
                f"the configuration was edited while a run is under way: {path} no longer agrees with it; "
                "undo the edit, or stop the run and start it again"
            )
