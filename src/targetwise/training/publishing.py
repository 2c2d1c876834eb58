"""Publish what a user's own procedure trained, as the result of a cell.

The stages after the training then treat the cell like any other; docs/extending.md shows how.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from targetwise.cells import Cell, model_files, source_digests
from targetwise.cells.outcome import check_curve, check_outcome, clipped_share
from targetwise.data import store
from targetwise.diffusion import parameterization
from targetwise.errors import UserError
from targetwise.files import atomic, canonical_json, read_json, sha256_of_file
from targetwise.provenance import environment
from targetwise.sampling.denoiser import Denoiser
from targetwise.training.formats import decided


def publish(
    specification: Path,
    model: Path,
    curve: Path,
    *,
    status: str = "finished",
    reason: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Write ``model.safetensors``, ``train.jsonl`` and ``training.json`` beside a cell's specification.

    They replace what is there when all is checked and written, ``training.json`` last. It holds no key, which only
    the pipeline's own training has, and the environment of this process: call it where you train.

    Args:
        specification: the cell's ``cell.json``.
        model: the weights to sample from, a safetensors file whose tensors have the names and shapes of the cell's
            network (:func:`targetwise.diffusion.network.build`), and those of the snapshots that the cell declares.
        curve: a JSON-lines file with ``step``, ``loss`` and ``time`` (seconds since 1970) in every line;
            ``workflow/schemas/curve.schema.yaml`` says what else a line may hold.
        status: ``finished``, or ``diverged``: a result too, which is not sampled.
        reason: why it diverged, in one line.
        seconds: what the training took; by default the time from the curve's first line to its last.

    Returns:
        The content of ``training.json``.

    Raises:
        UserError: if a file cannot be read or does not fit, or the rest makes no sense; nothing is written then.
    """
    cell = _read_specification(specification)
    lines = _read_lines(curve)
    if status == "finished" and lines[-1]["loss"] is None:
        raise UserError(f"{curve}: the last loss is not finite; say so with --status diverged --reason '…'")
    target = parameterization.load(cell["variant"]["target"])
    plain = decided(cell, {"precision": "fp32", "compile": False})  # only to see whether the weights fit
    denoiser = Denoiser(plain, store.training_images(cell), target, torch.device("cpu"))
    denoiser.load(model)
    for step in cell["training"].get("snapshots", ()) if status == "finished" else ():
        denoiser.load(model, snapshot=step)
    folder = specification.parent
    variant = cell["variant"]
    outcome: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "steps": lines[-1]["step"],
        "final_loss": lines[-1]["loss"],
        "model_sha256": sha256_of_file(model),
        "sources": source_digests(model_files(variant, cell["network"])),
        "seconds": lines[-1]["time"] - lines[0]["time"] if seconds is None else seconds,
        "finished_at": lines[-1]["time"],
        "environment": environment(),
    }
    clipped = clipped_share(lines)
    if clipped is not None:
        outcome["clipped_share"] = clipped
    check_outcome(outcome, folder / "training.json")
    with (
        atomic(folder / "training.json") as facts_part,
        atomic(folder / "train.jsonl") as curve_part,
        atomic(folder / "model.safetensors") as model_part,
    ):
        shutil.copyfile(model, model_part)
        curve_part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        facts_part.write_text(canonical_json(outcome), encoding="utf-8")
    return outcome


def _read_specification(path: Path) -> dict[str, Any]:
    content = read_json(path)
    try:
        if Cell(**content["cell"]).folder == path.parent.absolute().relative_to(Path.cwd()):
            return dict(content)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path} is not a cell.json of results/<study>/<parameterization>/<scale>/seed<n>/")


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
    """Read a curve; unlike one of ours, its last line may have no end."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(f"{path} {'does not exist' if missing else f'cannot be read ({error})'}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error})") from None
    if not lines:
        raise UserError(f"{path} has no lines")
    check_curve(lines, path, every_value=True)
    return lines
