"""Read a draw of samples; without PyTorch, which most readers of samples do not need."""

import math
import zipfile
from pathlib import Path

import numpy as np

from targetwise.errors import UserError
from targetwise.files import read_json, remedy, sha256_of_array

#: How an array's header is read, by the version of its format.
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_samples(path: Path) -> np.ndarray:
    """Load a draw, (N, H, W, C) uint8, and hold it against the facts beside it.

    Raises:
        UserError: if the archive is damaged or not the one the facts record.
    """
    facts = read_json(path.with_suffix(".json"))
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: np.ndarray = archive["arr_0"]
    except Exception as error:
        raise UserError(f"{path} is missing or damaged ({type(error).__name__}); {remedy(path)}") from error
    if sha256_of_array(array) != facts["samples_sha256"]:
        raise UserError(f"{path} is not what {path.with_suffix('.json')} records; {remedy(path)}")
    return array


def first_samples(path: Path, count: int) -> np.ndarray:
    """Load the first samples of a draw, (at most ``count``, H, W, C) uint8, without reading the others.

    A page that shows a few of 50,000 images of each cell would otherwise read all of them. So only their number is
    held against the facts beside the archive, and not their digest: that these are the samples which were measured
    rests on the job that made both files together and on nobody having changed one since. ``load_samples``, which
    measuring uses, would notice.

    Raises:
        UserError: if the archive is damaged or of another number of samples than the facts say.
    """
    facts = read_json(path.with_suffix(".json"))
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
            read_header = HEADERS[np.lib.format.read_magic(member)]
            shape, by_columns, kind = read_header(member)
            wanted = (min(count, shape[0]), *shape[1:])
            array = np.frombuffer(member.read(math.prod(wanted) * kind.itemsize), kind).reshape(wanted)
    except Exception as error:
        raise UserError(f"{path} is missing or damaged ({type(error).__name__}); {remedy(path)}") from error
    if shape[0] != facts["images"]:
        raise UserError(f"{path} is not what {path.with_suffix('.json')} records; {remedy(path)}")
    return load_samples(path)[:count] if by_columns else array
