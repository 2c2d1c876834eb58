"""Read, merge and validate the configuration, and resolve what its names mean.

Snakemake parses the Snakefile in every job, so nothing heavy is imported here.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from targetwise.errors import UserError, nearest

BASE = Path("config.yaml")
SCHEMA = Path("workflow/schemas/config.schema.yaml")
PARAMETERIZATIONS = Path("workflow/parameterizations")

Config = dict[str, Any]

#: A variant's folder lies beside these, and `snakemake NAME` must not mean a rule; tests hold the list complete.
RESERVED_NAMES = frozenset(
    {"all", "prepare_data", "reference_stats", "check_parameterization", "train", "sample", "fid", "floor", "ceiling"}
    | {"aggregate", "report", "track", "log", "benchmark"}
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
    config = _read_yaml(base)
    for overlay in overlays:
        config = merge(config, _read_yaml(overlay))
    return validate(config)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Config:
    """Return ``below`` with ``above`` laid over it; neither argument is changed."""
    merged = dict(deepcopy(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged


def validate(config: Mapping[str, Any]) -> Config:
    """Check ``config`` against the closed schema and its names against their definitions.

    Raises:
        UserError: at the first thing that is wrong.
    """
    checked: Config = dict(deepcopy(config))
    _check_schema(checked)
    _check_names(checked)
    return checked


def variant(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return everything that the parameterization ``name`` means, defaults filled in."""
    definition = config["parameterizations"].get(name) or {}
    target = definition.get("target", name)
    return {
        "target": target,
        "loss_space": definition.get("loss_space", target),
        "weighting": definition.get("weighting", "constant"),
        "parameters": definition.get("parameters", {}),
        "diffusion": {
            **config["diffusion"],
            "schedule": definition.get("schedule", config["diffusion"]["schedule"]),
        },
    }


def parameterization_file(target: str) -> Path:
    """Return the path of the file that holds ``target``'s two functions."""
    return PARAMETERIZATIONS / f"{target}.py"


def known_targets() -> list[str]:
    """Return the names of all parameterization files."""
    return sorted(path.stem for path in PARAMETERIZATIONS.glob("*.py"))


def _read_yaml(path: Path) -> Config:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run this in the project's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, but a mapping of keys is needed")
    return content


def _check_schema(config: Config) -> None:
    from jsonschema import Draft202012Validator

    errors = list(Draft202012Validator(_read_yaml(SCHEMA)).iter_errors(config))
    if errors:
        # A misspelt key is often also a missing one; the misspelling is the message that helps.
        first = min(errors, key=lambda error: (error.validator != "additionalProperties", len(error.path)))
        raise UserError(_explain(first))


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    value = error.instance
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            key = next(key for key in value if key not in known)
            place = f" in {where}" if where else ""
            return f"configuration: unknown key '{key}'{place}; {nearest(key, known)}"
        case "required":
            key = next(key for key in error.validator_value if key not in value)
            return f"configuration: {where + '.' if where else ''}{key} is missing"
        case "enum":
            return f"configuration: {where} is {value!r}; {nearest(value, map(str, error.validator_value))}"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"configuration: {where} names {twice!r} twice; each may stand there once"
        case "pattern":
            return (
                f"configuration: {where or 'a name'} is {value!r}; "
                "a name is lower-case letters, digits and _, and begins with a letter"
            )
        case "minimum":
            return f"configuration: {where} is {value!r}; it must be at least {error.validator_value}"
        case "maximum":
            return f"configuration: {where} is {value!r}; it must be at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"configuration: {where} is {value!r}; it must be greater than {error.validator_value}"
        case "exclusiveMaximum":
            return f"configuration: {where} is {value!r}; it must be less than {error.validator_value}"
        case "type":
            return f"configuration: {where} is {value!r}; it must be of type {error.validator_value}"
        case _:
            return f"configuration: {where}: {error.message}"


def _check_names(config: Config) -> None:
    grid = config["grid"]
    targets = known_targets()
    for name in grid["parameterizations"]:
        if name in RESERVED_NAMES:
            raise UserError(
                f"configuration: grid.parameterizations names '{name}', which is a rule; take another name"
            )
        if name not in config["parameterizations"] and name not in targets:
            choices = {*config["parameterizations"], *targets}
            raise UserError(f"configuration: grid.parameterizations names '{name}'; {nearest(name, choices)}")
        resolved = variant(config, name)
        for key in ("target", "loss_space"):
            if resolved[key] not in targets:
                raise UserError(
                    f"configuration: parameterizations.{name}.{key} is '{resolved[key]}', but there is no "
                    f"{parameterization_file(resolved[key])}; {nearest(resolved[key], targets)}"
                )
    for name in grid["scales"]:
        if name not in config["scales"]:
            raise UserError(f"configuration: grid.scales names '{name}'; {nearest(name, config['scales'])}")
        scale = config["scales"][name]
        if any(level >= len(scale["channels"]) for level in scale["attention"]):
            raise UserError(
                f"configuration: scales.{name}.attention is {scale['attention']}, but the levels are "
                f"0 to {len(scale['channels']) - 1}"
            )
    dataset = config["data"]["dataset"]
    if dataset not in config["datasets"]:
        raise UserError(f"configuration: data.dataset is '{dataset}'; {nearest(dataset, config['datasets'])}")
    if config["sampling"]["steps"] > config["diffusion"]["timesteps"]:
        raise UserError(
            f"configuration: sampling.steps is {config['sampling']['steps']}; it must be at most "
            f"diffusion.timesteps, {config['diffusion']['timesteps']}"
        )
