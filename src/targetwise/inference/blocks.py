"""Seeds as blocks: y_vs = variant_v + seed_s + e_vs by least squares over the cells that are there."""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Design:
    """Which cells finished, and all that follows from it alone.

    Attributes:
        present: (V, S), True where variant v has a value at seed s.
        shared: (V, V), the number of seeds that two variants have in common (their own number on the diagonal).
        component: (V,), variants with the same number are linked by seeds; only their differences are estimable.
        covariance: (V, V), of the effects for e of variance 1: the inverse of diag(r_v) − Σ_s n_vs·n_ws/k_s.
        df: degrees of freedom of the residuals, (V − 1)(S − 1) where complete.
    """

    present: Array
    shared: Array
    component: Array
    covariance: Array
    df: int

    def variance(self, a: Array, b: Array) -> Array:
        """Return the variance of effect a − effect b for e of variance 1; NaN where they are not linked."""
        of = self.covariance
        return np.where(self.component[a] == self.component[b], of[a, a] + of[b, b] - 2 * of[a, b], np.nan)

    def correlation(self, a: Array, b: Array) -> Array:
        """Return the correlation matrix of the estimated differences a_i − b_i."""
        of = self.covariance
        together = of[np.ix_(a, a)] - of[np.ix_(a, b)] - of[np.ix_(b, a)] + of[np.ix_(b, b)]
        deviation = np.sqrt(np.diag(together))
        return np.asarray(together / np.outer(deviation, deviation))

    def fit(self, y: Array) -> tuple[Array, Array]:
        """Return effects (…, V) and residuals (…, V, S; 0 where there is no cell) of tables ``y`` (…, V, S).

        Effects sum to 0 in each component; values of ``y`` without a cell are not looked at.
        """
        y = np.where(self.present, y, 0.0)
        cells = np.maximum(self.present.sum(0), 1)
        within = np.where(self.present, y - (y.sum(-2) / cells)[..., None, :], 0.0)
        effects = within.sum(-1) @ self.covariance
        of_cells = np.where(self.present, effects[..., None], 0.0)
        residuals = np.where(self.present, within - of_cells + (of_cells.sum(-2) / cells)[..., None, :], 0.0)
        return effects, residuals


def on_scale(values: Array) -> tuple[Array, str]:
    """Return finite ``values`` as they are compared, and the scale: ``ratio`` (their logarithms) or ``difference``.

    A metric that is not positive everywhere (an unbiased KID may be negative) has no ratios.
    """
    if (values > 0).all():
        return np.log(values), "ratio"
    return values, "difference"


def design(present: Array) -> Design:
    """Return the design of a (V, S) mask of finished cells; the same mask gives the same object."""
    present = np.asarray(present, dtype=bool)
    return _design(present.shape, present.tobytes())


@functools.lru_cache(maxsize=64)
def _design(shape: tuple[int, int], cells: bytes) -> Design:
    present = np.frombuffer(cells, dtype=bool).reshape(shape)
    counts = present.astype(float)
    shared = counts @ counts.T
    _, component = connected_components(shared > 0, directed=False)
    information = np.diag(counts.sum(1)) - (counts / np.maximum(counts.sum(0), 1)) @ counts.T
    with_cells = counts.any(1)
    rank = int(with_cells.sum() + counts.any(0).sum()) - len(set(component[with_cells].tolist()))
    covariance = np.linalg.pinv(information, rcond=1e-9, hermitian=True)
    return Design(present, shared.astype(int), component, covariance, int(counts.sum()) - rank)
