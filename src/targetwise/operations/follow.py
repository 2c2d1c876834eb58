"""One line on how far a run is, for whoever waits for it: where Snakemake would print every job."""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from targetwise.operations.status import Standing, duration, standings
from targetwise.text import counted

#: Set to anything, it asks for the line.
ASKED = "TARGETWISE_FOLLOW"

#: Between two lines: on a terminal, where one replaces the other, and in a log.
EVERY_SECONDS = {True: 2.0, False: 30.0}

#: What Snakemake prints with; it also writes a log file, which stays as it is.
PRINTER = "DefaultStreamHandler"


def start(config: Mapping[str, Any], logger: logging.Logger) -> None:
    """Print the line now and then, if the environment asks for it, from a thread that ends with this process.

    Args:
        config: the whole configuration.
        logger: Snakemake's, which from now on prints warnings and errors only.
    """
    if ASKED not in os.environ:
        return
    for handler in logger.handlers:
        if handler.name == PRINTER:
            handler.setLevel(logging.WARNING)
    threading.Thread(target=_follow, args=(config,), daemon=True).start()


def line(found: Iterable[Standing], steps_before: int, seconds: float) -> str:
    """Return how far a run is.

    Args:
        found: where every cell stands now.
        steps_before: of training, that were done when the run began.
        seconds: since then.

    Returns:
        Cells done, the time left at the rate of training steps so far, sampling and measuring included, and what is
        at work.
    """
    found = list(found)
    done = sum(each.state in ("done", "diverged") for each in found)
    steps, total = steps_done(found), sum(each.steps for each in found)
    rate = (steps - steps_before) / seconds
    parts = [f"{done} of {counted(len(found), 'cell')} done"]
    if rate and steps < total:
        parts[0] += f", about {duration((total - steps) / rate)} left"
    parts += [f"{each.cell.name} {each.detail.partition(' (')[0]}" for each in found if each.state == "running"]
    return "; ".join(parts)


def steps_done(found: Iterable[Standing]) -> int:
    """Return the steps of training that are done in all cells."""
    return sum(each.step for each in found)


def _follow(config: Mapping[str, Any]) -> None:
    terminal, began = sys.stderr.isatty(), time.monotonic()
    before = steps_done(standings(config))
    while True:
        time.sleep(EVERY_SECONDS[terminal])
        text = line(standings(config), before, time.monotonic() - began)
        if terminal:
            text = f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}"
        print(text, end="" if terminal else "\n", file=sys.stderr, flush=True)
