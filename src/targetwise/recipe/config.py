"""Read, merge and validate the configuration, and resolve what its names mean.

Snakemake parses the Snakefile in every job, so nothing heavy is imported here.
"""

import shlex
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from targetwise.data.digests import pixel_deviation
from targetwise.errors import UserError, nearest
from targetwise.recipe import claims, comparisons, images, kinds, labels, metrics, probes, quantities, variants
from targetwise.recipe.samplings import check_sampling, check_snapshot, check_snapshots
from targetwise.recipe.schema import check_schema, read_yaml
from targetwise.recipe.variants import merge, network_name

BASE = Path("config.yaml")

Config = dict[str, Any]

#: What both functions find in ``schedule``; a variant's own constants must not hide them.
SCHEDULE_NAMES = frozenset({"alphas_cumprod", "sqrt_alpha", "sqrt_one_minus_alpha"})

#: A variant's folder is beside these, and `snakemake NAME` must not mean a rule; tests hold the list complete.
RESERVED_NAMES = frozenset(
    {"all", "prepare_data", "prepare_weights", "reference_stats", "check_parameterization", "train", "sample"}
    | {"fid", "floor", "ceiling", "exact", "probe", "manifest"}
    | {"aggregate", "claims", "report", "track", "version", "log", "benchmark", "state", "kept"}
)


def load(overlays: Iterable[Path] = (), base: Path = BASE) -> Config:
    """Read ``base``, lay each overlay over it, and validate.

    Args:
        overlays: YAML files; their mappings are merged in deeply, their lists and values replace (as
            ``snakemake --configfile`` does).
        base: the file underneath.

    Raises:
        UserError: with the key, the value and the nearest valid choice.
    """
    overlays = list(overlays)
    require_readable(overlays, base)
    config = read_yaml(base)
    for overlay in overlays:
        config = merge(config, read_yaml(overlay))
    return validate(config)


def validate(config: Mapping[str, Any]) -> Config:
    """Check ``config`` against the closed schema and its names against their definitions.

    Returns:
        A copy in which dotted keys are nested and sweeps are spelled out; validated again, it stays as it is.

    Raises:
        UserError: at the first thing that is wrong.
    """
    checked = variants.nested(deepcopy(dict(config)))
    check_schema(checked)
    if any("each" in definition for definition in checked["parameterizations"].values()):
        checked = variants.swept(checked)
        check_schema(checked)
    checked = claims.joined(checked)
    _check_names(checked)
    quantities.check(checked)
    return checked


def require_readable(overlays: Iterable[Path | str] = (), base: Path = BASE) -> None:
    """Refuse configuration files that Snakemake would refuse with its own message, or silently read in part.

    Of a key that is there twice, it keeps the last. It refuses a ``--configfile`` that is not YAML before it reads
    any of our code; `targetwise check` says on which line.

    Raises:
        UserError: with file and line.
    """
    for path in (base, *overlays):
        if path == base and not base.exists():
            raise UserError(f"{base} does not exist; run this in the project's root")
        read_yaml(Path(path))


def option(overlays: Iterable[Path | str]) -> str:
    """Return how a command that names these files ends, e.g. `` --configfile config/digits.yaml``, or nothing."""
    names = shlex.join(map(str, overlays))
    return f" --configfile {names}" if names else ""


def variant(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return everything that the parameterization ``name`` means, defaults filled in, and what is measured as number.

    Raises:
        UserError: if nothing was measured on the data set.
    """
    found = variants.defined(config, name)
    dataset = config["data"]["dataset"]
    found["parameters"] = {
        key: pixel_deviation(dataset, config["datasets"][dataset]) if isinstance(value, str) else value
        for key, value in found["parameters"].items()
    }
    return found


def parameterization_file(target: str) -> Path:
    """Return the path of the file that holds ``target``'s two functions."""
    return kinds.file_of("parameterizations", target)


def _check_names(config: Config) -> None:
    for axis in ("parameterizations", "scales"):
        for name in config["grid"][axis]:
            if name in RESERVED_NAMES:
                raise UserError(
                    f"configuration: grid.{axis} names '{name}', which is a rule or a folder of the pipeline; "
                    "take another name"
                )
    kinds.require_known("paths", config["diffusion"]["schedule"], "diffusion.schedule")
    _check_parameterizations(config)
    _check_scales(config)
    images.check(config)
    metrics.check(config)
    probes.check(config)
    _check_diffusion(config["diffusion"], config["sampling"], "")
    for name in config["grid"].get("samplings", []):
        if name not in config.get("samplings", {}):
            raise UserError(
                f"configuration: grid.samplings names '{name}'; {nearest(name, config.get('samplings', {}))}"
            )
    # Those of the grid first: of several that are wrong, one that runs is named, and always the same one.
    for name in dict.fromkeys([*config["grid"]["parameterizations"], *config["parameterizations"]]):
        own = variants.settings(config, name)
        if own["data"]["dataset"] != config["data"]["dataset"]:
            raise UserError(
                f"configuration: parameterizations.{name}.data.dataset is '{own['data']['dataset']}'; a study has "
                f"one data set, '{config['data']['dataset']}', because distances to two are not comparable"
            )
        check_snapshots(own["training"], f"parameterizations.{name}: ")
        for sampling, each in variants.samplings(config, name).items():
            named = f", samplings.{sampling}" if config["grid"].get("samplings") else ""
            where = f"parameterizations.{name}{named}: "
            _check_diffusion(own["diffusion"], each, where)
            check_snapshot(own["training"], each, where)
            if "ema_length" in each:
                from targetwise.training.power import require_stored  # NumPy, which few configurations need

                require_stored(own["training"], each["ema_length"], where)
    for name in config["grid"]["parameterizations"]:
        labels.check(config, name)
    comparisons.check(config, lambda name: variant(config, name))


def _check_parameterizations(config: Config) -> None:
    """Check the grid's names, and every definition, so that a typo shows before it is ever selected."""
    targets, defined = kinds.known("parameterizations"), config["parameterizations"]
    for name in config["grid"]["parameterizations"]:
        if name not in variants.known(config):
            near = nearest(name, variants.known(config))
            raise UserError(f"configuration: grid.parameterizations names '{name}'; {near}")
    for name in defined:
        resolved = variants.defined(config, name)
        for key in ("target", "loss_space"):
            if resolved[key] not in targets:
                raise UserError(
                    f"configuration: parameterizations.{name}.{key} is '{resolved[key]}', but there is no "
                    f"{parameterization_file(resolved[key])}; {nearest(resolved[key], targets)}"
                )
        kinds.require_known("weightings", resolved["weighting"], f"parameterizations.{name}.weighting", "constant")
        kinds.require_known("paths", resolved["diffusion"]["schedule"], f"parameterizations.{name}.schedule")
        for parameter, value in resolved["parameters"].items():
            if isinstance(value, str) and parameter != "sigma_data":
                raise UserError(
                    f"configuration: parameterizations.{name}.parameters.{parameter} is '{value}'; it must be a "
                    "finite number, as only sigma_data is measured"
                )
            if parameter in SCHEDULE_NAMES or parameter in resolved["diffusion"]:
                owner = "the schedule's" if parameter in SCHEDULE_NAMES else "a field of diffusion's"
                raise UserError(
                    f"configuration: parameterizations.{name}.parameters holds the name '{parameter}', which "
                    f"is {owner} own; take another name"
                )
        _check_one_owner(config, name)


def _check_one_owner(config: Config, name: str) -> None:
    """Refuse a field that a variant sets and something else overrides: its name would promise what is not so."""
    own = config["parameterizations"][name] or {}
    if "schedule" in own and "schedule" in (own.get("diffusion") or {}):
        raise UserError(f"configuration: parameterizations.{name} sets diffusion.schedule twice; leave one out")
    for scale in config["grid"]["scales"]:
        if "global_batch" in (own.get("training") or {}) and "global_batch" in (config["scales"].get(scale) or {}):
            raise UserError(
                f"configuration: parameterizations.{name} and scales.{scale} both set the global batch; leave one out"
            )
    for sampling in config["grid"].get("samplings", []):
        for field in own.get("sampling") or {}:
            if field in (config.get("samplings", {}).get(sampling) or {}):
                raise UserError(
                    f"configuration: parameterizations.{name} and samplings.{sampling} both set sampling.{field}; "
                    "leave one out"
                )


def _check_scales(config: Config) -> None:
    for name in config["grid"]["scales"]:
        if name not in config["scales"]:
            raise UserError(f"configuration: grid.scales names '{name}'; {nearest(name, config['scales'])}")
    for name, scale in config["scales"].items():
        kinds.require_known("networks", network_name(scale), f"scales.{name}.network")
        _check_levels(scale, f"scales.{name}")
    for name in config["grid"]["parameterizations"]:
        if (config["parameterizations"].get(name) or {}).get("network"):
            for scale in config["grid"]["scales"]:
                _check_network(config, name, scale)


def _check_network(config: Config, name: str, scale: str) -> None:
    """Check what a variant makes of a scale as if it were a scale."""
    network, where = variants.network(config, name, scale), f"parameterizations.{name}.network"
    try:
        check_schema({**config, "scales": {scale: network}})
    except UserError as error:
        raise UserError(f"{error}, as {where} has it") from None
    kinds.require_known("networks", network_name(network), f"{where}.network")
    _check_levels(network, where)


def _check_levels(network: Mapping[str, Any], where: str) -> None:
    is_unet = network_name(network) in ("unet", "conditional_unet")
    if is_unet and any(level >= len(network["channels"]) for level in network["attention"]):
        raise UserError(
            f"configuration: {where}.attention is {network['attention']}, but the levels are "
            f"0 to {len(network['channels']) - 1}"
        )


def _check_diffusion(diffusion: Mapping[str, Any], sampling: Mapping[str, Any], where: str) -> None:
    """Check names of files, and what two fields decide together; ``where`` says whose they are."""
    kinds.require_known("times", diffusion["times"], f"{where}diffusion.times")
    if diffusion["beta_start"] > diffusion["beta_end"]:
        raise UserError(
            f"configuration: {where}diffusion.beta_start is {diffusion['beta_start']}; it must be at most "
            f"diffusion.beta_end, {diffusion['beta_end']}"
        )
    check_sampling(sampling, diffusion["timesteps"], where)
