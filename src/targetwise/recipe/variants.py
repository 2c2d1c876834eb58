"""The axes of a study: what a name of the grid means, and the names that a sweep stands for.

A variant is laid over the whole configuration: it may set any field of the sections in :data:`SECTIONS`, nested or
with dots (``training.learning_rate``). ``each`` lists values of fields, and stands for one variant per combination.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import product
from typing import Any

from targetwise.errors import UserError
from targetwise.recipe import kinds
from targetwise.recipe.schema import effects

Config = dict[str, Any]

#: Sections of the configuration that a variant may be laid over; ``network`` is laid over each scale.
SECTIONS = ("data", "diffusion", "training", "sampling")

#: How a value is written in the name of a variant.
IN_NAMES = str.maketrans({"-": "m", "+": None, ".": "p"})


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


def nested(config: Mapping[str, Any]) -> Config:
    """Return a configuration in which no key of a variant or a sampling has a dot: ``{a.b: 1}`` is ``{a: {b: 1}}``.

    Raises:
        UserError: if a field is set twice.
    """
    found: Config = dict(config)
    for section in ("parameterizations", "samplings"):
        if isinstance(found.get(section), Mapping):
            found[section] = {
                name: nest(definition, f"{section}.{name}") if isinstance(definition, Mapping) else definition
                for name, definition in found[section].items()
            }
    return found


def swept(config: Mapping[str, Any]) -> Config:
    """Return a configuration whose sweeps are spelled out: in the definitions, and where grid and families name them.

    Raises:
        UserError: if two variants would get one name.
    """
    found: Config = {**config, "parameterizations": {}, "grid": dict(config["grid"])}
    names: dict[str, list[str]] = {}
    for name, definition in config["parameterizations"].items():
        variants = dict(spell_out(name, definition))
        for variant in variants:
            # The same definition is no other variant: study.json, laid over its configuration, holds both.
            if found["parameterizations"].get(variant, variants[variant]) != variants[variant]:
                raise UserError(f"configuration: parameterizations.{name} gives the name '{variant}' a second time")
        found["parameterizations"].update(variants)
        names[name] = list(variants)

    def spelled_out(listed: Sequence[str]) -> list[str]:
        return [variant for name in listed for variant in names.get(name, [name])]

    found["grid"]["parameterizations"] = spelled_out(config["grid"]["parameterizations"])
    families = config["comparison"]["families"] or {}
    if families:
        own = {family: spelled_out(members) for family, members in families.items()}
        found["comparison"] = {**config["comparison"], "families": own}
    return found


def settings(config: Mapping[str, Any], name: str) -> Config:
    """Return the sections that hold for a variant: :data:`SECTIONS`, and ``network``, to be laid over a scale."""
    definition = config["parameterizations"].get(name) or {}
    found = {section: merge(config[section], definition.get(section) or {}) for section in SECTIONS}
    if "schedule" in definition:
        found["diffusion"]["schedule"] = definition["schedule"]
    return {**found, "network": dict(definition.get("network") or {})}


def defined(config: Mapping[str, Any], name: str) -> Config:
    """Return all that a variant means beside its settings, as it is written, also of one that no grid names."""
    definition = config["parameterizations"].get(name) or {}
    target = definition.get("target", name)
    return {
        "target": target,
        "loss_space": definition.get("loss_space", target),
        "weighting": definition.get("weighting", "constant"),
        "parameters": definition.get("parameters", {}),
        "diffusion": settings(config, name)["diffusion"],
        # Only where it is asked for: the keys of variants of before there was such a field are what they were.
        **{field: True for field in ("uncertainty", "normalize_weight") if definition.get(field)},
    }


def network_name(scale: Mapping[str, Any]) -> str:
    """Return the name of a scale's file in ``workflow/networks/``."""
    return str(scale.get("network", "unet"))


def network(config: Mapping[str, Any], name: str, scale: str) -> Config:
    """Return the options of a variant's network at a scale; another network than the scale's has no option of it."""
    below = {key: value for key, value in config["scales"][scale].items() if key != "global_batch"}
    own = settings(config, name)["network"]
    return merge(below if network_name({**below, **own}) == network_name(below) else {}, own)


def training(config: Mapping[str, Any], name: str, scale: str) -> Config:
    """Return the section ``training`` that holds for a variant at a scale, which may have a batch of its own."""
    options: Config = settings(config, name)["training"]
    return {**options, "global_batch": config["scales"][scale].get("global_batch", options["global_batch"])}


def decisive(section: str, options: Mapping[str, Any]) -> Config:
    """Return the fields of a section that decide a number: what makes a result out of date, and no other."""
    effect = effects(section)
    return {key: value for key, value in options.items() if effect[key] != "speed"}


def samplings(config: Mapping[str, Any], name: str) -> dict[str, Config]:
    """Return the settings of the sampler that a variant's samples are drawn with, by the name of their folder.

    Where the grid names none, it is the section ``sampling``, in a folder like ``ddim-50``.
    """
    own = settings(config, name)["sampling"]
    names = config["grid"].get("samplings")
    if not names:
        return {f"{own['sampler']}-{own['steps']}": own}
    return {each: merge(own, config["samplings"][each]) for each in names}


def nest(definition: Mapping[Any, Any], where: str) -> Config:
    """Return a definition in which no key has a dot; ``where`` says whose it is, should a field be set twice."""
    found: Config = {}
    for field, value in definition.items():
        first, *rest = field.split(".") if isinstance(field, str) else [field]
        for part in reversed(rest):
            value = {part: value}
        _set(found, first, value, f"{where} sets {field}")
    return found


def _set(below: Config, key: Any, value: Any, what: str) -> None:
    if key not in below:
        below[key] = value
    elif isinstance(value, Mapping) and isinstance(below[key], Mapping):
        below[key] = dict(below[key])  # a copy, because it may be a mapping of the configuration that was handed in
        for name, each in value.items():
            _set(below[key], name, each, what)
    else:
        raise UserError(f"configuration: {what} twice")


def spell_out(name: str, definition: Mapping[str, Any] | None) -> Iterator[tuple[str, Config]]:
    """Return the variants that a definition stands for, by name: of a sweep one for each combination of values."""
    fields = (definition or {}).get("each")
    rest = {key: value for key, value in (definition or {}).items() if key != "each"}
    if not fields:
        yield name, rest
        return
    for values in product(*fields.values()):
        own = nest(dict(zip(fields, values, strict=True)), f"parameterizations.{name}.each")
        yield "_".join([name, *map(in_name, values)]), merge({"target": name, **rest}, own)


def known(config: Mapping[str, Any]) -> set[str]:
    """Return the names that a grid may have: those that are defined, and those of files, which need no definition."""
    return {*config["parameterizations"], *kinds.known("parameterizations")}


def in_name(value: Any) -> str:
    """Return how a value is written in the name of a variant: 2.0e-4 as ``0p0002``."""
    if isinstance(value, list):
        return "_".join(map(in_name, value))
    return str(value).lower().translate(IN_NAMES)
