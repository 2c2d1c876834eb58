"""Sources of spread: known variances are found again, and the closed form is what the mixed model gives."""

import numpy as np
import pandas as pd
import pytest

from targetwise.inference import sources as module
from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
from targetwise.inference.sources import sources


def cells(random, variants, seeds, draws, seed, residual, draw):
    """Return rows whose ln(value) has these deviations around variants 1 % apart."""
    y = (
        0.01 * np.arange(variants)[:, None, None]
        + random.normal(0, seed, (1, seeds, 1))
        + random.normal(0, residual, (variants, seeds, 1))
        + random.normal(0, draw, (variants, seeds, draws))
    )
    index = np.indices(y.shape).reshape(3, -1)
    return pd.DataFrame(
        {"parameterization": index[0], "seed": index[1], "draw": index[2], "value": np.exp(y.reshape(-1))}
    )


def test_known_variances_are_found_on_average():
    random = np.random.default_rng(0)
    found = [sources(cells(random, 4, 6, 2, 0.06, 0.03, 0.02)) for _ in range(150)]
    for name, deviation in (("seed", 0.06), ("residual", 0.03), ("draw", 0.02)):
        values = np.array([getattr(each, name) for each in found])
        assert values.mean() == pytest.approx(deviation**2, abs=4 * values.std() / np.sqrt(len(values))), name


@pytest.mark.parametrize("draws", [1, 2])
def test_the_closed_form_is_reml_where_it_says_so(draws):
    rows = cells(np.random.default_rng(3), 4, 5, draws, 0.06, 0.03, 0.02)
    variant, seed = rows["parameterization"].to_numpy(), rows["seed"].to_numpy()
    y = np.log(rows["value"].to_numpy())
    moments, exact = module._analysis_of_variance(y, variant, seed)
    assert exact
    np.testing.assert_allclose(module._reml(y, variant, seed, draws=draws > 1), moments, rtol=2e-3)


def test_the_analysis_of_variance_by_hand():
    """One draw: σ²_residual = MS_residual, σ²_seed = (MS_seed − MS_residual)/V."""
    rows = cells(np.random.default_rng(3), 4, 5, 1, 0.06, 0.03, 0.0)
    y = np.log(rows["value"].to_numpy()).reshape(4, 5)
    residual = y - y.mean(0) - y.mean(1)[:, None] + y.mean()
    mean_square = (residual**2).sum() / 12
    found = sources(rows)
    assert found.residual == pytest.approx(mean_square)
    assert found.seed == pytest.approx(y.mean(0).var(ddof=1) - mean_square / 4)
    assert found.correlation == pytest.approx(found.seed / (found.seed + found.residual))
    assert found.factor == pytest.approx(1 / (1 - found.correlation))


def test_seeds_that_share_nothing_saved_nothing():
    """Residuals that sum to 0 over variants make the seeds' variance negative: it is 0, and the factor 1."""
    random = np.random.default_rng(1)
    y = random.normal(0, 0.03, (4, 5))
    y -= y.mean(0)
    rows = pd.DataFrame(
        [{"parameterization": v, "seed": s, "value": np.exp(y[v, s])} for v in range(4) for s in range(5)]
    )
    found = sources(rows)
    assert found.seed == pytest.approx(0, abs=1e-8)
    assert (found.correlation, found.factor) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))


def test_what_does_not_converge_is_an_analysis_of_variance(monkeypatch):
    rows = cells(np.random.default_rng(3), 4, 5, 1, 0.06, 0.03, 0.0)
    whole, part = sources(rows), rows.drop(index=[2])
    monkeypatch.setattr(module, "_reml", lambda *_, **__: None)
    found = sources(part)
    assert found.estimator == "analysis of variance"
    assert found.seed == pytest.approx(whole.seed, rel=0.3) and found.residual == pytest.approx(
        whole.residual, rel=0.3
    )


def test_the_share_of_finite_samples():
    rows = cells(np.random.default_rng(3), 4, 5, 1, 0.06, 0.03, 0.0)
    assert np.isnan(sources(rows).samples_share)
    found = sources(rows.assign(error=0.02))
    assert found.samples == pytest.approx(0.0004)
    assert found.samples_share == pytest.approx(0.0004 / (found.seed + found.residual))
    assert sources(rows.assign(error=1.0)).samples_share == 1
    # On the scale of differences the error of ln(value) is that of the value over the value.
    negative = rows.assign(value=[-2.0] + [2.0] * (len(rows) - 1), error=0.02)
    assert sources(negative).samples == pytest.approx(0.0016)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_cells(rows):
    found = sources(cells(np.random.default_rng(3), 1, 2, 1, 0.06, 0.03, 0.0).iloc[:rows])
    assert np.isnan([found.residual, found.draw, found.correlation, found.factor]).all()


def test_common_random_numbers_save_the_seeds_they_are_said_to_save():
    """In a complete table: the mean variance of a variant over seeds, over half that of a paired difference."""
    rows = cells(np.random.default_rng(2), 5, 7, 1, 0.06, 0.03, 0.0)
    y = np.log(rows["value"].to_numpy()).reshape(5, 7)
    a, b = np.triu_indices(5, 1)
    paired = (y[a] - y[b]).var(-1, ddof=1).mean() / 2
    assert compare(rows, Declared()).factor == pytest.approx(y.var(-1, ddof=1).mean() / paired)
