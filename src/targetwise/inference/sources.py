"""Where the spread of one variant's values comes from: training seed, variant at a seed, draw, finite samples.

y = variant + seed + cell + draw with variances σ²_seed, σ²_residual and σ²_draw, on the scale of the comparison. Two
variants of the same seed share σ²_seed and nothing else, so their correlation over seeds is
ρ = σ²_seed/(σ²_seed + σ²_residual), and without common random numbers a difference would need 1/(1 − ρ) times the
seeds.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM

from targetwise.inference.blocks import on_scale

Array = np.ndarray


@dataclass(frozen=True)
class Sources:
    """Variances on the scale of the comparison (of ln(value), unless a value is not positive); NaN where unknown.

    Attributes:
        seed: what all variants of a seed share.
        residual: what a variant does at a seed beyond that.
        draw: between draws of one cell; NaN where there is one draw each.
        samples: from finite samples, the mean of ``error``²; part of the others. NaN without errors.
        estimator: ``REML`` or ``analysis of variance``.
    """

    seed: float
    residual: float
    draw: float
    samples: float
    estimator: str

    @property
    def correlation(self) -> float:
        """The correlation ρ of two variants over seeds, 0 to 1; NaN where all values are equal."""
        total = self.seed + self.residual
        return self.seed / total if total > 0 else np.nan

    @property
    def factor(self) -> float:
        """How many times the seeds a study without common random numbers needs, 1/(1 − ρ)."""
        return (self.seed + self.residual) / self.residual if self.residual > 0 else np.nan

    @property
    def samples_share(self) -> float:
        """The share of one value's variance that comes from finite samples, at most 1."""
        total = np.nansum([self.seed, self.residual, self.draw])
        return min(self.samples / total, 1.0) if total > 0 else np.nan


def sources(values: pd.DataFrame) -> Sources:
    """Return the variance components of one setting.

    REML (Patterson & Thompson 1971), which for complete tables is the analysis of variance wherever that gives no
    negative variance; where the mixed model does not converge, the analysis of variance with negative ones set to 0.

    Args:
        values: columns parameterization, seed and value, a row per cell or, with a column draw, per draw. A column
            error is the standard error of ln(value) from finite samples. Rows without a finite value are left out.
    """
    values = values[np.isfinite(values["value"].to_numpy(dtype=float))]
    y, scale = on_scale(values["value"].to_numpy(dtype=float))
    samples = np.nan
    if "error" in values and values["error"].notna().any():
        errors = values["error"].to_numpy(dtype=float) * (1.0 if scale == "ratio" else values["value"].abs())
        samples = float(np.nanmean(errors**2))
    variant, seed = (pd.factorize(values[name])[0] for name in ("parameterization", "seed"))
    moments, exact = _analysis_of_variance(y, variant, seed)
    if exact or np.isnan(moments[1]):
        return Sources(*moments, samples, "REML" if exact else "analysis of variance")
    found = _reml(y, variant, seed, draws=not np.isnan(moments[2]))
    if found is None:
        seed_, residual, draw = np.maximum(moments, 0.0).tolist()
        return Sources(seed_, residual, draw, samples, "analysis of variance")
    return Sources(*found, samples, "REML")


def _analysis_of_variance(y: Array, variant: Array, seed: Array) -> tuple[tuple[float, float, float], bool]:
    """Return σ²_seed, σ²_residual and σ²_draw by Henderson's third method, and whether they are REML's."""
    cell = pd.factorize(variant * (seed.max(initial=0) + 1) + seed)[0]
    variants, seeds, cells = (_indicators(of) for of in (variant, seed, cell))
    both = np.hstack([variants, seeds])
    without = [np.eye(len(y)) - fitted for fitted in (_means(variant), both @ np.linalg.pinv(both), _means(cell))]
    squares = [float(y @ maker @ y) for maker in without]
    rounding = 1e-12 * float(y @ y)
    squares = [each if each > rounding else 0.0 for each in squares]
    df = [round(float(np.trace(maker))) for maker in without]
    draw = squares[2] / df[2] if df[2] else np.nan
    noise = 0.0 if np.isnan(draw) else draw
    of_cells = [float(np.trace(cells.T @ maker @ cells)) for maker in without[:2]]
    if df[1] == df[2]:
        return (np.nan, np.nan, draw), False
    residual = (squares[1] - squares[2] - (df[1] - df[2]) * noise) / of_cells[1]
    of_seeds = float(np.trace(seeds.T @ without[0] @ seeds))
    if df[0] == df[1]:
        return (np.nan, residual, draw), False
    found = (squares[0] - squares[1] - (df[0] - df[1]) * noise - (of_cells[0] - of_cells[1]) * residual) / of_seeds
    counts = np.bincount(cell)
    complete = len(counts) == (variant.max() + 1) * (seed.max() + 1) and counts.min() == counts.max()
    return (found, residual, draw), bool(complete and min(found, residual) >= 0)


def _reml(y: Array, variant: Array, seed: Array, draws: bool) -> tuple[float, float, float] | None:
    parts = {"cell": {group: _indicators(variant[seed == group]) for group in np.unique(seed)}} if draws else None
    one = np.ones((len(y), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it converged is asked below
        try:
            found = MixedLM(y, _indicators(variant), seed, exog_re=one, exog_vc=parts).fit(reml=True)
        except (np.linalg.LinAlgError, ValueError):
            return None
    if not found.converged:
        return None
    shared, scale = float(np.asarray(found.cov_re)[0, 0]), float(found.scale)
    return (shared, float(found.vcomp[0]), scale) if draws else (shared, scale, np.nan)


def _indicators(of: Array) -> Array:
    return (of[:, None] == np.unique(of)).astype(float)


def _means(of: Array) -> Array:
    """Return the matrix that puts the mean of its group in the place of each value."""
    return (of[:, None] == of) / np.bincount(of)[of]
