"""Read image files strictly: nothing is converted, cut or resized unless somebody asked for it by name."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
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


def list_images(folder: Path, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """Return a folder's image files, subfolders included, sorted by their path's text, hidden ones left out.

    Raises:
        UserError: if it is no folder or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    kept = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    if not kept:
        raise UserError(f"{folder} holds no image ({', '.join(endings)})")
    return [names[name] for name in kept]


def open_image(file: Path | BinaryIO, name: str, channels: int) -> Image.Image:
    """Open and decode one image.

    Args:
        file: a path or an open binary file.
        name: for messages.
        channels: that it must have, 1 or 3, 8 bits each.

    Raises:
        UserError: if it is damaged or has other channels.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except Exception as error:
        raise UserError(f"{name} cannot be read as an image ({type(error).__name__}: {error})") from error
    if image.mode != MODES[channels]:
        found, wanted = (MODE_WORDS.get(mode, mode) for mode in (image.mode, MODES[channels]))
        raise UserError(
            f"{name} is {found} (mode {image.mode}), but {wanted} (mode {MODES[channels]}) is needed; "
            "convert it first"
        )
    return image


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
        raise UserError(f"{name} is {width}×{height} and not square; cut it, or say crop: center")
    if width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        if resampling is None:
            raise UserError(
                f"{name} is {width}×{height}, but {size}×{size} is needed; say filter: to have it resized"
            )
        image = image.resize((size, size), FILTERS[resampling])
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def read_set(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a set of images from an archive or folder.

    Args:
        path: an .npz with ``arr_0`` (N, H, W, C) uint8, or a folder or .zip of PNG files, sorted by name.
        shape: (H, W, C) that every image must have.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        UserError: if something cannot be read or is not of that shape.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix == ".npz":
        return _from_npz(path, shape)
    height, width, channels = shape
    arrays = []
    for file, name in _png_files(path):
        array = np.asarray(open_image(file, name, channels))
        if array.shape[:2] != (height, width):
            found = f"{array.shape[1]}×{array.shape[0]}"
            raise UserError(f"{name} is {found}, but the reference's images are {width}×{height}")
        arrays.append(array.reshape(shape))
    return np.stack(arrays)


def _from_npz(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive)
            array: np.ndarray | None = archive["arr_0"] if "arr_0" in names else None
    except Exception as error:
        raise UserError(f"{path} is damaged or not an .npz archive ({type(error).__name__}: {error})") from error
    if array is None:
        raise UserError(f"{path} has no arr_0 (it has: {', '.join(names) or 'nothing'})")
    if array.dtype != np.uint8:
        raise UserError(
            f"{path}: arr_0 is {array.dtype}, but uint8 in 0 … 255 is needed; how to round is yours to choose"
        )
    if array.ndim != 4 or array.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise UserError(f"{path}: arr_0 has shape {array.shape}, but (N, {wanted}) is needed, channels last")
    return array


def _png_files(path: Path) -> Iterator[tuple[Path | BinaryIO, str]]:
    if path.is_dir():
        for file in list_images(path, (".png",)):
            yield file, str(file)
        return
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an .npz archive, a .zip of PNG files or a folder of PNG files")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".png"))
        if not names:
            raise UserError(f"{path} holds no .png file")
        for name in names:
            yield io.BytesIO(archive.read(name)), f"{path}: {name}"
