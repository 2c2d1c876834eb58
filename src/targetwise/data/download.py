"""Download a file: with progress, going on where an earlier try stopped, and kept only if its digest is right."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import sync_folder
from targetwise.progress import Progress

TIMEOUT_SECONDS = 30.0
BLOCK = 1 << 20


def download(url: str, path: Path, declared: Mapping[str, Any]) -> None:
    """Download ``url`` to ``path``; an interrupted download leaves ``<path>.part``, and the next try goes on there.

    Args:
        url: http or https.
        path: takes its name only when the file is whole.
        declared: its digest, ``md5`` or ``sha256`` in hex.

    Raises:
        UserError: if the address cannot be reached, the connection breaks, or the digest is another one.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        _receive(url, part)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise UserError(f"the server answers {error.code} {error.reason}") from None
        # Nothing is left to send: the part is whole, and its digest decides.
    except urllib.error.URLError as error:
        raise UserError(f"not reachable ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"the connection broke ({type(error).__name__}: {error}); run again, it goes on from there"
        ) from None
    algorithm = "sha256" if "sha256" in declared else "md5"
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != declared[algorithm]:
        part.unlink()
        raise UserError(f"the file has {algorithm} {found}, but {declared[algorithm]} is declared")
    part.replace(path)
    sync_folder(path.parent)


def _receive(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 (the digest is checked)
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else done
        with part.open("ab" if done else "wb") as file, Progress(f"download {part.stem}", total, "byte", done) as bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.advance(len(block))
    if length and part.stat().st_size < total:
        raise http.client.IncompleteRead(b"", total - part.stat().st_size)
