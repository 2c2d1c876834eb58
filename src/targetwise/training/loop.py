"""Train one cell: the same data, noise and initial weights for every parameterization of a seed.

The loop knows no parameterization's name. What a step draws depends on (seed, step) only, so a run that was killed
and resumed ends with the weights of the run that was not.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from targetwise.cells import source_digests, source_files, training_key
from targetwise.cells.outcome import check_outcome, clipped_share, read_outcome
from targetwise.compute.ahead import ahead
from targetwise.compute.device import choose
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.diffusion.randomness import StepDraw
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import (
    canonical_json,
    read_json_lines,
    sha256_of_file,
    write_bytes,
    write_json,
    write_text,
)
from targetwise.jobs.kept import Kept
from targetwise.progress import Progress
from targetwise.provenance import environment
from targetwise.training.formats import settled, used
from targetwise.training.state import StateFolder
from targetwise.training.stopping import Stop
from targetwise.training.trainer import Trainer

#: Several processes agree on stopping every this many steps.
AGREE_EVERY = 10

#: Threads that draw the coming steps' noise. A GPU takes a step in less time than one core draws its noise.
DRAWING_THREADS = {"cpu": 1, "cuda": 4}

#: What a training makes; the file that says what it is comes last.
OUTPUTS = ("model.safetensors", "train.jsonl", "training.json")

#: The share of the time that saving state may take.
SAVING_SHARE = 0.01


def train(
    specification: Mapping[str, Any],
    images: Images,
    folder: Path,
    *,
    save_every_seconds: float,
    stop: Stop,
    world: World = ALONE,
    wait: bool = False,
) -> dict[str, Any]:
    """Train one cell to its end, from its last saved state if there is one, and publish the result.

    A result that is there or kept already, of the very same specification, code files and data, is taken as it is.

    Args:
        specification: the content of ``cell.json``.
        images: the training split.
        folder: the cell's; receives ``model.safetensors`` (the EMA weights, with stored averages and snapshots),
            ``train.jsonl`` and, last, ``training.json``. ``state/train`` is in it until then, and ``kept/train`` from
            then on (kept.py).
        save_every_seconds: between two saved states.
        stop: says when to stop early.
        world: the processes that train the cell together.
        wait: whether to wait while another trainer has the cell (only one process can).

    Returns:
        The content of ``training.json`` (nothing in processes other than the main one). A training whose loss is
        not finite is a result too: its ``status`` is ``diverged``.

    Raises:
        StoppedEarlyError: if ``stop`` asked for it; the state is saved.
        UserError: if the cell is in use, or its data or parameterization do not fit.
    """
    sources = source_digests(source_files(specification["variant"], specification["network"]))
    target = parameterization.load(specification["variant"]["target"])
    loss_space = parameterization.load(specification["variant"]["loss_space"])
    key = training_key(specification, sources, images.digest)
    device = choose(specification["training"]["threads"], world, stop.__bool__)
    cell = specification["cell"]
    what = f"train {cell['parameterization']}-{cell['scale']}-{cell['seed']}"

    def why() -> str:
        return stop.reason if stop else ""

    states = StateFolder(folder / "state/train", key)
    kept = Kept(folder / "kept/train", key, [folder / name for name in OUTPUTS])
    wait = wait and world.size == 1
    with states.held(why, wait=wait) if world.is_main else nullcontext():
        if not world.any(world.is_main and (_is_published(folder, key) or kept.put_back())):
            own = settled(specification, images, device, world=world, stop=why)
            trainer = Trainer(own, images, target, loss_space, device, world)
            log = TrainingLog(states.path / "train.jsonl")
            _resume(trainer, log, states, world)
            began = time.monotonic()
            savings = Savings(states, save_every_seconds, began)
            divergence = _run(trainer, log, savings, stop, what)
            if world.is_main:
                _publish(trainer, log, kept, specification, sources, divergence, savings)
        if not world.is_main:
            return {}
        states.remove()
        outcome = read_outcome(folder / "training.json")
    return outcome


def _is_published(folder: Path, key: str) -> bool:
    """Return whether the result of the very same cell is whole in the folder.

    Raises:
        UserError: if what is there was not trained by this loop, so that it must not be replaced.
    """
    model, curve, facts = (folder / name for name in OUTPUTS)
    if not (facts.exists() and model.exists() and curve.exists()):
        return False
    outcome = read_outcome(facts)
    if "key" not in outcome:
        raise UserError(f"{facts} is of a training by a rule of your own; delete it to train the cell by rule train")
    return bool(outcome["key"] == key and outcome["model_sha256"] == sha256_of_file(model))


def _resume(trainer: Trainer, log: "TrainingLog", states: StateFolder, world: World) -> None:
    """Bring every process to the newest whole state; the main one looks first and removes what is damaged."""
    saved = states.load() if world.is_main else None
    world.barrier()
    if not world.is_main:
        saved = states.load()
    if saved is not None:
        trainer.restore(saved, states.path)
    if world.any(world.sum(torch.tensor(float(trainer.step))).item() != trainer.step * world.size):
        raise UserError(f"the processes see different states in {states.path}; it must be on a shared file system")
    if world.is_main:
        log.cut(trainer.step)


def _run(trainer: Trainer, log: "TrainingLog", savings: "Savings", stop: Stop, what: str) -> dict[str, Any] | None:
    """Train to the end, or to a loss that is not finite, which is then returned."""
    world, steps = trainer.world, trainer.options["steps"]
    with (
        Progress(what, steps, "step", trainer.step, silent=not world.is_main) as progress,
        prefetched(trainer.draw, trainer.step, trainer.device) as draws,
    ):
        while trainer.step < steps:
            trainer.advance(next(draws))
            note = ""
            if trainer.window_is_full() or trainer.step == steps:
                line = trainer.summarize()
                if world.is_main:
                    log.append(line)
                note = f"loss {line['loss']:.4f}" if line["loss"] is not None else "loss not finite"
                if "diverged" in line:
                    divergence: dict[str, Any] = line["diverged"]
                    return divergence
            progress.advance(1, note)
            if trainer.step == steps:
                break
            # Asking one another costs a wait for the device, so several processes do it only now and then.
            ask = world.size == 1 or trainer.step % AGREE_EVERY == 0
            stopping = ask and world.any(bool(stop))
            if world.is_main and (stopping or savings.due()):
                savings.save(trainer)
            if stopping and stop.interrupted:
                raise KeyboardInterrupt
            if stopping:
                reason = stop.reason or "another process was asked to stop"
                raise StoppedEarlyError(f"{what}: {reason}; state saved after step {trainer.step} of {steps}")
    return None


class Savings:
    """When the state is saved: at intervals, and so seldom that it takes at most a hundredth of the time."""

    def __init__(self, states: StateFolder, every_seconds: float, began: float) -> None:
        """Save to ``states``; ``began`` is when this process began to train."""
        self.states = states
        self.every_seconds = every_seconds
        self.began = self.saved_at = began
        self.seconds = 0.0
        self.last_took = 0.0

    def due(self) -> bool:
        """Return whether it is time; an interval of 0 means after every step, whatever it costs."""
        interval = max(self.every_seconds, self.last_took / SAVING_SHARE) if self.every_seconds else 0.0
        return time.monotonic() - self.saved_at >= interval

    def save(self, trainer: Trainer) -> None:
        """Save the trainer's state."""
        began = time.monotonic()
        self.states.save(trainer.step, trainer.state(began - self.began))
        self.saved_at = time.monotonic()
        self.last_took = self.saved_at - began
        self.seconds += self.last_took


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
        """Forget the lines after ``step``: the steps they record are taken again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def prefetched(
    draw: Callable[[int], StepDraw], first: int, device: torch.device
) -> AbstractContextManager[Iterator[StepDraw]]:
    """Yield the draws of steps ``first``, ``first + 1``, …, made in threads while ``device`` uses earlier ones."""
    return ahead(draw, itertools.count(first), DRAWING_THREADS[device.type])


def _publish(
    trainer: Trainer,
    log: TrainingLog,
    kept: Kept,
    specification: Mapping[str, Any],
    sources: Mapping[str, str],
    divergence: dict[str, Any] | None,
    savings: Savings,
) -> None:
    model, curve, facts = map(kept.path, kept.outputs)
    # One metadata entry only: safetensors does not fix the order of several, and the digest must not vary.
    cell = {"cell": canonical_json(specification["cell"])}
    write_bytes(model, save(trainer.stored_weights(), metadata=cell))
    write_bytes(curve, log.path.read_bytes())
    lines = log.lines()
    outcome = {
        "status": "diverged" if divergence else "finished",
        "reason": f"the loss was not finite at step {divergence['step']}" if divergence else None,
        "divergence": divergence,
        "steps": trainer.step,
        "images": trainer.step * trainer.options["global_batch"],
        "final_loss": lines[-1]["loss"],
        "clipped_share": clipped_share(lines),
        "model_sha256": sha256_of_file(model),
        "parameters": sum(parameter.numel() for parameter in trainer.parameters),
        "out_channels": trainer.out_channels,
        "key": kept.key,
        "sources": sources,
        "device": trainer.device.type,
        "formats": used(trainer.options, trainer.device.type),
        "processes": trainer.world.size,
        "continued": trainer.continued,
        "seconds": trainer.seconds + time.monotonic() - savings.began,
        "seconds_saving_state": savings.seconds,
        "finished_at": time.time(),
        "environment": environment(),
    }
    check_outcome(outcome, facts)
    write_json(facts, outcome)
    kept.finish()
