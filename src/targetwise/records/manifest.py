"""The manifest of a cell: everything its number was made from and with, in one small file.

It is gathered from what the stages recorded when they ran. Nothing in it comes from the process that writes it, so
the same records give the same manifest, wherever it is written.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Draw
from targetwise.config import source_digests, source_files
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import canonical_json, read_json, sha256_of_file, sha256_of_json, write_json
from targetwise.metric.rows import read_row
from targetwise.outcome import read_outcome
from targetwise.schema import violations

NAME = "manifest.json"
SCHEMA = Path("workflow/schemas/manifest.schema.yaml")


def write(folder: Path) -> None:
    """Write ``manifest.json`` of the cell that lies finished in ``folder``.

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
    study, variant = folder.parents[2], folder.parents[1]
    draws = cells.draws(read_json(study / "study.json"), variant.name)
    options = [
        cells.sampling_file(study, variant.name, sampler) for sampler in dict.fromkeys(d.sampler for d in draws)
    ]
    paths = (folder / "cell.json", *options, study / "metric.json")
    configuration = {path.name: read_json(path) for path in paths}
    specification = configuration["cell.json"]
    training = read_outcome(folder / "training.json")
    sources = source_digests(source_files(specification["variant"], specification["network"]))
    images = store.prepared_digest(specification["data"]["dataset"])
    _require_trained_from(folder, training, specification, sources, images)
    made = [_draw(folder, draw, configuration[f"sampling-{draw.sampler}.json"], training) for draw in draws]
    described = [_described(folder, draw, facts, row) for draw, (facts, row) in zip(draws, made, strict=True)]
    stages = [("train", training)]
    for label, (facts, row) in zip(labels(described), made, strict=True):
        stages += [(f"sample {label}", facts), (f"measure {label}", row)]
    return {
        "cell": specification["cell"],
        "configuration": configuration,
        "configuration_sha256": {name: sha256_of_json(each) for name, each in configuration.items()},
        "code": {
            "parameterizations": sources,
            "check_sha256": sha256_of_file(variant / "check.json"),
        },
        "data": {
            "dataset": specification["data"]["dataset"],
            "train_sha256": images,
            **_reference(folder, [row for _, row in made]),
        },
        "training": {
            **{
                name: training.get(name)
                for name in ("status", "reason", "steps", "final_loss", "device", "processes")
            },
            "finished_at": datetime.fromtimestamp(training["finished_at"], UTC).isoformat(timespec="seconds"),
            "key": training.get("key"),
            "model_sha256": training["model_sha256"],
            "log_sha256": sha256_of_file(folder / "train.jsonl"),
        },
        "draws": described,
        "seconds": {stage: record["seconds"] for stage, record in stages},
        "environments": _environments(stages),
    }


def labels(draws: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to call each of a manifest's draws: ``draw 0``, after the sampler where there are several."""
    several = len({draw["sampler"] for draw in draws}) > 1
    return [f"{draw['sampler']} draw {draw['draw']}" if several else f"draw {draw['draw']}" for draw in draws]


def _require_trained_from(
    folder: Path,
    training: Mapping[str, Any],
    specification: Mapping[str, Any],
    sources: Mapping[str, str],
    images: str,
) -> None:
    """Make sure that the files which lie here now are those the cell was trained with: its key is made of them.

    A training by somebody's own rule may record no key; the manifest then says so.
    """
    key = training.get("key")
    if key is not None and key != cells.training_key(specification, sources, images):
        raise UserError(
            f"{folder / 'training.json'} records a training with another configuration, parameterization or data "
            "set than what lies here now; run the cell again"
        )


def _draw(
    folder: Path, draw: Draw, sampling: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of a sample set and its row."""
    samples, measured = (folder / stage / f"{draw.name}.json" for stage in ("samples", "fid"))
    facts, row = read_json(samples), read_row(measured)
    if facts["model_sha256"] != training["model_sha256"] or facts["sampling"] != sampling:
        raise UserError(f"{samples} records another model or other sampling options; run the cell again")
    if (row["samples_sha256"], row["model_sha256"]) != (facts["samples_sha256"], facts["model_sha256"]):
        raise UserError(f"{measured} was measured on other samples than {samples} records; run the cell again")
    return facts, row


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
