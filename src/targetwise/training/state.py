"""Resumable state: saved whole or not at all, checked when loaded, and used by one process at a time.

The folder is not an output of any rule, because Snakemake deletes the outputs of a failed job.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from targetwise.errors import UserError
from targetwise.files import atomic, sha256_of_file, write_json, write_text

BEAT_SECONDS = 5.0
POLL_SECONDS = 0.5

#: A heartbeat that has not moved for this long belongs to a process that is gone.
STALE_SECONDS = 30.0

KEPT = 2

#: What a file system without locks says; ENOSYS is Lustre's word.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class InUseError(UserError):
    """Another process holds the folder; the message says which."""


class StateFolder:
    """The states of one computation, which ``key`` identifies: another key's states are never used."""

    def __init__(self, path: Path, key: str) -> None:
        """Use ``path``; ``key`` is a digest of everything that decides the result."""
        self.path = path
        self.key = key
        self._is_locked = self._is_finished = False

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write the state after ``step`` steps; the states before the previous one are removed."""
        path = self.path / f"step-{step:09d}.pt"
        with atomic(path) as temporary, temporary.open("wb") as file:
            _save({"key": self.key, "step": step, **content}, file)
        # Only a state with a digest beside it counts: a kill between the two leaves the one before in force.
        write_text(self._digest_file(path), sha256_of_file(path) + "\n")
        for old in self._paths()[KEPT:]:
            self._remove(old)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state of this key on the CPU, or None.

        A damaged state is reported on stderr and the one before it is used. States of another key are removed:
        what they belong to has changed since.
        """
        for path in self._paths():
            digest_file = self._digest_file(path)
            digest = digest_file.read_bytes().strip() if digest_file.exists() else b""
            if digest != sha256_of_file(path).encode():
                print(
                    f"{path} is damaged or was not finished; going back to the state before it",
                    file=sys.stderr,
                )
                self._remove(path)
                continue
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if content["key"] != self.key:
                print(f"{path} is of another specification; starting anew", file=sys.stderr)
                self._remove(path)
                continue
            return content
        return None

    def remove(self) -> None:
        """Remove the folder, after the result it led to is published; while it is locked, as the lock is given up."""
        if self._is_locked:
            self._is_finished = True
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for the length of the block.

        Both a file lock and a heartbeat are used, because some cluster file systems have no working locks.

        Raises:
            InUseError: if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        locks_work = True
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise self._held() from None
                if error.errno not in NO_LOCKS:
                    raise
                locks_work = False
            if not self._is_of(descriptor):
                raise self._held()  # its holder has just finished and removed the folder
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
        """Return whether an open lock file is the one that now lies in the folder."""
        try:
            return os.path.samestat(os.fstat(descriptor), (self.path / "lock").stat())
        except FileNotFoundError:
            return False

    def _paths(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"), reverse=True)

    def _digest_file(self, path: Path) -> Path:
        return path.with_suffix(".sha256")

    def _remove(self, path: Path) -> None:
        self._digest_file(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed while it wrote has left: a state can be as large as a disk's rest."""
        for leftover in self.path.glob(".step-*.part"):
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

    def _held(self) -> InUseError:
        beat = self._read_heartbeat() or {}
        job = f", job {beat['job']}" if beat.get("job") else ""
        holder = f"host {beat.get('host', '?')}, process {beat.get('process', '?')}{job}"
        return InUseError(f"{self.path} is in use by another trainer ({holder}); wait for it or end it first")

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
                raise self._held()

    def _wait_for_others_who_begin(self) -> None:
        """Find out whether another process found silence at the same moment: the last one to beat stays."""
        time.sleep(2 * POLL_SECONDS)
        beat = self._read_heartbeat()
        if beat is not None and not _is_mine(beat):
            raise self._held()

    @contextmanager
    def _beating(self) -> Iterator[None]:
        stop = threading.Event()

        def beat(count: int) -> None:
            # Beating must not end the training: a full disk shows itself when the state is saved.
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


def _save(content: dict[str, Any], file: BinaryIO) -> None:
    """Save to Python's own file, so that a full disk is an OSError and not torch's RuntimeError about positions."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", "")}


def _is_mine(beat: dict[str, Any]) -> bool:
    return all(beat.get(key) == value for key, value in _me().items())


def _is_gone_from_here(beat: dict[str, Any]) -> bool:
    """Return whether the heartbeat is of a process of this host that no longer runs."""
    if beat.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(beat["process"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return True
    except PermissionError:
        return False
    return False
