"""Files as this project writes them: whole or not at all, and known by their digest."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.errors import UserError


def cache() -> Path:
    """Return where a user's clones keep what can be had again: $TARGETWISE_CACHE, or ``~/.cache/targetwise``."""
    own = os.environ.get("TARGETWISE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "targetwise"


#: What a file system without hard links says, or where two file systems meet.
NO_HARD_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only when the block succeeds.

    The bytes reach the disk before the name does, so that a power cut leaves the old file or the new one, unless
    ``durable`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process make a file while others wait for it, where the file system has locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``; a copy where the file system has no hard links."""
    with atomic(target, durable=False) as temporary:
        temporary.unlink(missing_ok=True)  # of a killed process that had our number: it may be a link itself
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            shutil.copyfile(source, temporary)


def canonical_json(content: Any) -> str:
    """Return the one text that stands for ``content``: sorted keys, two spaces, a final newline.

    Raises:
        ValueError: if ``content`` holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` atomically as canonical JSON."""
    write_text(path, canonical_json(content))


def write_json_if_changed(path: Path, content: Any) -> bool:
    """Write ``content`` only where the file does not already say the same; return whether it was written.

    An unchanged file keeps its date, so that Snakemake reruns nothing for it. What is written here can be made again
    at any time, so thousands of files do not wait for the disk.
    """
    text = canonical_json(content)
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    with atomic(path, durable=False) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return True


def remedy(path: Path) -> str:
    """Return what to do so that a damaged file of a study or a data set is made again, e.g. ``delete it, …``."""
    kind, name = (*path.parts, "", "")[:2]
    study = Path("results") / name / "study.json"
    if kind == "results" and path != study:
        return f"delete it; `snakemake --cores all all --configfile {study}` makes it again"
    if kind == "data":
        studies = [study for study in sorted(Path("results").glob("*/study.json")) if _is_trained_on(study, name)]
        overlay = f" --configfile {studies[0]}" if studies else ""
        return f"delete it; `snakemake --cores all {path}{overlay}` makes it again"
    return "delete it and run again"


def _is_trained_on(study: Path, dataset: str) -> bool:
    try:
        return bool(json.loads(study.read_text(encoding="utf-8"))["data"]["dataset"] == dataset)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy(path)}") from None


def read_whole(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None while it is not there or not whole."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a last line that a kill cut short is left out.

    Raises:
        UserError: if a line before it is damaged.
    """
    lines = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy(path)}") from None


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the SHA-256 of plain values, as :func:`canonical_json` writes them, in hex."""
    return sha256_of_text(canonical_json(content))


def sha256_of_array(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's values in C order, in hex; shape and type are not part of it."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
