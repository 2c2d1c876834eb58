"""Train one cell: the same data, noise and initial weights for every parameterization of a seed.

The loop knows no parameterization's name. What a step draws depends on (seed, step) only, so a run that was killed
and resumed ends with the weights of the run that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save

from targetwise import parameterization
from targetwise.data import Images
from targetwise.device import choose
from targetwise.errors import StoppedEarlyError
from targetwise.files import (
    atomic,
    canonical_json,
    read_json_lines,
    sha256_of_file,
    sha256_of_text,
    write_json,
    write_text,
)
from targetwise.progress import Progress
from targetwise.provenance import environment
from targetwise.randomness import StepDraw
from targetwise.state import StateFolder
from targetwise.stopping import Stop
from targetwise.trainer import Trainer


def train(
    specification: Mapping[str, Any],
    images: Images,
    folder: Path,
    *,
    save_every_seconds: float,
    stop: Stop,
) -> dict[str, Any]:
    """Train one cell to its end, from its last saved state if there is one, and publish the result.

    Args:
        specification: the content of ``cell.json``.
        images: the training split.
        folder: the cell's; receives ``model.safetensors`` (the EMA weights), ``train.jsonl`` and, last,
            ``training.json``. ``state/`` lies in it until then.
        save_every_seconds: between two saved states.
        stop: says when to stop early.

    Returns:
        The content of ``training.json``. A training whose loss is not finite is a result too: its ``status`` is
        ``diverged``.

    Raises:
        StoppedEarlyError: if ``stop`` asked for it; the state is saved.
        UserError: if the cell is in use, or its data or parameterization do not fit.
    """
    target = parameterization.load(specification["variant"]["target"])
    loss_space = parameterization.load(specification["variant"]["loss_space"])
    key = sha256_of_text(canonical_json([specification, target.digest, loss_space.digest, images.digest]))
    device = choose(specification["training"]["threads"])
    steps = specification["training"]["steps"]
    cell = specification["cell"]
    what = f"train {cell['parameterization']}-{cell['scale']}-{cell['seed']}"

    states = StateFolder(folder / "state", key)
    with states.locked():
        trainer = Trainer(specification, images, target, loss_space, device)
        log = TrainingLog(folder / "state" / "train.jsonl")
        saved = states.load()
        if saved is not None:
            trainer.restore(saved)
        log.cut(trainer.step)

        began, saved_at = time.monotonic(), time.monotonic()
        divergence = None
        with (
            Progress(what, steps, "step", trainer.step) as progress,
            prefetched(trainer.draw, trainer.step) as draws,
        ):
            while trainer.step < steps:
                trainer.advance(next(draws))
                note = ""
                if trainer.window_is_full() or trainer.step == steps:
                    line = trainer.summarize()
                    log.append(line)
                    note = f"loss {line['loss']:.4f}" if line["loss"] is not None else "loss not finite"
                    divergence = line.get("diverged")
                progress.advance(1, note)
                if trainer.step == steps or divergence is not None:
                    break
                stopping = bool(stop)
                if stopping or time.monotonic() - saved_at > save_every_seconds:
                    states.save(trainer.step, trainer.state(time.monotonic() - began))
                    saved_at = time.monotonic()
                if stop.interrupted:
                    raise KeyboardInterrupt
                if stopping:
                    raise StoppedEarlyError(
                        f"{what}: {stop.reason}; state saved after step {trainer.step} of {steps}"
                    )
        outcome = _publish(trainer, log, folder, specification, divergence, time.monotonic() - began, key)
    states.remove()
    return outcome


class TrainingLog:
    """``train.jsonl``: a line per window, none of them twice after a resume."""

    def __init__(self, path: Path) -> None:
        """Keep the log at ``path``."""
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines."""
        return read_json_lines(self.path) if self.path.exists() else []

    def cut(self, step: int) -> None:
        """Forget the lines after ``step``: the steps they tell of are taken again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


@contextmanager
def prefetched(draw: Callable[[int], StepDraw], first: int) -> Iterator[Iterator[StepDraw]]:
    """Yield the draws of steps ``first``, ``first + 1``, …, each made in a thread while the one before is used."""

    def draws() -> Iterator[StepDraw]:
        step = first
        coming = executor.submit(draw, step)
        while True:
            ready = coming.result()
            step += 1
            coming = executor.submit(draw, step)
            yield ready

    with ThreadPoolExecutor(1) as executor:
        yield draws()


def _publish(
    trainer: Trainer,
    log: TrainingLog,
    folder: Path,
    specification: Mapping[str, Any],
    divergence: dict[str, Any] | None,
    seconds: float,
    key: str,
) -> dict[str, Any]:
    model = folder / "model.safetensors"
    with atomic(model) as temporary:
        # One metadata entry only: safetensors does not fix the order of several, and the digest must not vary.
        cell = {"cell": canonical_json(specification["cell"])}
        temporary.write_bytes(save(trainer.ema_weights(), metadata=cell))
    with atomic(folder / "train.jsonl") as temporary:
        temporary.write_bytes(log.path.read_bytes())
    lines = log.lines()
    outcome = {
        "status": "diverged" if divergence else "finished",
        "reason": f"the loss was not finite at step {divergence['step']}" if divergence else None,
        "divergence": divergence,
        "steps": trainer.step,
        "images": trainer.step * trainer.options["global_batch"],
        "final_loss": lines[-1]["loss"],
        "clipped_share": math.fsum(line["clipped_share"] for line in lines) / len(lines),
        "model_sha256": sha256_of_file(model),
        "parameters": sum(parameter.numel() for parameter in trainer.parameters),
        "out_channels": trainer.out_channels,
        "key": key,
        "device": trainer.device.type,
        "seconds": trainer.seconds + seconds,
        "finished_at": time.time(),
        "environment": environment(),
    }
    write_json(folder / "training.json", outcome)
    return outcome
