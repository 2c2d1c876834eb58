"""Read a draw of samples; without PyTorch, which most readers of samples do not need."""

from pathlib import Path

import numpy as np

from targetwise.errors import UserError
from targetwise.files import read_json, remedy, sha256_of_array


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
