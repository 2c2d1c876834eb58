"""The figure of a check, as a file: how outputs are conditioned over time, and what their objectives ask for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from targetwise.errors import UserError
from targetwise.files import atomic

DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.6)), (0, (7, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
FORMATS = (".svg", ".png", ".pdf")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "check",
}


def require_drawable(path: Path) -> None:
    """Refuse a figure's path before anything is computed for it.

    Raises:
        UserError: if its ending is none of :data:`FORMATS`, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--figure is {path}; its name must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not path.parent.is_dir():
        raise UserError(f"--figure is {path}, but there is no folder {path.parent}")


def draw(checks: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the checks of some variants into one file.

    Args:
        checks: what :func:`targetwise.check.roundtrip.check` returns, by variant.
        path: of the figure; see :func:`require_drawable`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained", facecolor="white")
        gain, asked = figure.subplots(1, 2)
        for place, (name, found) in enumerate(checks.items()):
            # Thinner and thinner, so that of two that coincide both are seen.
            width = 4 - 2.6 * place / max(1, len(checks) - 1)
            style = {"color": f"C{place % 10}", "linestyle": DASHES[place % len(DASHES)], "linewidth": width}
            gain.plot(found["curve"]["t"], _positive(found["curve"]["gain_to_x0"]), label=name, **style)
            objective = found["objective"]
            asked.plot(objective["log_snr"], _positive(objective["effective_weight"]), label=name, **style)
        gain.set(
            yscale="log", title="How an error of the output reaches x₀", ylabel="error of x₀ by one of the output"
        )
        gain.set_xlabel("time step t")
        asked.set(yscale="log", title="What the objective asks for", ylabel="effective weight, a density")
        asked.set_xlabel("λ = ln SNR, from the image to the noise")
        asked.invert_xaxis()
        figure.legend(*gain.get_legend_handles_labels(), loc="outside right upper", frameon=False, handlelength=3.2)
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=_undated(path.suffix))


def _undated(suffix: str) -> dict[str, None] | None:
    """Return what keeps the date out of a file, so that the same check gives the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)


def _positive(values: Sequence[float | None]) -> np.ndarray:
    """Return the values that a logarithmic axis has a place for; the others, and what is None, are gaps."""
    shown = np.array(values, dtype=float)
    return np.where(shown > 0, shown, np.nan)
