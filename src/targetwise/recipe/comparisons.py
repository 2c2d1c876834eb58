"""The section ``comparison``: what a study declares, before it runs, about how its variants will be compared.

It decides no result: changing it trains and measures nothing again. But it is part of ``study.json``, and what was
changed after values were there is told (report/looks.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from targetwise.errors import UserError, nearest
from targetwise.recipe import variants
from targetwise.text import listed

Config = dict[str, Any]

#: A point of the grid without its seed: parameterization, scale and sampling.
Point = tuple[str, str, str]

#: Columns of the table that may be factors beside the fields of the recipe.
AXES = ("scale", "sampling")

#: Laid over a study of which only some variants are looked at, among which its declarations make no sense.
NOTHING_DECLARED: Config = {"baseline": None, "families": None, "factors": [], "curves": []}


def recipes(config: Mapping[str, Any], resolved: Callable[[str], Mapping[str, Any]]) -> dict[Point, Config]:
    """Return all that decides a number but its seed, for every point of the grid.

    Args:
        config: the whole configuration.
        resolved: returns what a parameterization means, as :func:`targetwise.recipe.config.variant` does.

    Returns:
        Each field once, by its name in the configuration (``target``, ``training.learning_rate``); a list is a text.
    """
    found: dict[Point, Config] = {}
    for name in config["grid"]["parameterizations"]:
        own, meaning = variants.settings(config, name), resolved(name)
        of_variant = {
            **{key: value for key, value in meaning.items() if key != "diffusion"},
            **{section: variants.decisive(section, own[section]) for section in ("data", "diffusion")},
        }
        for scale in config["grid"]["scales"]:
            of_scale = {
                "training": variants.decisive("training", variants.training(config, name, scale)),
                "network": variants.network(config, name, scale),
            }
            for sampling, options in variants.samplings(config, name).items():
                recipe = {**of_variant, **of_scale, "sampling": variants.decisive("sampling", options)}
                found[name, scale, sampling] = dict(_flat(recipe))
    return found


def differing(recipes: Mapping[Point, Mapping[str, Any]]) -> list[str]:
    """Return the fields in which points differ, in the order of the alphabet."""
    fields = {field for recipe in recipes.values() for field in recipe}
    return sorted(field for field in fields if len({str(recipe.get(field)) for recipe in recipes.values()}) > 1)


def check(config: Mapping[str, Any], resolved: Callable[[str], Mapping[str, Any]]) -> None:
    """Make sure that what is declared can be answered by the grid; the arguments are those of :func:`recipes`.

    Raises:
        UserError: at the first name that is unknown, or that the grid says nothing about.
    """
    declared = config["comparison"]
    if declared["baseline"] is not None:
        _require_in_grid(config, declared["baseline"], "baseline is")
    for name, members in (declared["families"] or {}).items():
        for member in members:
            _require_in_grid(config, member, f"families.{name} names")
        if len(members) < 2:
            raise UserError(
                f"configuration: comparison.families.{name} holds '{members[0]}' alone; a comparison needs two"
            )
    if declared["factors"] or declared["curves"]:
        points = recipes(config, resolved)
        if declared["factors"]:
            _check_factors(config, points)
        for name in declared["curves"]:
            _check_curve(name, points)


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else value


def _require_in_grid(config: Mapping[str, Any], name: str, what: str) -> None:
    grid = config["grid"]["parameterizations"]
    if name not in grid:
        raise UserError(
            f"configuration: comparison.{what} '{name}', which is not in grid.parameterizations; "
            f"{nearest(name, grid)}"
        )


def _check_factors(config: Mapping[str, Any], points: Mapping[Point, Mapping[str, Any]]) -> None:
    factors = config["comparison"]["factors"]
    for name in factors:
        _require_varied(name, points, "factors", [axis for axis in AXES if _is_axis(config, axis)])
    for stratum in _strata(config, points, factors):
        for name in factors:
            if not _differ_alone(name, list(stratum.values()), factors):
                others = [other for other in factors if other != name]
                agree = f" and agree in {listed(others)}" if others else ""
                raise UserError(
                    f"configuration: comparison.factors names '{name}', but within a setting no two cells differ in "
                    f"it{agree}, so its effect cannot be told; {_hint(config, name)}"
                )
        _require_one_each(stratum, factors, differing(points))


def _hint(config: Mapping[str, Any], name: str) -> str:
    free = [axis for axis in AXES if _is_axis(config, axis) and axis not in config["comparison"]["factors"]]
    across = f", or compare across settings by naming {listed(free)} in its place" if free else ""
    return f"leave {name} out{across}"


def _is_axis(config: Mapping[str, Any], axis: str) -> bool:
    return len(config["grid"].get(f"{axis}s") or []) > 1


def _strata(
    config: Mapping[str, Any], points: Mapping[Point, Mapping[str, Any]], factors: Sequence[str]
) -> Iterator[dict[Point, dict[str, Any]]]:
    """Return the points that are compared with each other, with their levels: those of a setting, or of several."""
    named = bool(config["grid"].get("samplings"))
    groups: dict[tuple[str, str], dict[Point, dict[str, Any]]] = {}
    for point, recipe in points.items():
        _, scale, sampling = point
        setting = ("" if "scale" in factors else scale, "" if "sampling" in factors or not named else sampling)
        groups.setdefault(setting, {})[point] = {**recipe, "scale": scale, "sampling": sampling}
    yield from groups.values()


def _require_varied(
    name: str, points: Mapping[Point, Mapping[str, Any]], where: str, axes: Sequence[str] = ()
) -> None:
    """Refuse a field that there is not, or that is the same everywhere."""
    varied = [*differing(points), *axes]
    if name in varied:
        return
    values = {str(recipe[name]) for recipe in points.values() if name in recipe}
    if values:
        raise UserError(
            f"configuration: comparison.{where} names '{name}', which is {values.pop()} in every cell of the grid; "
            "vary it, or leave it out"
        )
    raise UserError(
        f"configuration: comparison.{where} names '{name}', in which no cells differ; {nearest(name, varied)}"
    )


def _differ_alone(name: str, levels: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> bool:
    """Return whether two of ``levels`` differ in the field ``name`` and agree in all other ``fields``."""
    seen: dict[tuple[str, ...], set[str]] = {}
    for level in levels:
        rest = tuple(str(level.get(field)) for field in fields if field != name)
        seen.setdefault(rest, set()).add(str(level.get(name)))
    return any(len(values) > 1 for values in seen.values())


def _require_one_each(
    stratum: Mapping[Point, Mapping[str, Any]], factors: Sequence[str], fields: Sequence[str]
) -> None:
    """Refuse two variants that the factors cannot tell apart: their difference would pass for noise."""
    for (one, first), (other, second) in combinations(stratum.items(), 2):
        if all(str(first.get(name)) == str(second.get(name)) for name in factors):
            own = [field for field in fields if str(first.get(field)) != str(second.get(field))]
            differ = f"differ in {listed(own)}" if own else "are one recipe"
            raise UserError(
                f"configuration: comparison.factors cannot tell {one[0]} from {other[0]}, which {differ}; "
                + ("name that too, or leave one out" if own else "leave one out")
            )


def _check_curve(name: str, points: Mapping[Point, Mapping[str, Any]]) -> None:
    _require_varied(name, points, "curves")
    for (variant, *_), recipe in points.items():
        value = recipe.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(
                f"configuration: comparison.curves names '{name}', which is '{value}' for {variant}; a curve is over "
                "numbers, so make it one of comparison.factors"
            )
    measured = [recipe for recipe in points.values() if recipe.get(name) is not None]
    if not _differ_alone(name, measured, differing(points)):
        raise UserError(
            f"configuration: comparison.curves names '{name}', but no two variants or settings differ in it alone, "
            "so there is no curve"
        )
