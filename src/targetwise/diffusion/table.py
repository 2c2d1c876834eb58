"""A weighting that is a table: ``workflow/weightings/<name>.csv``, a weight in x0 space for every time step."""

from pathlib import Path

import numpy as np

from targetwise.errors import UserError, in_one_line

HEADER = "t,weight"


def read(path: Path, steps: int) -> np.ndarray:
    """Return the weight at each of ``steps`` time steps, (T,) fp64.

    Raises:
        UserError: if the file is not a row for every time step, 0 … T−1, under :data:`HEADER`.
    """
    wanted = f"a table of weights has the line '{HEADER}' and a row for each of {steps} time steps, from t = 0 up"
    try:
        header, *lines = path.read_text("utf-8-sig").splitlines() or [""]
        rows = np.array([[float(number) for number in line.split(",")] for line in lines])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {in_one_line(error)}; {wanted}") from error
    if header != HEADER or rows.shape != (steps, 2) or (rows[:, 0] != np.arange(steps)).any():
        raise UserError(f"{path} has the line {header!r} and {len(lines)} rows after it; {wanted}")
    return rows[:, 1]


def written(weight: np.ndarray) -> str:
    """Return the content of a table of these weights, which reads back bit by bit."""
    return "\n".join([HEADER, *(f"{t},{each!r}" for t, each in enumerate(weight.tolist())), ""])
