"""Where a study's numbers come from: code, versions, machines and time, gathered from what the jobs recorded."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import rows
from targetwise.cells.outcome import read_outcome
from targetwise.files import read_json, sha256_of_json
from targetwise.recipe import images

Record = tuple[str, dict[str, Any]]


def origins(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of all stages that are done.

    Returns:
        ``configuration`` (SHA-256 of study.json's canonical text), ``stages`` (name, count, seconds), ``commits``
        (commit, modified, count), ``machines`` (description, count), ``versions`` (package, versions; more than one
        where jobs disagree), ``digests`` (what, SHA-256), and ``trained`` (first and last end of a training, UTC,
        or None).
    """
    records = list(_records(config))
    stages: dict[str, list[float]] = {}
    for stage, record in records:
        stages.setdefault(stage, []).append(record["seconds"])
    environments = [record["environment"] for _, record in records]
    ends = sorted(record["finished_at"] for stage, record in records if stage == "train")
    return {
        "configuration": sha256_of_json(config),
        "stages": [
            {"name": name, "count": len(seconds), "seconds": sum(seconds)} for name, seconds in stages.items()
        ],
        "commits": [
            {"commit": commit, "modified": modified, "count": count}
            for (commit, modified), count in _tally(
                (environment["code"]["commit"], environment["code"]["modified"]) for environment in environments
            )
        ],
        "machines": [{"machine": machine, "count": count} for machine, count in _tally(map(_machine, environments))],
        "versions": _versions(environments),
        "digests": _digests(record for stage, record in records if stage in ("measure", "bounds")),
        "trained": [_utc(ends[0]), _utc(ends[-1])] if ends else None,
    }


def _records(config: Mapping[str, Any]) -> Iterable[Record]:
    study = cells.RESULTS / config["study"]
    for cell in cells.grid(config):
        trained = cell.folder / "training.json"
        if trained.exists():
            yield "train", read_outcome(trained)
        draws = cells.draws(config, cell.parameterization)
        paths = [("sample", cell.folder / "samples" / f"{draw.name}.json") for draw in draws]
        paths += [("measure", cell.folder / "fid" / f"{draw.name}.json") for draw in draws]
        yield from ((stage, read_json(path)) for stage, path in paths if path.exists())
    yield from (("bounds", row) for row in bounds(config, study).values())


def bounds(config: Mapping[str, Any], study: Path) -> dict[tuple[str, str] | str, dict[str, Any]]:
    """Return the rows ``floor`` and ``exact``, and of ceilings by (parameterization, scale), those there are."""
    axes = config["grid"]
    paths: dict[tuple[str, str] | str, Path] = {"floor": study / "floor.json"}
    if images.has_exact(config):
        paths["exact"] = study / "exact.json"
    for name in axes["parameterizations"]:
        paths.update({(name, scale): study / name / scale / "ceiling.json" for scale in axes["scales"]})
    return {key: rows.read_row(path) for key, path in paths.items() if config["bounds"] and path.exists()}


def _tally(items: Iterable[Any]) -> list[tuple[Any, int]]:
    counts: dict[Any, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return sorted(counts.items(), key=lambda entry: -entry[1])


def _machine(environment: Mapping[str, Any]) -> str:
    machine = environment["machine"]
    parts = [machine["host"], machine["cpu"], f"{machine['cores']} cores", machine["system"]]
    if "gpu" in machine:
        parts.insert(1, f"{machine['gpus']} × {machine['gpu']} (CUDA {machine['cuda']})")
    return ", ".join(parts)


def _versions(environments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, set[str]] = {}
    for environment in environments:
        for package, version in environment["versions"].items():
            found.setdefault(package, set()).add(version)
    return [{"package": package, "versions": sorted(versions)} for package, versions in sorted(found.items())]


def _digests(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    named: dict[tuple[str, str], None] = {}
    for row in rows:
        named[f"extractor {row['extractor']} ({row['mode']})", row["extractor_sha256"]] = None
        named[f"reference {row['reference']} ({row['reference_n']:,} images)", row["reference_sha256"]] = None
    return [{"what": what, "sha256": sha256} for what, sha256 in sorted(named)]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
