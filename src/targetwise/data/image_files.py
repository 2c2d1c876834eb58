"""Read image files strictly: nothing is converted, cut or resized unless it was asked for by name."""

import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from PIL import Image, ImageOps

from targetwise.errors import UserError

#: What Pillow calls 8-bit images of C channels.
MODES = {1: "L", 3: "RGB"}

#: Modes that people meet, in words.
MODE_WORDS = {
    "L": "grey",
    "LA": "grey with alpha",
    "RGBA": "colour with alpha",
    "RGB": "colour",
    "P": "a palette",
    "1": "black and white",
    "I;16": "16 bits deep",
    "CMYK": "CMYK",
}

#: Resampling filters by the names a configuration uses; all of them antialias when they shrink, except nearest.
FILTERS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

#: Bytes that a PNG file may hold beside its pixels: a colour profile, a preview, text.
PNG_EXTRAS = 2**22


def list_images(folder: Path, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """Return a folder's image files, subfolders included, sorted by their path's text, hidden ones left out.

    Raises:
        UserError: if it is not a folder or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    kept = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    if not kept:
        raise UserError(f"{folder} holds no image ({', '.join(endings)})")
    return [names[name] for name in kept]


def open_image(file: Path | BinaryIO, name: str, channels: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Open one image, and decode it once its header says that it is what is needed.

    Args:
        file: a path or an open binary file.
        name: for messages.
        channels: that it must have, 1 or 3, 8 bits each.
        size: width and height that the reference's images have; None takes any.

    Raises:
        UserError: if it is damaged, or has other channels or another size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
    except Exception as error:
        raise _unreadable(name, error) from error
    with opened:
        if opened.mode != MODES[channels]:
            found, wanted = (MODE_WORDS.get(mode, mode) for mode in (opened.mode, MODES[channels]))
            raise UserError(
                f"{name} is {found} (mode {opened.mode}), but {wanted} (mode {MODES[channels]}) is needed; "
                "convert it first"
            )
        if size and opened.size not in (size, size[::-1]):
            raise _of_another_size(name, opened.size, size)
        try:
            image = ImageOps.exif_transpose(opened)
        except Exception as error:
            raise _unreadable(name, error) from error
    if size and image.size != size:
        raise _of_another_size(name, image.size, size)
    return image


def _unreadable(name: str, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read as an image ({type(error).__name__}: {error})")


def _of_another_size(name: str, found: tuple[int, int], wanted: tuple[int, int]) -> UserError:
    shown, needed = (f"{width}×{height}" for width, height in (found, wanted))
    return UserError(f"{name} is {shown}, but the reference's images are {needed}")


def fit(image: Image.Image, name: str, size: int, resampling: str | None, crop: str | None) -> np.ndarray:
    """Return an image as (size, size, C) uint8.

    Args:
        image: of any size.
        name: for messages.
        size: wanted, in pixels.
        resampling: one of :data:`FILTERS`, or None if the image must have the size already.
        crop: ``center`` cuts what is not square to its middle first; None refuses it.

    Raises:
        UserError: if it is not square or not of the size, and nothing was asked for.
    """
    width, height = image.size
    if width != height and crop is None:
        raise UserError(f"{name} is {width}×{height} and not square; crop it, or set crop: center")
    if width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        if resampling is None:
            raise UserError(
                f"{name} is {width}×{height}, but {size}×{size} is needed; set filter: to have it resized"
            )
        image = image.resize((size, size), FILTERS[resampling])
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def read_set(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a set of images from an archive or folder; what does not fit is refused before it is unpacked.

    Args:
        path: an .npz with ``arr_0`` (N, H, W, C) uint8, or a folder or .zip of PNG files, sorted by name.
        shape: (H, W, C) that every image must have.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        UserError: if something cannot be read, is not of that shape, or is more than the machine's memory holds.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix == ".npz":
        return _from_npz(path, shape)
    if path.is_dir():
        files = list_images(path, (".png",))
        return _decoded(((file, str(file)) for file in files), path, (len(files), *shape))
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an .npz archive, a .zip of PNG files or a folder of PNG files")
    with zipfile.ZipFile(path) as archive:
        members = _png_members(archive, path, shape)
        files_in_it = ((_unpacked(archive, member, path), f"{path}: {member.filename}") for member in members)
        return _decoded(files_in_it, path, (len(members), *shape))


def memory_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _require_memory(path: Path, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > memory_bytes():
        need, there = (f"{size / 1e9:.1f}" for size in (math.prod(shape), memory_bytes()))
        raise UserError(
            f"{path} holds {shape[0]:,} images, which take {need} GB of memory; this machine has {there} GB; "
            "measure fewer, or elsewhere"
        )


def _from_npz(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            found, dtype = _npy_header(archive) if "arr_0" in names else (None, None)
    except Exception as error:
        raise _damaged(path, error) from error
    if found is None:
        raise UserError(f"{path} has no arr_0 (it has: {', '.join(names) or 'nothing'})")
    if dtype != np.uint8:
        raise UserError(f"{path}: arr_0 is {dtype}, but uint8 in 0 … 255 is needed; the rounding is yours to choose")
    if len(found) != 4 or found[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise UserError(f"{path}: arr_0 has shape {found}, but (N, {wanted}) is needed, channels last")
    _require_memory(path, found)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images: np.ndarray = arrays["arr_0"]
    except Exception as error:
        raise _damaged(path, error) from error
    return images


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged or not an .npz archive ({type(error).__name__}: {error})")


def _npy_header(archive: zipfile.ZipFile) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of ``arr_0`` without its values."""
    with archive.open("arr_0.npy") as file:
        read = {(1, 0): npy.read_array_header_1_0}.get(npy.read_magic(file), npy.read_array_header_2_0)
        shape, _, dtype = read(file)
    return shape, dtype


def _png_members(archive: zipfile.ZipFile, path: Path, shape: tuple[int, int, int]) -> list[zipfile.ZipInfo]:
    """Return a zip's PNG files, sorted by name, if its directory says that none is larger than one can be."""
    members = [member for member in archive.infolist() if member.filename.lower().endswith(".png")]
    if not members:
        raise UserError(f"{path} holds no .png file")
    height, width, _ = shape
    most = PNG_EXTRAS + 2 * math.prod(shape)
    for member in members:
        if member.file_size > most:
            raise UserError(
                f"{path}: {member.filename} unpacks to {member.file_size / 1e6:.1f} MB, but no PNG file of "
                f"{width}×{height} pixels needs over {most / 1e6:.1f} MB"
            )
    return sorted(members, key=lambda member: member.filename)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> BinaryIO:
    try:
        with archive.open(member) as file:
            # With a number, since a plain read() unpacks all there is even where the directory speaks of less.
            return io.BytesIO(file.read(member.file_size) + file.read(1))
    except Exception as error:
        raise UserError(f"{path}: {member.filename} cannot be unpacked ({type(error).__name__}: {error})") from error


def _decoded(
    files: Iterable[tuple[Path | BinaryIO, str]], path: Path, shape: tuple[int, int, int, int]
) -> np.ndarray:
    """Return (N, H, W, C) uint8 of N files, each with its name for messages."""
    _require_memory(path, shape)
    _, height, width, channels = shape
    images = np.empty(shape, dtype=np.uint8)
    for index, (file, name) in enumerate(files):
        image = open_image(file, name, channels, (width, height))
        images[index] = np.asarray(image).reshape(shape[1:])
    return images
