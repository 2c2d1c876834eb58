"""Which number format is faster on this CPU, and whether compiling pays: measured with a cell's own network.

In a process of its own, so that a training which measured first is the same, bit by bit, as one that did not: what
PyTorch compiles depends on the shapes that its process has seen before.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from targetwise import errors
from targetwise.errors import StoppedEarlyError, UserError, in_one_line

AUTO = "auto"

#: Number formats that a CPU may compute in. Where speeds are alike it is the first.
FORMATS = ("fp32", "bf16")

#: How many times as fast bf16, or a compiled network, must be to be chosen.
CLEARLY, SLIGHTLY = 1.1, 1.05

#: Compiling takes minutes, so it is tried where a training takes longer than this many seconds.
LONG = 3600.0

#: A candidate that is so many times as slow as another takes so many turns and no more.
HOPELESS, PATIENCE = 2.0, 3

#: Images in a measured step, at most.
IMAGES = 8

#: Candidates take turns this many times at most, and at least; in between until so many seconds are over.
MOST_ROUNDS, LEAST_ROUNDS, SECONDS = 50, 2, 10.0

#: Takes one training step and returns its seconds.
Step = Callable[[], float]

POLL_SECONDS = 0.5


def measure(
    specification: Mapping[str, Any],
    shape: tuple[int, int],
    *,
    processes: int = 1,
    stop: Callable[[], str] = str,
) -> dict[str, Any]:
    """Measure training steps of a cell's network on this CPU, and return what :func:`decide` does.

    Args:
        specification: the content of ``cell.json``; what its ``training`` states for a CPU is not varied.
        shape: height (and width) and channels of the images.
        processes: that will share the training's batches.
        stop: asked meanwhile; a text is the reason to stop.

    Raises:
        StoppedEarlyError: if ``stop`` gave a reason.
        UserError: if the network cannot be trained, or the process ended early.
    """
    request = json.dumps([specification, shape, processes])
    # A session of its own, so that Ctrl-C reaches only this process, which ends the other.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, request], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while True:
            try:
                answer, _ = process.communicate(timeout=POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if reason := stop():
                    raise StoppedEarlyError(f"{reason} while number formats were measured") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise UserError(
            f"measuring number formats ended with exit code {process.returncode}; what it printed may say why, or "
            "state training.precision.cpu and training.compile.cpu instead of auto"
        )
    found: dict[str, Any] = json.loads(answer)
    if "error" in found:
        raise UserError(found["error"])
    return found


def decide(options: Mapping[str, Any], begin: Callable[[str, bool], Step], batches: float) -> dict[str, Any]:
    """Return what is fastest of that which a ``training`` section leaves open on a CPU.

    Args:
        options: the section ``training``.
        begin: prepares a network of a number format, compiled or not, takes its first step, which does not count,
            and returns the function that takes and times another.
        batches: how many such steps the whole training is worth.

    Returns:
        ``values`` (``precision`` and ``compile``), ``compared`` (what took turns, in seconds per step),
        ``training_seconds`` (without compiling), and ``not_compiled``, the reason, where compiling failed.
    """
    precision, compiled = (options[name]["cpu"] for name in ("precision", "compile"))
    steps = {name: begin(name, False) for name in (FORMATS if precision == AUTO else [precision])}
    seconds = _take_turns(steps)
    if precision == AUTO:
        precision = "bf16" if seconds["fp32"] >= CLEARLY * seconds["bf16"] else "fp32"
    found: dict[str, Any] = {"compared": [seconds], "training_seconds": seconds[precision] * batches}
    if compiled == AUTO:
        compiled = False
        if found["training_seconds"] > LONG:
            try:
                candidate = begin(precision, True)
            except Exception as error:  # the compiler needs a C++ compiler, which not every machine has
                found["not_compiled"] = in_one_line(error)
            else:
                name = f"{precision}, compiled"
                again = _take_turns({precision: steps[precision], name: candidate})
                found["compared"].append(again)
                compiled = again[precision] >= SLIGHTLY * again[name]
    return {"values": {"precision": precision, "compile": compiled}, **found}


def _take_turns(steps: Mapping[str, Step]) -> dict[str, float]:
    """Return the least seconds of each candidate: whatever else the machine does can only add to them."""
    best = dict.fromkeys(steps, math.inf)
    until = time.monotonic() + SECONDS
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and time.monotonic() > until:
            break
        for name, step in steps.items():
            if done < PATIENCE or best[name] <= HOPELESS * min(best.values()):
                best[name] = min(best[name], step())
    return best


def _main() -> None:
    """Measure what the argument asks for, and answer with a line of JSON."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a file of workflow/ prints must not come between
    specification, (size, channels), processes = json.loads(sys.argv[1])
    try:
        found = _measure_here(specification, size, channels, processes)
    except UserError as error:
        found = {"error": str(error)}
    print(json.dumps(found), file=answers, flush=True)


def _measure_here(specification: Mapping[str, Any], size: int, channels: int, processes: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from targetwise.data.store import Images
    from targetwise.diffusion import parameterization
    from targetwise.training.trainer import Trainer

    options, variant = specification["training"], specification["variant"]
    share = options["global_batch"] / processes
    count = max(1, int(min(IMAGES, share, options["micro_batch"] or share)))
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    images = Images(pixels, np.zeros(count, dtype=np.int64), "")
    target, loss_space = (parameterization.load(variant[name]) for name in ("target", "loss_space"))
    torch.set_num_threads(options["threads"])

    def begin(precision: str, compiled: bool) -> Step:
        own = {
            "precision": {**options["precision"], "cpu": precision},
            "compile": {**options["compile"], "cpu": compiled},
            "global_batch": count,
            "micro_batch": None,
        }
        cell = {**specification, "training": {**options, **own}}
        trainer = Trainer(cell, images, target, loss_space, torch.device("cpu"))
        draw = trainer.draw(0)

        def step() -> float:
            began = time.perf_counter()
            trainer.advance(draw)
            return time.perf_counter() - began

        step()
        return step

    return {**decide(options, begin, options["steps"] * share / count), "images": count}


if __name__ == "__main__":
    errors.run(_main)
