"""One GPU, one process: several trainers on a workstation share none by accident.

Where a batch system hands out GPUs each job sees its own, and nobody waits here.
"""

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from targetwise.errors import StoppedEarlyError, UserError

#: One lock per GPU, of this user on this machine; the system drops a lock when its process ends, however it ends.
FOLDER = Path(tempfile.gettempdir()) / f"targetwise-gpus-{os.getuid()}"

#: Between two looks at GPUs that are all in use.
WAIT_SECONDS = 2.0

_held: dict[str, TextIO] = {}


def take(names: Sequence[str], stop: Callable[[], bool] = lambda: False, *, wait: bool = True) -> int:
    """Take one of several GPUs for the rest of this process's life; one it has already is taken again.

    Args:
        names: what each GPU is called in every process, whatever it sees of them, i.e. its UUID.
        stop: asked while waiting.
        wait: whether to wait until one is free.

    Returns:
        The index in ``names`` of the first one that is free.

    Raises:
        StoppedEarlyError: if ``stop`` said so while waiting.
        UserError: if all are in use and ``wait`` is False.
    """
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while True:
        for index, name in enumerate(names):
            if name in _held or _lock(name):
                return index
        in_use = f"every GPU that this process sees is in use by process {', '.join(map(_holder, names))}"
        if not wait:
            raise UserError(f"{in_use}; wait for it, or choose others with CUDA_VISIBLE_DEVICES")
        if stop():
            raise StoppedEarlyError(f"{in_use}; asked to stop while waiting")
        if not waited:
            print(f"waiting: {in_use}", file=sys.stderr, flush=True)
        waited = True
        time.sleep(WAIT_SECONDS)


def _lock(name: str) -> bool:
    file = (FOLDER / name).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held[name] = file
    return True


def _holder(name: str) -> str:
    return (FOLDER / name).read_text() or "?"
