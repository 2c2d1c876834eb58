"""Claims: what the literature says, as predictions about cells, one file each in ``workflow/claims/``.

A study names them in ``grid.claims``, and the variants that they compare join its grid. A variant that means the same
as one that the study has already is that one, so claims share their cells.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from targetwise.errors import UserError, nearest
from targetwise.files import sha256_of_json
from targetwise.recipe import kinds, predictions, variants
from targetwise.recipe.predictions import DIVERGED
from targetwise.recipe.schema import check_schema, fault, read_yaml

FOLDER = kinds.WORKFLOW / "claims"
SCHEMA = Path("workflow/schemas/claim.schema.yaml")

#: Fields of a variant that name files, of which kind, and what needs none.
FILES = {
    "target": ("parameterizations",),
    "loss_space": ("parameterizations",),
    "weighting": ("weightings", "constant"),
    "schedule": ("paths",),
}

Config = dict[str, Any]

#: Weights and variants of a weighted sum.
Terms = tuple[tuple[float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Claim:
    """A claim, and the variants of a study that it is about.

    Attributes:
        name: the file's.
        content: of the file.
        digest: SHA-256 of the content, whatever its comments and its form are.
        terms: weights and variants of a contrast; of several variants each seed's is the best by the other seeds.
        premise: the same of what must be supported first, if anything must.
        quantity: that it is about, the study's first metric where the file names none.
    """

    name: str
    content: Config
    digest: str
    terms: Terms
    premise: Terms
    quantity: str

    @property
    def variants(self) -> list[str]:
        """Return all variants that it is about."""
        return list(dict.fromkeys(name for _, names in self.terms + self.premise for name in names))

    @property
    def presupposed(self) -> "Claim | None":
        """Return what must be supported first, as a claim of its own."""
        if not self.premise:
            return None
        content = {key: self.content[key] for key in ("says", "source", "unit") if key in self.content}
        return replace(self, content=content | self.content["provided"], terms=self.premise, premise=())

    @property
    def unit(self) -> str:
        """Return ``ratio`` or ``difference``; what happens or not is compared by the difference of two shares."""
        return "difference" if self.quantity == DIVERGED else str(self.content.get("unit", "ratio"))

    @property
    def statistic(self) -> str:
        """Return ``mean`` or ``deviation``."""
        return str(self.content.get("statistic", "mean"))


def file_of(name: str) -> Path:
    """Return the path of a claim's file."""
    return FOLDER / f"{name}.yaml"


def known() -> list[str]:
    """Return the names of all claims."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def named(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the claims of a study."""
    return list(config["grid"].get("claims") or [])


def read(name: str) -> Config:
    """Read a claim's file.

    Raises:
        UserError: in one line, if it is missing or says something that no claim can.
    """
    path = file_of(name)
    if not path.is_file():
        raise UserError(
            f"configuration: grid.claims names '{name}', but there is no {path}; {nearest(name, known())}"
        )
    content = read_yaml(path)
    if found := fault(content, SCHEMA):
        raise UserError(f"{path}: {found}")
    if ("left" in content) == ("contrast" in content) or ("right" in content and "left" not in content):
        raise UserError(f"{path}: it must have either left, and right if there is one, or contrast")
    predictions.check(content, path)
    return content


def joined(config: Mapping[str, Any]) -> Config:
    """Return a configuration whose grid holds the variants of its claims too; joined again, it stays as it is.

    Raises:
        UserError: naming the claim's file, if it is wrong.
    """
    contents = {name: read(name) for name in named(config)}
    if not contents:
        return dict(config)
    _check_definitions(config, contents)
    names = _Names(config)
    for name, content in contents.items():
        for _, side in (*_sides(content), *_premise(content)):
            names.of_side(side, file_of(name))
    return names.config


def of(config: Mapping[str, Any]) -> list[Claim]:
    """Return the claims of a study.

    Args:
        config: as :func:`joined` returns it.

    Raises:
        UserError: if a file is wrong, or was edited so that the grid lacks cells of it.
    """
    found = []
    names = _Names(config)
    for name in named(config):
        content = read(name)
        terms, premise = (
            tuple((times, names.of_side(side, file_of(name))) for times, side in sides)
            for sides in (_sides(content), _premise(content))
        )
        for variant in (variant for _, side in terms + premise for variant in side):
            if variant not in config["grid"]["parameterizations"]:
                raise UserError(
                    f"{file_of(name)} is about '{variant}' now, which the study's grid lacks; run the study again"
                )
        quantity = str(content.get("quantity", config["metric"]["names"][0]))
        found.append(Claim(name, content, sha256_of_json(content), terms, premise, quantity))
    return found


def _sides(content: Mapping[str, Any]) -> Iterator[tuple[float, Any]]:
    if "contrast" in content:
        yield from ((float(term["times"]), term["of"]) for term in content["contrast"])
        return
    yield 1.0, content["left"]
    if "right" in content:
        yield -1.0, content["right"]


def _premise(content: Mapping[str, Any]) -> Iterator[tuple[float, Any]]:
    if "provided" in content:
        yield from _sides(content["provided"])


class _Names:
    """The names of a study's variants, by what they mean; ``config`` has those that claims added."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = deepcopy(dict(config))
        defined = self.config["parameterizations"]
        plain = [name for name in kinds.known("parameterizations") if name not in defined]
        self.by_meaning: dict[str, str] = {}
        for name in dict.fromkeys([*self.config["grid"]["parameterizations"], *defined, *plain]):
            self.by_meaning.setdefault(self._meaning(name), name)

    def of_side(self, side: Any, path: Path) -> tuple[str, ...]:
        """Return the variants of a side, of which the grid has each from now on."""
        if isinstance(side, str):
            if side not in variants.known(self.config):
                raise UserError(f"{path} is about '{side}'; {nearest(side, variants.known(self.config))}")
            found = [side]
        else:
            found = [self._of_definition(each, path) for each in _spelled_out(side, path)]
        grid = self.config["grid"]["parameterizations"]
        grid.extend(name for name in found if name not in grid)
        return tuple(found)

    def _of_definition(self, definition: Config, path: Path) -> str:
        for field, (kind, *built_in) in FILES.items():
            if field in definition:
                kinds.require_known(kind, str(definition[field]), f"{path}: {field}", *built_in)
        # Named as it would be in a sweep, e.g. x0_truncated_snr for {target: x0, weighting: truncated_snr}.
        values = [value for key, value in _leaves(definition) if key != "target"]
        name = "_".join([str(definition["target"]), *map(variants.in_name, values)])
        taken = name in variants.known(self.config)
        before = self.config["parameterizations"]
        self.config["parameterizations"] = {**before, name: definition}
        meaning = self._meaning(name)
        if meaning in self.by_meaning or taken:
            self.config["parameterizations"] = before
        if meaning not in self.by_meaning and taken:
            raise UserError(
                f"{path}: {definition} would be called '{name}', which means something else in this study; define it "
                "under parameterizations with a name of its own, and name that"
            )
        return self.by_meaning.setdefault(meaning, name)

    def _meaning(self, name: str) -> str:
        own = variants.defined(self.config, name), variants.settings(self.config, name)
        return json.dumps(own, sort_keys=True, default=str)


def _spelled_out(side: Mapping[str, Any], path: Path) -> list[Config]:
    each = side.get("each", {})
    if not (isinstance(each, Mapping) and all(isinstance(values, list) and values for values in each.values())):
        raise UserError(
            f"{path}: each must have a list of values for a field, e.g. training.learning_rate: [1.0e-3, 2.0e-3]"
        )
    nested = variants.nest(side, str(path))
    if "target" not in nested:
        raise UserError(f"{path}: a side must say its target, e.g. {{target: x0, weighting: snr}}")
    return [definition for _, definition in variants.spell_out(str(nested["target"]), nested)]


def _check_definitions(config: Mapping[str, Any], contents: Mapping[str, Config]) -> None:
    """Hold the sides of all claims against the schema of variants, which is slow, so that all go at once."""
    sides = [
        (file_of(name), definition)
        for name, content in contents.items()
        for _, side in (*_sides(content), *_premise(content))
        if not isinstance(side, str)
        for definition in _spelled_out(side, file_of(name))
    ]
    try:
        definitions = {f"side_{number}": definition for number, (_, definition) in enumerate(sides)}
        check_schema({**config, "parameterizations": definitions})
    except UserError as error:
        text = str(error).removeprefix("configuration: ")
        if (found := re.search(r"parameterizations\.side_(\d+)", text)) is None:
            raise
        raise UserError(f"{sides[int(found[1])][0]}: {text.replace(found[0], 'a side')}") from None


def _leaves(definition: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in definition.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield key, value
