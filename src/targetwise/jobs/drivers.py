"""The runs of Snakemake in this folder: which of them still live, and whose locks may go.

Snakemake's own lock is a file, which outlives a driver that is killed. So each driver also holds a file lock, which
the system drops when its process ends, however it ends. Snakemake's lock is removed only if every driver that is on
record here ran on this host and is dead.
"""

import atexit
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from targetwise.jobs.exclusive import is_alive

FOLDER = Path(".snakemake/drivers")
LOCKS = Path(".snakemake/locks")

#: The record of a driver on another host is forgotten after so many seconds, if nothing is locked.
FORGOTTEN_SECONDS = 7 * 86400


@dataclass(frozen=True)
class Driver:
    """A run of Snakemake, as its record describes it."""

    study: str
    host: str
    process: int
    since: str

    def __str__(self) -> str:
        return f"study {self.study}, host {self.host}, process {self.process}, since {self.since}"

    @property
    def is_from_here(self) -> bool:
        """Return whether it runs, or ran, on this host."""
        return self.host == socket.gethostname()


_held: list[TextIO] = []


def register(study: str) -> None:
    """Record this process as a driver until it ends, and remove the locks that killed ones have left.

    What a person should know of the others is printed, a line each.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    me = Driver(study, socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    path = FOLDER / f"{me.host}-{me.process}-{time.time_ns()}.json"
    file = path.open("a+")
    _held.append(file)  # open, and so locked, until the process ends
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(json.dumps(vars(me)))
    file.flush()
    atexit.register(path.unlink, missing_ok=True)
    remove_stale_locks()


def remove_stale_locks() -> None:
    """Remove Snakemake's locks if all drivers that are recorded here, beside this process, were killed."""
    locks = {path: path.stat().st_ino for path in LOCKS.glob("*.lock")}
    others = list(_others())
    unsure = [driver for _, driver, is_dead in others if not is_dead]
    if locks and (unsure or not others):
        for driver in unsure:
            study = f"results/{driver.study}/study.json"
            unlock = f"if it was killed, type `snakemake --unlock --configfile {study}`"
            print(f"note: a run is under way here ({driver}); {unlock}", file=sys.stderr)
        return
    for path, number in locks.items():
        with suppress(FileNotFoundError):
            if path.stat().st_ino == number:  # and not that of a driver that was quicker
                path.unlink()
    for path, driver, is_dead in others:
        if is_dead or _age(path) > FORGOTTEN_SECONDS:
            path.unlink(missing_ok=True)
        if locks:
            print(f"note: an earlier run was killed ({driver}); this one goes on from there", file=sys.stderr)


def is_locked() -> bool:
    """Return whether a run is under way here, or was killed and that cannot be told."""
    return any(LOCKS.glob("*.lock"))


def is_at_work(study: str) -> bool:
    """Return whether a run of a study is under way here beside this process, or may be."""
    others = [driver.study for _, driver, is_dead in _others() if not is_dead]
    return is_locked() and (study in others or not others)


def _others() -> Iterator[tuple[Path, Driver, bool]]:
    """Yield each other driver that is recorded, and whether it is known to be dead."""
    mine = {os.fstat(file.fileno()).st_ino for file in _held}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            with path.open("r+") as file:
                if os.fstat(file.fileno()).st_ino not in mine:
                    driver = Driver(**json.load(file))
                    yield path, driver, driver.is_from_here and _is_free(file, driver.process)
        except (OSError, ValueError, TypeError):
            continue  # its owner is just writing or removing it


def _is_free(file: TextIO, process: int) -> bool:
    """Return whether a file that a process of this host has locked is free again."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        return not is_alive(process)  # a file system without locks: its process must do
    return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
