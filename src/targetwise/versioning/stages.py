"""The stages of `dvc.yaml`, a group for each study: written from the configuration, and compared with it.

A stage says which files of a cell DVC keeps, and what it watches to say when they are out of date. DVC cannot lay one
configuration file over another, so each field is watched in the file that decides it.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from targetwise import cells
from targetwise.cells import Cell
from targetwise.errors import UserError
from targetwise.files import write_text
from targetwise.recipe import config, kinds, variants
from targetwise.recipe.schema import read_yaml

PIPELINE = Path("dvc.yaml")

HEADER = """\
# Written by `targetwise stages`: a stage per cell. DVC keeps what the cell made, and says when it is lost or out of
# date (docs/dvc.md). After another study or name is configured, type it again, with the study's --configfile.
#   dvc repro cell@v-small-1     one cell of config.yaml
#   dvc repro digits@v-tiny-1    one cell of the demo
"""

#: The group of config.yaml itself; that of a configuration laid over it has the study's name.
BASE_GROUP = "cell"

#: Sections of the configuration whose fields decide results.
SECTIONS = (*variants.SECTIONS, "metric")

#: Is in every configuration file and of no effect: what is watched where a file says nothing of a name.
NOTHING = "study"

TRAINED = ("model.safetensors", "train.jsonl", "training.json")


class NotVersionedError(UserError):
    """DVC has no say in this study: why, and what to type."""


@dataclass(frozen=True)
class Stage:
    """The stage of one cell: its name, e.g. ``digits@v-tiny-1``, and the files that DVC keeps of it."""

    name: str
    files: frozenset[Path]


@dataclass(frozen=True)
class Group:
    """The stages of one study.

    Attributes:
        name: e.g. ``digits``.
        overlays: the configuration files that are laid over config.yaml.
        config: the whole configuration that they give.
        definition: of the group, as dvc.yaml has it.
    """

    name: str
    overlays: tuple[Path, ...]
    config: config.Config
    definition: Mapping[str, Any]

    @property
    def stages(self) -> dict[str, Stage]:
        """Return the stages by the name of their cell."""
        return {cell.name: self.stage_of(cell) for cell in cells.grid(self.config)}

    def stage_of(self, cell: Cell) -> Stage:
        """Return the stage of a cell of the study."""
        from targetwise.cells.agreement import parts

        files = frozenset(path for part in parts(self.config, cell) for path in part.files)
        return Stage(f"{self.name}@{cell.name}", files)


def groups() -> list[Group]:
    """Return the groups of stages in dvc.yaml.

    Raises:
        UserError: if a file cannot be read.
    """
    found = []
    for name, definition in _read().items():
        words = shlex.split(definition["do"]["cmd"][0])
        own = words[words.index("--configfile") + 1 : words.index("--")] if "--configfile" in words else []
        overlays = tuple(map(Path, own))
        found.append(Group(name, overlays, config.load(overlays), definition))
    return found


def group_of(study: Mapping[str, Any]) -> Group:
    """Return the group of a study.

    Args:
        study: the whole configuration.

    Raises:
        NotVersionedError: if dvc.yaml has none, or one of another configuration: DVC would record results under
            options that they were not made with.
    """
    name = study["study"]
    for group in groups():
        if group.config["study"] == name:
            if group.config != study:
                files = " and ".join(map(str, (config.BASE, *group.overlays)))
                raise NotVersionedError(
                    f"this is not the configuration of {files}, which {PIPELINE} watches for study {name}"
                )
            if group.definition != definition(study, group.overlays):
                raise NotVersionedError(
                    f"{PIPELINE} was written for other cells of study {name}; `{_command(group.overlays)}` writes it "
                    "again"
                )
            return group
    raise NotVersionedError(
        f"{PIPELINE} has no stages for study {name}; `targetwise stages`, with its --configfile, writes them"
    )


def write(study: Mapping[str, Any], overlays: Sequence[Path]) -> str:
    """Write the group of a study into dvc.yaml, whose other groups stay; return its name.

    Args:
        study: the whole configuration.
        overlays: the files that it was laid over config.yaml from.

    Raises:
        UserError: if DVC cannot watch the study.
    """
    name = str(study["study"]) if overlays else BASE_GROUP
    content = {**(_read() if PIPELINE.exists() else {}), name: definition(study, overlays)}
    text = yaml.dump(
        {"stages": content},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
        default_flow_style=None,
    )
    write_text(PIPELINE, HEADER + text)
    return name


def definition(study: Mapping[str, Any], overlays: Sequence[Path]) -> dict[str, Any]:
    """Return a study's group as dvc.yaml has it: a cell is an item, and all share one template.

    Raises:
        UserError: if cells have different numbers of draws, which one template cannot list.
    """
    contents = {path: read_yaml(path) for path in (config.BASE, *overlays)}
    grid = cells.grid(study)
    draws = {name: [draw.name for draw in cells.draws(study, name)] for name in study["grid"]["parameterizations"]}
    sources = {cell.name: _sources(study, cell) for cell in grid}
    counts = {len(each) for each in draws.values()}
    if len(counts) > 1:
        raise UserError(f"DVC needs the same number of draws for every cell; study {study['study']} has {counts}")
    most = max(map(len, sources.values()))
    items = {}
    for cell in grid:
        name = cell.parameterization
        items[cell.name] = {
            "folder": str(cell.folder),
            **_numbered("source", [*sources[cell.name], *sources[cell.name][:1] * most][:most]),
            **_numbered("draw", draws[name]),
            **_numbered("variant", [_defined(each, "parameterizations", name) for each in contents.values()]),
            **_numbered("scale", [_defined(each, "scales", cell.scale) for each in contents.values()]),
        }
    kept = [f"${{item.folder}}/{name}" for name in TRAINED]
    kept += [
        f"${{item.folder}}/samples/${{item.draw{i}}}.{end}" for i in range(max(counts)) for end in ("npz", "json")
    ]
    rows = [f"${{item.folder}}/fid/${{item.draw{i}}}.json" for i in range(max(counts))]
    check = f"python workflow/scripts/version.py --study results/{study['study']}/study.json --check ${{key}}"
    return {
        "foreach": items,
        "do": {
            "cmd": [f"snakemake --cores all{config.option(overlays)} -- {' '.join([*kept, *rows])}", check],
            "deps": [f"${{item.source{i}}}" for i in range(most)],
            "params": [
                {"src/targetwise/cells/specification.py": ["PROTOCOL"]},
                *(
                    {str(path): [f"${{item.variant{i}}}", f"${{item.scale{i}}}", *_watched(study, contents, path)]}
                    for i, path in enumerate(contents)
                ),
            ],
            "outs": [{path: {"persist": True}} for path in kept],
            "metrics": [{path: {"persist": True}} for path in rows],
        },
    }


def _sources(study: Mapping[str, Any], cell: Cell) -> list[str]:
    """Return the files of ``workflow/`` that a cell's training, samples and rows are defined in."""
    resolved = config.variant(study, cell.parameterization)
    network = variants.network(study, cell.parameterization, cell.scale)
    files = cells.source_files(resolved, network)
    for sampling in variants.samplings(study, cell.parameterization).values():
        files += cells.sampling_files(resolved, network, sampling)
    files += [kinds.file_of("metrics", name) for name in study["metric"]["names"]]
    return list(dict.fromkeys(map(str, files)))


class _Dumper(yaml.SafeDumper):
    """Writes what is there twice twice: DVC's own reader of the file would take an alias, but no person would."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _read() -> dict[str, Any]:
    return dict(read_yaml(PIPELINE)["stages"])


def _command(overlays: Sequence[Path]) -> str:
    return f"targetwise stages{config.option(overlays)}"


def _numbered(name: str, values: Sequence[str]) -> dict[str, str]:
    return {f"{name}{index}": value for index, value in enumerate(values)}


def _defined(content: Mapping[str, Any], section: str, name: str) -> str:
    """Return what to watch in a file for a name's definition: that of the sweep it is of, or itself."""
    defined = content.get(section) or {}
    own = [each for each in defined if name.startswith(f"{each}_") and "each" in (defined[each] or {})]
    return f"{section}.{name if name in defined else max(own, key=len)}" if own or name in defined else NOTHING


def _watched(study: Mapping[str, Any], contents: Mapping[Path, Mapping[str, Any]], path: Path) -> list[str]:
    """Return the fields that a file decides: those it sets, and no file above it does."""
    files = list(contents)
    above = {field for file in files[files.index(path) + 1 :] for field in _fields(study, contents[file])}
    return [field for field in _fields(study, contents[path]) if field not in above]


def _fields(study: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    wanted = {section: variants.decisive(section, content[section]) for section in SECTIONS if section in content}
    samplings, names = content.get("samplings") or {}, study["grid"].get("samplings", [])
    wanted |= {
        f"samplings.{name}": variants.decisive("sampling", samplings[name]) for name in names if name in samplings
    }
    fields = [field for section, below in wanted.items() for field in _leaves(below, section)]
    dataset = study["data"]["dataset"]
    if dataset in (content.get("datasets") or {}):
        fields.append(f"datasets.{dataset}.kind")
    return fields


def _leaves(content: Any, place: str) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, f"{place}.{key}")
    else:
        yield place
