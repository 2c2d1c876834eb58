"""A folder that one process uses at a time: held by a file lock and a heartbeat."""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import write_json

BEAT_SECONDS = 5.0
POLL_SECONDS = 0.5

#: A heartbeat that has not moved for this long belongs to a process that is gone.
STALE_SECONDS = 30.0

#: Between two attempts to get a folder that another process holds.
WAIT_SECONDS = 2.0

#: What a file system without locks says; ENOSYS is Lustre's word.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class InUseError(UserError):
    """Another process holds the folder; the message says which."""


class ExclusiveFolder:
    """The folder of one computation; the process that computes it holds the folder meanwhile."""

    def __init__(self, path: Path) -> None:
        """Use ``path``, which is created when it is first held."""
        self.path = path
        self._is_locked = self._is_finished = False

    def remove(self) -> None:
        """Remove the folder, once its result is safe; while it is held, as the lock is given up."""
        if self._is_locked:
            self._is_finished = True
        else:
            # Out of the way at once: somebody else may begin in a new folder while the old one is being removed.
            gone = self.path.with_name(f".{self.path.name}.{os.getpid()}.gone")
            with suppress(OSError):
                self.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            with suppress(OSError):  # which holds the folders of other jobs
                self.path.parent.rmdir()

    @contextmanager
    def held(self, stop: Callable[[], str] = str, *, wait: bool = True) -> Iterator[None]:
        """Hold the folder for the length of the block, after another process that has it.

        Args:
            stop: asked while waiting; a text is the reason to stop.
            wait: whether to wait at all.

        Raises:
            InUseError: if another process holds it and ``wait`` is False.
            StoppedEarlyError: if ``stop`` gave a reason while waiting.
        """
        waited = False
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self.locked())
                    break
                except InUseError as error:
                    if not wait:
                        raise
                    if reason := stop():
                        raise StoppedEarlyError(f"{error}; {reason} while waiting") from None
                    if not waited:
                        print(f"waiting: {error}", file=sys.stderr, flush=True)
                    waited = True
                time.sleep(WAIT_SECONDS)
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for the length of the block.

        Both a file lock and a heartbeat are used, because some cluster file systems have no working locks.

        Raises:
            InUseError: if another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):
            raise self._in_use() from None  # its holder has just finished and removed the folder
        locks_work = True
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise self._in_use() from None
                if error.errno not in NO_LOCKS:
                    raise
                locks_work = False
            if not self._is_of(descriptor):
                raise self._in_use()  # its holder has just finished and removed the folder
            self._is_locked = True
            self._wait_for_silence()
            with self._beating():
                if not locks_work:
                    self._wait_for_others_who_begin()
                self._remove_leftovers()
                yield
        finally:
            # Removed while the lock is still held, so that nobody who waits for it loses a folder of their own.
            self._is_locked = False
            if self._is_finished:
                self.remove()
            os.close(descriptor)

    def _is_of(self, descriptor: int) -> bool:
        """Return whether an open lock file is the one that is now in the folder."""
        try:
            return os.path.samestat(os.fstat(descriptor), (self.path / "lock").stat())
        except FileNotFoundError:
            return False

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed while it wrote has left: it can be as large as a disk's rest."""
        for leftover in self.path.glob(".*.part"):
            if not leftover.name.startswith(f".{self._heartbeat.name}"):
                leftover.unlink(missing_ok=True)

    @property
    def _heartbeat(self) -> Path:
        return self.path / "heartbeat.json"

    def _read_heartbeat(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads(self._heartbeat.read_text())
            return content
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None

    def _in_use(self) -> InUseError:
        beat = self._read_heartbeat() or {}
        job = f", job {beat['job']}" if beat.get("job") else ""
        holder = f"host {beat.get('host', '?')}, process {beat.get('process', '?')}{job}"
        return InUseError(f"{self.path} is in use by another process ({holder}); wait for it or end it first")

    def _wait_for_silence(self) -> None:
        """Return once no other process beats; its clock is not trusted, only whether the file moves."""
        first = self._read_heartbeat()
        if first is None or _is_gone_from_here(first):
            return
        until = time.monotonic() + STALE_SECONDS
        while time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            now = self._read_heartbeat()
            if now is None:
                return
            if now != first:
                raise self._in_use()

    def _wait_for_others_who_begin(self) -> None:
        """Find out whether another process found silence at the same moment: the last one to beat stays."""
        time.sleep(2 * POLL_SECONDS)
        beat = self._read_heartbeat()
        if beat is not None and not _is_mine(beat):
            raise self._in_use()

    @contextmanager
    def _beating(self) -> Iterator[None]:
        stop = threading.Event()

        def beat(count: int) -> None:
            # Beating must not end the work: a full disk shows itself when something is saved.
            with suppress(OSError):
                write_json(self._heartbeat, {**_me(), "beat": count})

        def go_on() -> None:
            count = 1
            while not stop.wait(BEAT_SECONDS):
                beat(count)
                count += 1

        beat(0)  # before anything else is done: whoever comes now must see it
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if _is_mine(self._read_heartbeat() or {}):
                self._heartbeat.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", "")}


def _is_mine(beat: dict[str, Any]) -> bool:
    return all(beat.get(key) == value for key, value in _me().items())


def _is_gone_from_here(beat: dict[str, Any]) -> bool:
    """Return whether the heartbeat is of a process of this host that no longer runs."""
    if beat.get("host") != socket.gethostname():
        return False
    try:
        return not is_alive(int(beat["process"]))
    except (KeyError, ValueError):
        return True


def is_alive(process: int) -> bool:
    """Return whether a process of this host runs, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
