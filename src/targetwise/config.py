"""Read, merge and validate the configuration, and resolve what its names mean.

Snakemake parses the Snakefile in every job, so nothing heavy is imported here.
"""

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from targetwise.errors import UserError, nearest

BASE = Path("config.yaml")
SCHEMA = Path("workflow/schemas/config.schema.yaml")
PARAMETERIZATIONS = Path("workflow/parameterizations")

Config = dict[str, Any]

#: What both functions find in ``schedule``; a variant's own constants must not hide them.
SCHEDULE_NAMES = frozenset({"alphas_cumprod", "sqrt_alpha", "sqrt_one_minus_alpha"})

#: JSON Schema's types in the words of the messages.
TYPE_WORDS = {
    "object": "a mapping of keys",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
    "null": "null",
}

NAME_RULE = "a name is at most 64 lower-case letters, digits and _, and begins with a letter"

#: A variant's folder lies beside these, and `snakemake NAME` must not mean a rule; tests hold the list complete.
RESERVED_NAMES = frozenset(
    {"all", "prepare_data", "prepare_weights", "reference_stats", "check_parameterization", "train", "sample"}
    | {"fid", "floor", "ceiling"}
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
    """Return ``below`` with ``above`` laid over it; neither argument is changed.

    An empty mapping replaces nothing: so Snakemake has it, and both must come to the same configuration.
    """
    merged = dict(deepcopy(below))
    for key, value in above.items():
        if isinstance(value, Mapping):
            under = merged.get(key, {})
            merged[key] = merge(under if isinstance(under, Mapping) else {}, value) if value else under
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


def require_unique_keys(paths: Iterable[Path | str]) -> None:
    """Refuse configuration files in which a key stands twice: whoever reads YAML silently keeps the last one.

    Raises:
        UserError: with file, line and key.
    """
    for path in paths:
        _read_yaml(Path(path))


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """Reads what any safe YAML reader does, and refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise UserError(f"line {line}: the key '{key.value}' stands in line {lines[name]} already")
            lines[name] = line
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Config:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run this in the project's root") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text in UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path} holds {found}, but a mapping of keys is needed")
    return content


def _check_schema(config: Config) -> None:
    errors = list(_validator(SCHEMA.resolve()).iter_errors(config))
    if errors:
        # A misspelt key is often also a missing one; the misspelling is the message that helps.
        first = min(errors, key=lambda error: (error.validator != "additionalProperties", len(error.path)))
        raise UserError(_explain(first))


@cache
def _validator(schema: Path) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # JSON Schema takes 1000.0 for an integer, and NaN for a number above 0; neither may reach a specification.
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: _is_finite_number(value),
        }
    )
    return extend(Draft202012Validator, type_checker=types)(_read_yaml(schema))


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _explain(error: Any) -> str:
    """Return one line that names the key, the value and what would be right."""
    where = ".".join(str(part) for part in error.absolute_path)
    value = error.instance
    if "propertyNames" in error.absolute_schema_path:
        return f"configuration: {where} holds the name {value!r}; {NAME_RULE}"
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            key = next(key for key in value if key not in known)
            place = f" in {where}" if where else ""
            return f"configuration: unknown key {str(key)!r}{place}; {nearest(key, known)}"
        case "required":
            key = next(key for key in error.validator_value if key not in value)
            return f"configuration: {where + '.' if where else ''}{key} is missing"
        case "enum":
            return f"configuration: {where} is {value!r}; {nearest(value, map(str, error.validator_value))}"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"configuration: {where} names {twice!r} twice; each may stand there once"
        case "pattern" | "maxLength":
            return f"configuration: {where} is {value!r}; {NAME_RULE}"
        case "minimum":
            return f"configuration: {where} is {value!r}; it must be at least {error.validator_value}"
        case "maximum":
            return f"configuration: {where} is {value!r}; it must be at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"configuration: {where} is {value!r}; it must be greater than {error.validator_value}"
        case "exclusiveMaximum":
            return f"configuration: {where} is {value!r}; it must be less than {error.validator_value}"
        case "multipleOf":
            return f"configuration: {where} is {value!r}; it must be a multiple of {error.validator_value}"
        case "minItems":
            return f"configuration: {where} is {value!r}; it must hold at least {error.validator_value}"
        case "type":
            shown = "empty" if value is None else repr(value)
            return f"configuration: {where} is {shown}; it must be {_wanted(error.validator_value, value)}"
        case _:
            return f"configuration: {where}: {' '.join(error.message.split())}"


def _wanted(kind: str | list[str], value: Any) -> str:
    kinds = [kind] if isinstance(kind, str) else kind
    wanted = " or ".join(TYPE_WORDS[kind] for kind in kinds)
    if isinstance(value, str) and {"number", "integer"} & set(kinds) and _reads_as_number(value):
        return f"{wanted}, but YAML reads this as a text; write it without quotes and like 1.0e-4 or 1.0e+4"
    if "string" in kinds and isinstance(value, bool):
        return f"{wanted}; YAML reads yes, no, on and off as true or false, so put it in quotes"
    return wanted


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_names(config: Config) -> None:
    for axis in ("parameterizations", "scales"):
        for name in config["grid"][axis]:
            if name in RESERVED_NAMES:
                raise UserError(
                    f"configuration: grid.{axis} names '{name}', which is a rule or a folder of the pipeline; "
                    "take another name"
                )
    _check_parameterizations(config)
    _check_scales(config)
    dataset = config["data"]["dataset"]
    if dataset not in config["datasets"]:
        raise UserError(f"configuration: data.dataset is '{dataset}'; {nearest(dataset, config['datasets'])}")
    _check_sources(config)
    _check_metric(config)
    diffusion = config["diffusion"]
    if diffusion["beta_start"] > diffusion["beta_end"]:
        raise UserError(
            f"configuration: diffusion.beta_start is {diffusion['beta_start']}; it must be at most "
            f"diffusion.beta_end, {diffusion['beta_end']}"
        )
    _check_sampling_steps(config["sampling"], diffusion["timesteps"])


def _check_parameterizations(config: Config) -> None:
    """Check the grid's names, and every definition, so that a typo shows before it is ever selected."""
    targets, defined = known_targets(), config["parameterizations"]
    for name in config["grid"]["parameterizations"]:
        if name not in defined and name not in targets:
            raise UserError(
                f"configuration: grid.parameterizations names '{name}'; {nearest(name, {*defined, *targets})}"
            )
    for name in defined:
        resolved = variant(config, name)
        for key in ("target", "loss_space"):
            if resolved[key] not in targets:
                raise UserError(
                    f"configuration: parameterizations.{name}.{key} is '{resolved[key]}', but there is no "
                    f"{parameterization_file(resolved[key])}; {nearest(resolved[key], targets)}"
                )
        for parameter in resolved["parameters"]:
            if parameter in SCHEDULE_NAMES:
                raise UserError(
                    f"configuration: parameterizations.{name}.parameters holds the name '{parameter}', which "
                    "is the schedule's own; take another name"
                )


def _check_scales(config: Config) -> None:
    for name in config["grid"]["scales"]:
        if name not in config["scales"]:
            raise UserError(f"configuration: grid.scales names '{name}'; {nearest(name, config['scales'])}")
    for name, scale in config["scales"].items():
        if any(level >= len(scale["channels"]) for level in scale["attention"]):
            raise UserError(
                f"configuration: scales.{name}.attention is {scale['attention']}, but the levels are "
                f"0 to {len(scale['channels']) - 1}"
            )


def _check_sources(config: Config) -> None:
    """Refuse a download without a digest: it would have to be trusted by its address."""
    for section in ("datasets", "weights"):
        for name, definition in config[section].items():
            for index, source in enumerate(definition.get("sources", [])):
                if source["kind"] == "url" and not {"md5", "sha256"} & set(source):
                    raise UserError(
                        f"configuration: {section}.{name}.sources.{index} has no digest; a url needs sha256 (or md5)"
                    )


def _check_metric(config: Config) -> None:
    """Make sure that the extractor can take the data set's images."""
    extractor, dataset = config["metric"]["extractor"], config["data"]["dataset"]
    definition = config["datasets"][dataset]
    if (extractor == "digits") != (definition["kind"] == "digits"):
        right = "digits" if definition["kind"] == "digits" else "inception"
        raise UserError(
            f"configuration: metric.extractor is '{extractor}', but data.dataset is '{dataset}' of kind "
            f"{definition['kind']}; take '{right}'"
        )
    if extractor == "inception" and definition.get("channels", 3) != 3:
        raise UserError(
            f"configuration: metric.extractor is 'inception', which takes three channels, but datasets.{dataset}."
            f"channels is {definition['channels']}"
        )


def _check_sampling_steps(sampling: Mapping[str, Any], timesteps: int) -> None:
    steps = sampling["steps"]
    if steps > timesteps:
        raise UserError(
            f"configuration: sampling.steps is {steps}; it must be at most diffusion.timesteps, {timesteps}"
        )
    stride, rest = divmod(timesteps, steps)
    if sampling["spacing"] == "trailing" and rest:
        # A DDIM step of diffusers goes T // steps down, which is not where the next step is then: the spread of the
        # samples would be wrong by up to a third, and for some numbers of steps a last one at t = −1 is added.
        raise UserError(
            f"configuration: sampling.steps is {steps}; with spacing trailing it must divide diffusion.timesteps, "
            f"{timesteps}"
        )
    if sampling["spacing"] == "leading" and rest >= stride:
        # Pure noise belongs to t = T − 1; with 600 steps of 1,000 diffusers' "leading" would begin at t = 599.
        raise UserError(
            f"configuration: sampling.steps is {steps}; with spacing leading it would begin at "
            f"t = {stride * (steps - 1)} of {timesteps - 1}; take a divisor of diffusion.timesteps, {timesteps}"
        )
