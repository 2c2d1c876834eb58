"""The distances: closed forms, clean-fid and scipy against ours, and what singular covariances do."""

import numpy as np
import pytest

from targetwise.errors import UserError
from targetwise.metric import clean_fid, distance


def features(n, dimensions, seed=0, scale=1.0, shift=0.0):
    """Correlated, of very different variances, as a network's features are."""
    random = np.random.default_rng(seed)
    mixed = (
        random.standard_normal((n, dimensions)) @ random.standard_normal((dimensions, dimensions)) / dimensions**0.5
    )
    return mixed * np.logspace(0, -2, dimensions) * scale + shift


def between(implementation, first, second):
    return distance.FRECHET[implementation](*distance.moments(first), *distance.moments(second))


def test_one_dimension_is_the_closed_form():
    """(μ₁ − μ₂)² + (σ₁ − σ₂)²."""
    found = distance.frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[25.0]]))
    assert found == pytest.approx(9 + 9, abs=1e-9)


@pytest.mark.parametrize("implementation", distance.FRECHET)
def test_commuting_covariances_are_the_closed_form(implementation):
    """‖μ₁ − μ₂‖² + Σ(√λ₁ − √λ₂)² for covariances with the same eigenvectors."""
    random = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(random.standard_normal((20, 20)))
    first, second = random.uniform(0.1, 9, 20), random.uniform(0.1, 9, 20)
    covariances = [(rotation * values) @ rotation.T for values in (first, second)]
    found = distance.FRECHET[implementation](np.full(20, 0.5), covariances[0], np.zeros(20), covariances[1])
    assert found == pytest.approx(5 + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum(), rel=1e-10)


def test_eigenvalues_give_what_the_matrix_square_root_gives():
    for seed in range(3):
        first, second = features(900, 96, seed), features(700, 96, seed + 10, scale=1.3, shift=0.2)
        assert between("fast", first, second) == pytest.approx(between("clean-fid", first, second), rel=1e-9)


@pytest.mark.parametrize("implementation", distance.FRECHET)
def test_distance_is_symmetric_and_zero_to_itself(implementation):
    first, second = features(400, 48), features(300, 48, seed=1)
    assert between(implementation, first, second) == pytest.approx(between(implementation, second, first), rel=1e-9)
    assert between(implementation, first, first) == pytest.approx(0, abs=1e-6)
    assert between(implementation, first, second) > 0


def test_singular_covariances_keep_their_distance():
    """Two sets of 20 vectors of 64 dimensions, and the same in the 40 dimensions that both span."""
    first, second = features(20, 64), features(20, 64, seed=1)
    basis, _ = np.linalg.qr(np.vstack([first, second]).T)
    found = between("fast", first, second)
    assert found == pytest.approx(between("fast", first @ basis, second @ basis), rel=1e-6)
    assert between("fast", first, first) == pytest.approx(0, abs=1e-6)


def test_moments_are_those_of_numpy_in_double_precision():
    single = features(50, 8).astype(np.float32)
    mean, covariance = distance.moments(single)
    assert mean.dtype == covariance.dtype == np.float64
    np.testing.assert_allclose(mean, single.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(single.astype(np.float64).T), rtol=1e-12)


def test_too_few_and_not_finite_features_are_refused():
    with pytest.raises(UserError, match="at least two images, not 1"):
        distance.moments(np.ones((1, 4)))
    broken = np.ones((5, 4))
    broken[2, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        distance.moments(broken)


@pytest.mark.parametrize("implementation", distance.KERNEL)
def test_kernel_distance_is_the_unbiased_estimate(implementation):
    """With sets of one size below 1,000 every subset is the whole set: U-statistics within, all pairs across."""
    x, y = features(60, 16), features(60, 16, seed=1, shift=0.3)
    kernel = lambda a, b: (a @ b.T / 16 + 1) ** 3  # noqa: E731
    within = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (60 * 59) for z in (x, y)]
    expected = sum(within) - 2 * kernel(x, y).mean()
    assert distance.KERNEL[implementation](x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("implementation", distance.KERNEL)
def test_kernel_distance_is_the_same_again_and_leaves_numpys_stream_alone(implementation):
    kernel_distance = distance.KERNEL[implementation]
    x, y = features(1100, 8), features(1050, 8, seed=1)
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert kernel_distance(x, y) == kernel_distance(x, y)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_fast_kernel_distance_is_over_the_subsets_of_clean_fid():
    """Subsets of 1,000 of 1,100 images: other ones would differ in the third digit."""
    x, y = features(1100, 8), features(1050, 8, seed=1, shift=0.1)
    assert distance.kernel_distance(x, y) == pytest.approx(clean_fid.kernel_distance(x, y), rel=1e-9)


def test_imaginary_square_root_is_told(monkeypatch):
    import cleanfid.fid

    def imaginary(*moments):
        raise ValueError("Imaginary component 3")

    monkeypatch.setattr(cleanfid.fid, "frechet_distance", imaginary)
    with pytest.raises(UserError, match=r"Imaginary component 3\); metric\.implementation: fast does not need it"):
        between("clean-fid", features(5, 3), features(5, 3))
