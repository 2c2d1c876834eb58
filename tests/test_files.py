"""Files are whole or not there, and known by their digest."""

import hashlib
import os
import stat

import numpy as np
import pytest

from targetwise import files
from targetwise.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_folders_and_replaces_the_old_content(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    files.write_text(path, "old")
    files.write_text(path, "neü")
    assert path.read_bytes() == "neü".encode()
    assert names(path.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "c.txt"
    files.write_text(path, "old")
    with pytest.raises(error), files.atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no"), files.atomic(tmp_path / "c.txt") as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert names(tmp_path) == []


def test_the_final_name_holds_the_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "c.txt"
    files.write_text(path, "old")
    with files.atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """Power may fail between any two calls; then a name without its bytes must be impossible."""
    order = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def rename(self, target):
        order.append("rename")
        real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "replace", rename)
    files.write_text(tmp_path / "c.txt", "x")
    assert order == ["file", "rename", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    """A group that shares results must be able to read them; mkstemp's 0600 would forbid it."""
    before = os.umask(umask)
    try:
        files.write_json(tmp_path / "c.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.json").stat().st_mode) == mode


def test_canonical_json_is_one_text_per_content():
    assert files.canonical_json({"b": 1, "a": [1.5, None, "ü"]}) == files.canonical_json(
        {"a": [1.5, None, "ü"], "b": 1}
    )
    assert files.canonical_json({"b": 1, "a": "ü"}) == '{\n  "a": "ü",\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "c.json", {"x": [value]})
    assert names(tmp_path) == []


def test_json_numbers_come_back_exactly(tmp_path):
    numbers = [0.1, 1e-300, 2**53 + 1, 1 / 3]
    files.write_json(tmp_path / "c.json", numbers)
    assert files.read_json(tmp_path / "c.json") == numbers


def test_an_unchanged_file_keeps_its_date(tmp_path):
    path = tmp_path / "c.json"
    assert files.write_json_if_changed(path, {"a": 1})
    os.utime(path, ns=(1, 1))
    assert not files.write_json_if_changed(path, {"a": 1})
    assert path.stat().st_mtime_ns == 1
    assert files.write_json_if_changed(path, {"a": 2})
    assert path.stat().st_mtime_ns != 1
    assert files.read_json(path) == {"a": 2}


def test_a_damaged_file_counts_as_changed(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe{")
    assert files.write_json_if_changed(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_reading_a_damaged_file_says_which(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.json is damaged") as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


def test_reading_a_missing_file_says_which(tmp_path):
    with pytest.raises(UserError, match=r"c\.json does not exist"):
        files.read_json(tmp_path / "c.json")


def test_json_lines_leave_out_what_a_kill_cut_short(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes('{"a": 1}\n{"a": 2}\n{"a": "ü'.encode()[:-1])
    assert files.read_json_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text("")
    assert files.read_json_lines(path) == []


def test_json_lines_damaged_in_the_middle_are_not_passed_over(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match=r"c\.jsonl is damaged"):
        files.read_json_lines(path)


def test_digests_are_those_of_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert files.sha256_of_file(tmp_path / "f") == known
    assert files.sha256_of_text("abc") == known
    assert files.sha256_of_array(np.frombuffer(b"abc", dtype=np.uint8)) == known


def test_the_digest_of_an_array_is_that_of_its_values_in_c_order():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    digest = files.sha256_of_array(array)
    assert digest == hashlib.sha256(bytes(range(24))).hexdigest()
    assert files.sha256_of_array(np.asfortranarray(array)) == digest
    assert files.sha256_of_array(array[::-1]) != digest
    assert files.sha256_of_array(np.zeros((0, 8, 8, 1), np.uint8)) == hashlib.sha256().hexdigest()
