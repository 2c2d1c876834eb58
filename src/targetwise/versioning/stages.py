"""The stages of `dvc.yaml`: which files of a cell DVC keeps, and what it watches to say when they are out of date.

DVC fills the templates of a stage in; so does this module, because asking DVC takes seconds and thousands of cells
are one file. A test holds the two to each other.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from targetwise import config
from targetwise.cells import Cell
from targetwise.errors import UserError
from targetwise.schema import read_yaml

PIPELINE = Path("dvc.yaml")
EXPLANATION = "docs/dvc.md"


class NotVersionedError(UserError):
    """DVC has no say in this study or cell: what is missing, and where it would be said."""


@dataclass(frozen=True)
class Stage:
    """The stage of one cell.

    Attributes:
        name: by which DVC knows it, e.g. ``digits@v-tiny-1``.
        files: that it keeps.
        sources: files of the repository that it watches.
        options: what it watches of the configuration, by file, e.g. ``training.steps``.
    """

    name: str
    files: frozenset[Path]
    sources: tuple[Path, ...]
    options: Mapping[Path, tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """The stages of one study.

    Attributes:
        name: e.g. ``digits``.
        overlays: the configuration files that are laid over config.yaml.
        config: the whole configuration that they give.
        stages: by the name of their cell.
        contents: of the configuration files.
    """

    name: str
    overlays: tuple[Path, ...]
    config: config.Config
    stages: Mapping[str, Stage]
    contents: Mapping[Path, Mapping[str, Any]]


def groups() -> list[Group]:
    """Return the groups of stages in dvc.yaml.

    Raises:
        UserError: if a file cannot be read.
    """
    base = read_yaml(config.BASE)
    found = []
    for name, definition in read_yaml(PIPELINE)["stages"].items():
        words = shlex.split(definition["cmd"][0])
        end = words.index("--")
        overlays = (
            [Path(word) for word in words[words.index("--configfile") + 1 : end]] if "--configfile" in words else []
        )
        axes = {axis: _listed(names, base) for axis, names in definition["matrix"].items()}
        stages = {}
        for point in product(*axes.values()):
            cell = "-".join(map(str, point))
            values = {**base, "item": dict(zip(axes, point, strict=True))}
            stages[cell] = _stage(f"{name}@{cell}", definition, values)
        contents = {config.BASE: base, **{path: read_yaml(path) for path in overlays}}
        found.append(Group(name, tuple(overlays), config.load(overlays), stages, contents))
    return found


def group_of(study: Mapping[str, Any]) -> Group:
    """Return the group of a study.

    Args:
        study: the whole configuration.

    Raises:
        NotVersionedError: if dvc.yaml has none, or if its files give another configuration: DVC would record results
            under options that they were not made with.
    """
    name = study["study"]
    for group in groups():
        if group.config["study"] == name:
            if group.config == study:
                return group
            files = " and ".join(map(str, group.contents))
            raise NotVersionedError(
                f"this is not the configuration of {files}, which {PIPELINE} watches for study {name}"
            )
    raise NotVersionedError(f"{PIPELINE} has no stages for study {name} ({EXPLANATION} says how to write them)")


def stage_of(group: Group, cell: Cell) -> Stage:
    """Return the stage of a cell, if DVC can tell by it when the cell is out of date.

    Raises:
        NotVersionedError: saying what is missing.
    """
    from targetwise.versioning.agreement import parts

    stage = group.stages.get(cell.name)
    if stage is None:
        raise NotVersionedError(f"{PIPELINE}: the lists of {group.name} leave out cells of the configuration")
    files = {path for part in parts(group.config, cell) for path in part.files}
    if stage.files != files:
        path = min(stage.files ^ files)
        verb = "does not list" if path in files else "lists"
        raise NotVersionedError(f"{PIPELINE}: {group.name} {verb} {path}, unlike the configuration")
    for path in stage.sources:
        if not path.exists():
            raise NotVersionedError(f"DVC watches {path}, which does not exist ({EXPLANATION} says what to do)")
    for path, content in group.contents.items():
        for key in stage.options.get(path, ()):
            if not _has(content, key):
                raise NotVersionedError(
                    f"DVC watches {key} in {path}, which is not there ({EXPLANATION} says what to do)"
                )
    return stage


def _stage(name: str, definition: Mapping[str, Any], values: Mapping[str, Any]) -> Stage:
    kept = [path for entry in (*definition["outs"], *definition["metrics"]) for path in entry]
    options = {
        Path(file): tuple(_filled(key, values) for key in keys)
        for entry in definition["params"]
        for file, keys in entry.items()
    }
    return Stage(
        name,
        frozenset(Path(_filled(path, values)) for path in kept),
        tuple(Path(_filled(path, values)) for path in definition["deps"]),
        options,
    )


def _listed(names: Any, values: Mapping[str, Any]) -> list[Any]:
    """Return a list of the matrix: itself, or the one that ``${grid.seeds}`` stands for."""
    return list(_value(names.strip("${}"), values)) if isinstance(names, str) else list(names)


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """Return a path or a key with every ``${name.of.a.value}`` replaced."""
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(_value(found[1], values)), text)


def _value(name: str, values: Any) -> Any:
    for key in name.split("."):
        values = values[key]
    return values


def _has(content: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True
