"""A set of images is refused by its archive's directory and its files' headers, before it fills the memory."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from targetwise.data import image_files
from targetwise.errors import UserError

SHAPE = (8, 8, 3)

#: Read a set, and say by how many megabytes the process's greatest memory grew.
MEASURE = """
import json, re, sys
from pathlib import Path
from targetwise.data.image_files import read_set
from targetwise.errors import UserError
from PIL import PngImagePlugin
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = most()
message = ""
try:
    read_set(Path(sys.argv[1]), (8, 8, 3))
except UserError as error:
    message = str(error)
print(json.dumps([message, (most() - before) // 1024]))
"""


def png(size=(8, 8), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def huge_png(width, height):
    """Return a small PNG file of black pixels, without ever holding them."""
    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def archive_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def measured(path):
    """Return the refusal of a set, and the megabytes that it took."""
    if not sys.platform.startswith("linux"):
        pytest.skip("how much memory a process had at most is read where Linux says it")
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def test_an_image_of_another_size_is_refused_by_its_header(tmp_path):
    """300 MB when it is decoded."""
    path = archive_of(tmp_path / "own.zip", {"0.png": png(), "1.png": huge_png(12_500, 8_000)})
    message, megabytes = measured(path)
    assert message == f"{path}: 1.png is 12500×8000, but the reference's images are 8×8"
    assert megabytes < 60


def test_a_file_that_no_image_of_the_size_needs_is_refused_by_the_directory(tmp_path):
    path = archive_of(tmp_path / "own.zip", {"0.png": png(), "1.png": png() + bytes(300 * 2**20)})
    assert path.stat().st_size < 2**20
    message, megabytes = measured(path)
    assert message == f"{path}: 1.png unpacks to 314.6 MB, but no PNG file of 8×8 pixels needs over 4.2 MB"
    assert megabytes < 60


def test_a_directory_that_lies_does_not_fill_the_memory(tmp_path):
    path = archive_of(tmp_path / "own.zip", {"0.png": png(), "1.png": png() + bytes(300 * 2**20)})
    told = struct.pack("<I", len(png()) + 300 * 2**20)
    content = path.read_bytes()
    assert content.count(told) == 2  # before the file, and in the directory
    path.write_bytes(content.replace(told, struct.pack("<I", len(png()))))
    message, megabytes = measured(path)
    assert message.startswith(f"{path}: 1.png cannot be unpacked (BadZipFile: ")
    assert megabytes < 60


def test_an_array_of_another_shape_is_refused_by_its_header(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", np.zeros((10, 2000, 5000, 3), np.uint8))
    message, megabytes = measured(tmp_path / "own.npz")
    assert "own.npz: arr_0 has shape (10, 2000, 5000, 3), but (N, 8, 8, 3) is needed" in message
    assert megabytes < 60


@pytest.mark.parametrize("write", [lambda path: archive_of(path, {"0.png": png(), "1.png": png()}), None])
def test_more_images_than_the_memory_holds_are_refused_before_one_is_read(tmp_path, monkeypatch, write):
    path = tmp_path / "own.zip"
    if write:
        write(path)
    else:
        path = path.with_suffix(".npz")
        np.savez(path, np.zeros((2, *SHAPE), np.uint8))
    monkeypatch.setattr(image_files, "memory_bytes", lambda: 2 * 8 * 8 * 3)
    assert len(image_files.read_set(path, SHAPE)) == 2
    monkeypatch.setattr(image_files, "memory_bytes", lambda: 2 * 8 * 8 * 3 - 1)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_: pytest.fail("read")) if write else None
    with pytest.raises(UserError, match=r"own\.\w+ holds 2 images, which take 0\.0 GB of memory; this machine has 0"):
        image_files.read_set(path, SHAPE)


def test_the_memory_is_this_machines():
    assert 2**28 < image_files.memory_bytes() < 2**50
    assert image_files.memory_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_turned_image_has_the_size_that_one_sees(tmp_path):
    """A photograph on its side is as high as it is wide in its file."""
    turned = Image.Exif()
    turned[0x0112] = 6
    tall = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(6, 4, 3)
    (tmp_path / "own").mkdir()
    for index in range(2):
        Image.fromarray(np.rot90(tall).copy()).save(tmp_path / f"own/{index}.png", exif=turned)
    assert (image_files.read_set(tmp_path / "own", (6, 4, 3)) == tall).all()
    with pytest.raises(UserError, match=r"0\.png is 4×6, but the reference's images are 6×4"):
        image_files.read_set(tmp_path / "own", (4, 6, 3))


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (16, 4)])
def test_another_size_of_as_many_pixels_is_refused(tmp_path, size):
    path = archive_of(tmp_path / "own.zip", {"0.png": png(size), "1.png": png(size)})
    with pytest.raises(UserError, match=rf"0\.png is {size[0]}×{size[1]}, but the reference's images are 8×8"):
        image_files.read_set(path, SHAPE)


def test_an_encrypted_member_is_named(tmp_path):
    path = archive_of(tmp_path / "own.zip", {"0.png": png(), "1.png": png()})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1  # the flag in the directory
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"1\.png cannot be unpacked \(RuntimeError: .*encrypted"):
        image_files.read_set(path, SHAPE)
