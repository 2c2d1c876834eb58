"""The standard error of a number from its own samples: against the spread over fresh samples."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from targetwise import cells
from targetwise.errors import UserError
from targetwise.metric import blocks, distance
from targetwise.metric.contributions import Contributions, NoErrorKnown, Part, paired_error, shuffled
from targetwise.metric.distance import frechet_distance, moments
from targetwise.metric.influence import frechet_contributions, left_out

ROOT = Path(__file__).parent.parent
DIMENSIONS = 16


@pytest.fixture(scope="module")
def factor():
    """A square root of the samples' covariance, whose eigenvalues spread over a factor of 16."""
    random = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))
    return rotation * np.linspace(4, 1, DIMENSIONS) ** 0.5 / np.arange(1, DIMENSIONS + 1) ** 0.25


@pytest.fixture(scope="module", params=["same", "far"])
def reference(request, factor):
    """Mean and covariance of what samples are compared with: their own, or those of another distribution."""
    own = factor @ factor.T
    if request.param == "same":
        return np.zeros(DIMENSIONS), own
    random = np.random.default_rng(1)
    stretch = np.eye(DIMENSIONS) + 0.08 * random.standard_normal((DIMENSIONS, DIMENSIONS))
    return 0.3 * random.standard_normal(DIMENSIONS), stretch @ own @ stretch.T


def normal(random, count):
    return random.standard_normal((count, DIMENSIONS))


def skewed(random, count):
    """Gamma of shape 4: skewness 1, excess kurtosis 1.5."""
    return (random.gamma(4, size=(count, DIMENSIONS)) - 4) / 2


def repeated(draw, factor, reference, count, times):
    """Return the distances of fresh sets of samples, and the contributions to each."""
    random = np.random.default_rng(2)
    sets = [draw(random, count) @ factor.T for _ in range(times)]
    return (
        np.array([frechet_distance(*moments(each), *reference) for each in sets]),
        [frechet_contributions(each, *reference) for each in sets],
    )


def require_spread(values, errors, at_most=4.0):
    """Hold the errors' mean square against the values' variance, by the Monte-Carlo error of both."""
    squares, variance = np.square(errors), np.var(values, ddof=1)
    fourth = np.mean((values - values.mean()) ** 4) / variance**2
    off = squares.mean() / variance - 1
    noise = np.sqrt((fourth - 1) / len(values) + (squares.std() / variance) ** 2 / len(values))
    assert abs(off) < at_most * noise, f"{off:+.3f} of the variance, noise {noise:.3f}"


def test_the_influence_is_the_derivative_of_the_distance(factor):
    """Against a finite difference: the set with a little more weight on one sample, by scipy's matrix square root.

    Each sample is there a hundred times, so that what it does to the derivative itself is small.
    """
    random = np.random.default_rng(3)
    samples = (random.standard_normal((900, DIMENSIONS)) @ factor.T)[:, :5]
    other = random.standard_normal((5, 5)) / 3
    mean, covariance = np.full(5, 0.7), np.eye(5) + other @ other.T

    def weighted(weights):
        own = weights @ samples
        spread = (samples - own).T * weights @ (samples - own)
        cross = linalg.sqrtm(covariance @ spread)
        return ((own - mean) ** 2).sum() + np.trace(covariance + spread - 2 * cross).real

    found = left_out(np.tile(samples, (100, 1)), mean, linalg.sqrtm(covariance).real)
    even, step = np.full(900, 1 / 900), 1e-5
    for place in (0, 17, 400):
        single = np.eye(900)[place]
        more, less = (weighted((1 - each) * even + each * single) for each in (step, -step))
        assert found[place] == pytest.approx((more - less) / (2 * step), rel=5e-3)


def test_what_a_sample_takes_along_is_the_jackknifes_to_second_order(factor):
    """Against the distance without the sample; the influence function alone is thirty times as far off."""
    random = np.random.default_rng(13)
    samples = random.standard_t(5, size=(120, 5)) @ factor[:5, :5].T + random.standard_normal((120, 5))
    mean, covariance = np.full(5, 0.1), np.cov(samples.T)
    without = [frechet_distance(*moments(np.delete(samples, place, 0)), mean, covariance) for place in range(120)]
    exact = -119 * (np.array(without) - np.mean(without))
    root = linalg.sqrtm(covariance).real
    found, gradient = (left_out(np.tile(samples, (times, 1)), mean, root)[:120] for times in (1, 300))
    off, plainly_off = (np.std(each - exact) / exact.std() for each in (found, gradient))
    assert off < 0.05 and off < 0.2 * plainly_off, (off, plainly_off)


@pytest.mark.parametrize(("draw", "share"), [(normal, 6), (normal, 12), (skewed, 12)])
def test_the_error_is_the_spread_over_fresh_samples(draw, share, factor, reference):
    """With six times as many samples as features, and with twelve times."""
    values, made = repeated(draw, factor, reference, share * DIMENSIONS, 400)
    errors = np.array([each.error() for each in made])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(ddof=1), rel=0.15)
    covered = np.mean(abs(values - values.mean()) < 1.96 * errors)
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_without_a_difference_a_jackknife_is_too_large_by_the_square_root_of_two(factor):
    """Which is what halves and bounds are for: C₁ vanishes, and plain is C₁ + 2C₂."""
    reference = np.zeros(DIMENSIONS), factor @ factor.T
    values, made = repeated(normal, factor, reference, 192, 400)
    plain = np.sqrt(np.mean([each.parts[0].spread for each in made]))
    assert plain / values.std(ddof=1) == pytest.approx(np.sqrt(2), rel=0.12)


def test_weights_and_bounds_leave_the_variance_of_a_square_of_a_mean():
    """θ = x̄² of m = 0 and 1: Var = 4m²σ²/n + 2σ⁴/n², and ψ = 2x̄(x − x̄)."""
    random = np.random.default_rng(4)
    for mean, truth in ((0.0, 2 / 100**2), (1.0, 4 / 100 + 2 / 100**2)):
        estimates = []
        for _ in range(4000):
            x = mean + random.standard_normal(100)
            parts = [Part(1.5, 2 * x.mean() * x), *(Part(-0.125, 2 * h.mean() * h) for h in np.split(x, 2))]
            estimates.append(sum(part.weight * part.spread for part in parts))
        assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / 4000**0.5)


def test_paired_error_is_the_spread_of_the_difference(factor):
    """Two models fed with the same latents, through what rows keep: groups of samples and nine digits."""
    random = np.random.default_rng(5)
    near = np.eye(DIMENSIONS) + 0.04 * random.standard_normal((DIMENSIONS, DIMENSIONS))
    mean, covariance = np.full(DIMENSIONS, 0.3), 1.4 * factor @ factor.T
    differences, paired, unpaired = [], [], []
    for _ in range(300):
        latents = random.standard_normal((1200, DIMENSIONS))
        pair = latents @ factor.T, latents @ (near @ factor).T
        values = [frechet_distance(*moments(each), mean, covariance) for each in pair]
        made = [frechet_contributions(each, mean, covariance).condensed() for each in pair]
        differences.append(values[0] - values[1])
        paired.append(paired_error(*(each.record() for each in made)))
        unpaired.append(np.hypot(*(each.error() for each in made)))
    require_spread(np.array(differences), paired)
    assert np.mean(unpaired) > 2 * np.mean(paired)


def test_a_row_keeps_groups_that_give_nearly_the_error_of_single_samples(factor):
    random = np.random.default_rng(6)
    samples = random.standard_normal((4001, DIMENSIONS)) @ factor.T
    whole = frechet_contributions(samples, np.full(DIMENSIONS, 0.3), 1.4 * factor @ factor.T)
    kept = Contributions.recorded(whole.condensed().record())
    assert [len(part.values) for part in whole.parts] == [4001, 2001, 2000]
    assert [len(part.values) for part in kept.parts] == [100, 50, 50]
    assert kept.error() == pytest.approx(whole.error(), rel=4 / np.sqrt(2 * 100))
    assert kept.parts[0].values.mean() == pytest.approx(0, abs=1e-3 * kept.parts[0].values.std())


def test_an_order_of_the_samples_does_not_change_the_error(factor):
    """Image i of a class-conditional draw has the label i modulo K; halves by parity would be of other classes."""
    random = np.random.default_rng(7)
    samples = random.standard_normal((1000, DIMENSIONS)) @ factor.T
    samples[::2] += 2
    reference = np.ones(DIMENSIONS), factor @ factor.T
    errors = [frechet_contributions(each, *reference).error() for each in (samples, random.permutation(samples))]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    order, digest = shuffled(1000)
    assert sorted(order) == list(range(1000)) and abs(np.mean(order[:500] % 2) - 0.5) < 0.1
    assert digest == shuffled(1000)[1] != shuffled(1001)[1]


def test_too_few_samples_have_no_error():
    random = np.random.default_rng(8)
    reference = np.zeros(DIMENSIONS), np.eye(DIMENSIONS)
    with pytest.raises(NoErrorKnown, match="33 samples are fewer than 34, twice the features and two"):
        frechet_contributions(random.standard_normal((33, DIMENSIONS)), *reference)
    assert frechet_contributions(random.standard_normal((34, DIMENSIONS)), *reference).error() > 0
    with pytest.raises(NoErrorKnown, match="199 samples are fewer than 200"):
        blocks.kernel_contributions(random.standard_normal((199, 3)), random.standard_normal((300, 3)))


def test_a_feature_that_never_varies_is_no_obstacle(factor):
    random = np.random.default_rng(9)
    samples = random.standard_normal((500, DIMENSIONS)) @ factor.T
    dead = np.pad(samples, ((0, 0), (0, 2)))
    covariance = 1.4 * factor @ factor.T
    expected = frechet_contributions(samples, np.zeros(DIMENSIONS), covariance).error()
    found = frechet_contributions(dead, np.zeros(DIMENSIONS + 2), np.pad(covariance, (0, 2)))
    assert found.error() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("subset", "subsets", "at_most"), [(60, 10, 1.3), (600, 2, 2.5)])
def test_the_error_of_the_kernel_distance_is_its_spread(
    subset, subsets, at_most, factor, reference, monkeypatch, request
):
    """With subsets so few that their own scatter counts, and with subsets of all samples.

    Blocks of twenty say little of how distances of 600 samples of the reference's own distribution scatter, so there
    the error is too large: the price of being sure with another one.
    """
    for module in (distance, blocks):
        monkeypatch.setattr(module, "SUBSET", subset)
        monkeypatch.setattr(module, "SUBSETS", subsets)
    monkeypatch.setattr(blocks, "COMPARED", 1000)
    random = np.random.default_rng(10)
    other = random.multivariate_normal(*reference, 1000)[:, :6]
    values, errors = [], []
    for _ in range(150):
        made = (random.standard_normal((600, DIMENSIONS)) @ factor.T)[:, :6]
        values.append(distance.kernel_distance(made, other))
        errors.append(blocks.kernel_contributions(made, other).error())
    found = np.mean(errors) / np.std(values, ddof=1)
    is_far = reference[0].any()
    assert 0.8 < found < (1.25 if is_far else at_most), found


def test_a_mean_over_random_subsets_varies_as_the_weights_say(monkeypatch):
    """With the kernel x·y in one dimension: A is the variance of −2x·m, m the reference's mean, and B is 2.

    Fresh sets of 60 and fresh choices of 20 subsets of 12, and as many of a reference of 600.
    """
    monkeypatch.setattr(blocks, "SUBSETS", 20)
    random = np.random.default_rng(12)

    def spread(mean):
        reference = random.standard_normal(600)
        reference += mean - reference.mean()
        values = []
        for _ in range(4000):
            x = random.standard_normal(60)[np.argsort(random.random((20, 60)))[:, :12]]
            y = reference[random.integers(600, size=(20, 12))]
            within = (x.sum(axis=1) ** 2 - (x**2).sum(axis=1)) / (12 * 11)
            values.append(np.mean(within - 2 * x.mean(axis=1) * y.mean(axis=1)))
        return np.var(values)

    assert spread(30) == pytest.approx(4 * 30**2 * blocks._variance(60, 12, 1), rel=0.1)
    assert spread(0) == pytest.approx(2 * blocks._variance(60, 12, 2), rel=0.2)


def test_blocks_are_fifty_and_no_larger_than_a_subset():
    random = np.random.default_rng(11)
    for count, number in ((200, 10), (999, 49), (10_000, 50)):
        made = blocks.kernel_contributions(random.standard_normal((count, 2)), random.standard_normal((300, 2)))
        assert [len(part.values) for part in made.parts] == [number, 2 * number]


def test_numbers_of_other_methods_or_orders_cannot_be_paired():
    one = Contributions("blocks", "a" * 64, (Part(1.0, np.arange(5.0)),))
    for method, order, length in (("halves", "a" * 64, 5), ("blocks", "b" * 64, 5), ("blocks", "a" * 64, 6)):
        other = Contributions(method, order, (Part(1.0, np.arange(float(length))),))
        with pytest.raises(UserError, match="by one method from as many samples"):
            paired_error(one.record(), other.record())
    assert paired_error(one.record(), one.record()) == 0
    assert one.error() == pytest.approx(np.std(np.arange(5), ddof=1) / 5**0.5)


def test_a_file_that_tells_errors_makes_no_row_out_of_date(tmp_path, monkeypatch):
    """They describe a number and decide none; DVC would train a cell again whose metric's file was edited."""
    from targetwise.recipe import kinds

    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path / "workflow")
    options = {"names": ["frechet", "kid"]}
    reference = {"images_sha256": "a" * 64, "extractor_sha256": "b" * 64}
    usual = cells.row_key(options, reference)
    (tmp_path / "workflow/errors/frechet.py").write_text("edited")
    (tmp_path / "workflow/errors/kid.py").unlink()
    assert cells.row_key(options, reference) == usual
