"""The manifest of a cell: everything its number was made from and with, in one small file.

It is gathered from what the stages recorded when they ran. Nothing in it comes from the process that writes it, so
the same records give the same manifest, wherever it is written.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell, Draw, source_digests
from targetwise.cells.agreement import SAMPLES, TRAINING, Agreement
from targetwise.cells.rows import read_row
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import canonical_json, read_json, sha256_of_file, sha256_of_json, write_json
from targetwise.recipe import kinds, variants
from targetwise.recipe.schema import violations

NAME = "manifest.json"
SCHEMA = Path("workflow/schemas/manifest.schema.yaml")


def write(folder: Path) -> None:
    """Write ``manifest.json`` of the finished cell in ``folder``.

    Raises:
        UserError: if a record is missing or damaged, or one does not belong to the others.
    """
    content = gather(folder)
    _check(content, folder / NAME)
    write_json(folder / NAME, content)


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of the cell in ``folder``.

    Raises:
        UserError: if it is missing, damaged or incomplete.
    """
    content: dict[str, Any] = read_json(folder / NAME)
    _check(content, folder / NAME)
    return content


def gather(folder: Path) -> dict[str, Any]:
    """Return the content of a cell's manifest; ``workflow/schemas/manifest.schema.yaml`` says what is in it.

    Args:
        folder: the cell's, in ``results/<study>/<parameterization>/<scale>/``.

    Raises:
        UserError: if a record is missing or damaged, or one does not belong to the others.
    """
    variant, study = folder.parents[1], folder.parents[2]
    agreement = Agreement(read_json(study / "study.json"))
    cell = Cell(study.name, variant.name, folder.parent.name, int(folder.name.removeprefix("seed")))
    found = agreement.require(cell)
    draws = cells.draws(agreement.config, variant.name)
    samplers = variants.samplings(agreement.config, variant.name)
    options = [cells.sampling_file(study, variant.name, sampler) for sampler in samplers]
    paths = (folder / "cell.json", *options, study / "metric.json")
    configuration = {path.name: agreement.specifications[path] for path in paths}
    specification, training = configuration["cell.json"], found[TRAINING, None]
    made = [(found[SAMPLES, draw], read_row(folder / "fid" / f"{draw.name}.json")) for draw in draws]
    described = [_described(folder, draw, facts, row) for draw, (facts, row) in zip(draws, made, strict=True)]
    stages = [("train", training)]
    for label, (facts, row) in zip(labels(described), made, strict=True):
        stages += [(f"sample {label}", facts), (f"measure {label}", row)]
    return {
        "cell": specification["cell"],
        "configuration": configuration,
        "configuration_sha256": {name: sha256_of_json(each) for name, each in configuration.items()},
        "code": {
            "sources": _sources(agreement.config, training, [facts for facts, _ in made]),
            "check_sha256": sha256_of_file(variant / "check.json"),
        },
        "data": {
            "dataset": specification["data"]["dataset"],
            "train_sha256": store.prepared_digest(specification["data"]["dataset"]),
            **_reference(folder, [row for _, row in made]),
        },
        "training": {
            **{
                name: training.get(name)
                for name in ("status", "reason", "steps", "final_loss", "device", "processes", "formats")
            },
            "finished_at": datetime.fromtimestamp(training["finished_at"], UTC).isoformat(timespec="seconds"),
            "key": training.get("key"),
            "continued": training.get("continued", []),
            "model_sha256": training["model_sha256"],
            "log_sha256": sha256_of_file(folder / "train.jsonl"),
        },
        "draws": described,
        "seconds": {stage: record["seconds"] for stage, record in stages},
        "environments": _environments(stages),
    }


def _sources(
    config: Mapping[str, Any], training: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the SHA-256 of each file of ``workflow/`` that training, samples and rows are defined in."""
    metrics = source_digests(kinds.file_of("metrics", name) for name in config["metric"]["names"])
    recorded = [training.get("sources", {}), *(facts["sources"] for facts in samples)]
    return {path: digest for sources in (*recorded, metrics) for path, digest in sources.items()}


def labels(draws: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to call each of a manifest's draws: ``draw 0``, after the sampler where there are several."""
    several = len({draw["sampler"] for draw in draws}) > 1
    return [f"{draw['sampler']} draw {draw['draw']}" if several else f"draw {draw['draw']}" for draw in draws]


def _described(folder: Path, draw: Draw, facts: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{
            name: row[name]
            for name in ("draw", "status", "reason", "n", "metric", "name", "value", "values", "marks", "sampler")
        },
        "samples_sha256": facts["samples_sha256"],
        "row_sha256": sha256_of_file(folder / "fid" / f"{draw.name}.json"),
    }


def _reference(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all draws were measured with and against."""
    compared = ("reference", "reference_sha256", "reference_n")
    names = (*compared, "extractor", "extractor_sha256", "mode", "implementation")
    first, *others = [{name: row[name] for name in names} for row in rows]
    if any(other != first for other in others):
        raise UserError(f"the draws of {folder} were measured against different references; run the cell again")
    return first


def _environments(stages: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return each recorded environment once, with the stages that ran in it."""
    found: dict[str, dict[str, Any]] = {}
    for stage, record in stages:
        entry = found.setdefault(canonical_json(record["environment"]), {"stages": [], **record["environment"]})
        entry["stages"].append(stage)
    return list(found.values())


def _check(content: Mapping[str, Any], path: Path) -> None:
    for error in violations(content, SCHEMA)[:1]:
        place = ".".join(str(part) for part in error.absolute_path)
        raise UserError(f"{path}: not a whole manifest: {place + ': ' if place else ''}{error.message}")
