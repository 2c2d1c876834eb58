"""Nearest neighbours in feature space: counted by hand, by brute force in whole numbers, and by others' packages."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from torch_fidelity.metric_prc import prc_features_to_metric

from targetwise.errors import UserError
from targetwise.metric import neighbours
from targetwise.metric.reference import Reference
from targetwise.recipe import kinds

ROOT = Path(__file__).parent.parent
MANIFOLD = ["precision", "recall", "density", "coverage"]
TRAINING = {"dataset": "digits", "split": "train", "first": None}


def column(*values):
    return np.array(values, np.float32)[:, None]


def reference_of(features, **facts):
    return Reference({**TRAINING, **facts}, features, features.mean(0), np.cov(features, rowvar=False))


def measured(name, features, real, **facts):
    with contextlib.chdir(ROOT):
        values = kinds.load("metrics", name)["measure"](features, reference_of(real, **facts))
    return {key: float(value) for key, value in values.items()}


def all_four(features, real):
    return {name: measured(name, features, real)[name] for name in MANIFOLD}


# --- by hand


def test_balls_of_four_points_on_a_line_are_counted():
    """Centres 0, 1, 3, 7 reach 1, 1, 2, 4 to their nearest other; −1 and 5 are on surfaces, 0.5 is in two balls."""
    found = neighbours.balls(column(-1, 0.5, 5, 20), column(0, 1, 3, 7), k=1)
    assert found.within.tolist() == [1, 2, 2, 0]
    assert found.inside.tolist() == [0, 2, 1, 0]
    assert found.held.tolist() == [1, 1, 0, 1]


def test_the_four_metrics_of_six_real_images_on_a_line():
    """Of 0 … 5 each one's 5th nearest other is the farthest: balls of radius 5, 4, 3, 3, 4, 5.

    −5 and 10 are on a surface, −2.5 is inside the first two, 30, 31 and 32 are in none.
    """
    real, samples = column(0, 1, 2, 3, 4, 5), column(-5, -2.5, 10, 30, 31, 32)
    found = all_four(samples, real)
    assert found == {"precision": 3 / 6, "recall": 1, "density": pytest.approx(2 / (5 * 6)), "coverage": 2 / 6}
    assert measured("recall", real, samples)["recall"] == 3 / 6, "precision with the roles exchanged"


def test_a_point_is_no_neighbour_of_itself_but_its_copy_is():
    distances, indices = neighbours.kth_neighbours(column(0, 0, 3, 10), 1)
    assert distances.tolist() == [0, 0, 9, 49] and indices.tolist()[:2] == [1, 0]
    distances, indices = neighbours.kth_neighbours(column(0, 0, 3, 10), 2)
    assert distances.tolist() == [9, 9, 9, 100]
    distances, indices = neighbours.kth_neighbours(column(4, 9), 1, column(0, 3, 10))
    assert distances.tolist() == [1, 1] and indices.tolist() == [1, 2]


def test_samples_that_are_the_real_images_have_whole_numbers():
    """Each image is inside its own ball and those of exactly k − 1 others are nearer than the k-th: density is 1."""
    real = np.random.default_rng(0).standard_normal((200, 40)).astype(np.float32) + 30
    assert all_four(real.copy(), real) == {"precision": 1, "recall": 1, "density": pytest.approx(1), "coverage": 1}


def test_one_image_over_and_over_is_within_what_it_copies_and_inside_nothing():
    real = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    collapsed = np.repeat(real[:1], 30, axis=0)
    held = cdist(real.astype(float), real[:1].astype(float))[:, 0] < np.sort(cdist(*[real.astype(float)] * 2))[:, 5]
    assert all_four(collapsed, real) == {
        "precision": 1,
        "recall": 1 / 50,
        "density": pytest.approx(held.sum() / 5),
        "coverage": held.mean(),
    }


# --- by brute force


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_counts_are_those_of_all_distances_in_whole_numbers(monkeypatch, seed, block):
    """Of small whole coordinates all distances are exact, many are equal, and copies are frequent."""
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "_counted", {})
    random = np.random.default_rng(seed)
    points, centres = (random.integers(0, 4, (n, 3)).astype(np.float32) + 1000 for n in (37, 29))
    squared = cdist(points, centres, "sqeuclidean")
    among = cdist(centres, centres, "sqeuclidean")
    np.fill_diagonal(among, np.inf)
    for k in (1, 2, 5, 28):
        radii = np.sort(among, axis=1)[:, k - 1]
        np.testing.assert_array_equal(neighbours.kth_neighbours(centres, k)[0], radii)
        found = neighbours.balls(points, centres, k)
        np.testing.assert_array_equal(found.within, (squared <= radii).sum(1))
        np.testing.assert_array_equal(found.inside, (squared < radii).sum(1))
        np.testing.assert_array_equal(found.held, (squared < radii).sum(0))
    nearest, indices = neighbours.kth_neighbours(points, 1, centres)
    np.testing.assert_array_equal(nearest, squared.min(1))
    np.testing.assert_array_equal(squared[np.arange(37), indices], squared.min(1))


def test_counts_are_kept_for_the_same_values_only():
    real = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert neighbours.balls(real, real, 1) is neighbours.balls(real.copy(), real.copy(), 1)
    assert len(neighbours.balls(real.reshape(24, 1), real.reshape(24, 1), 1).within) == 24, "the same bytes"
    assert neighbours.balls(real, real, 1).within.tolist() == [2, *[3] * 10, 2]
    assert neighbours.balls(real, real, 3).within[0] == 3
    changed = real + np.float32(0)
    changed[0] = 1000
    assert neighbours.balls(changed, real, 1).within[0] == 0


# --- by others' packages, with k said to both


@pytest.mark.parametrize(("n", "m", "dimensions"), [(300, 400, 4), (200, 90, 20)])
def test_agrees_with_torch_fidelity_and_prdc(n, m, dimensions):
    random = np.random.default_rng(n)
    real = random.standard_normal((n, dimensions)).astype(np.float32)
    samples = (0.8 * random.standard_normal((m, dimensions)) + 0.3 / dimensions**0.5).astype(np.float32)
    found = all_four(samples, real)
    theirs = compute_prdc(real, samples, nearest_k=5)
    assert found == pytest.approx({name: float(theirs[name]) for name in MANIFOLD})
    options = {"prc_neighborhood": 5, "prc_batch_size": 64, "save_cpu_ram": False, "verbose": False}
    fidelity = prc_features_to_metric(torch.from_numpy(samples), torch.from_numpy(real), **options)
    assert {name: found[name] for name in MANIFOLD[:2]} == pytest.approx(
        {name: fidelity[name] for name in MANIFOLD[:2]}
    )
    assert len(set(found.values())) == 4 and 0 < found["recall"] < 1


# --- what is expected of samples of the real distribution


def test_density_and_coverage_of_real_images_are_what_ranks_say():
    """n real and m new images are exchangeable: E[density] = 1, E[coverage] = 1 − Π_{i=1…5} (n − i)/(n + m − i)."""
    random, n, m, runs = np.random.default_rng(2), 40, 25, 400
    found = []
    for _ in range(runs):
        real, new = (random.standard_t(3, (size, 3)).astype(np.float32) for size in (n, m))
        counts = neighbours.balls(new, real)
        found.append((counts.inside.mean() / 5, (counts.held > 0).mean()))
    expected = 1, 1 - np.prod([(n - i) / (n + m - i) for i in range(1, 6)])
    errors = np.std(found, axis=0) / runs**0.5
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * errors) and np.all(errors < 0.01)


def test_new_images_are_as_near_as_training_images_are_to_each_other():
    """Two thirds of points on a circle are the nearest of their nearest: of three gaps each is as often the least."""
    random, runs, found = np.random.default_rng(3), 60, []
    for _ in range(runs):
        angles = random.uniform(0, 2 * np.pi, 300)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        values = measured("copying", points[:100], points[100:])
        found.append((values["copying"], values["authenticity"]))
    errors = np.std(found, axis=0) / runs**0.5
    assert np.all(np.abs(np.mean(found, axis=0) - [1 / 2, 1 / 3]) < 4 * errors) and np.all(errors < 0.01)


def test_copying_of_five_training_images_by_hand():
    """Training images 0, 1, 3, 7, 15 are 1, 1, 2, 4, 8 from their nearest other.

    2.5 is 0.5 from 3, nearer than all five; 8 is 1 from 7, as two are, nearer than three; 100 is nearer than none.
    Only of 100 is the nearest training image nearer to another one than to it.
    """
    found = measured("copying", column(2.5, 8, 100), column(0, 1, 3, 7, 15))
    assert found == {"copying": pytest.approx((5 + 3 + 2 / 2) / (3 * 5)), "authenticity": pytest.approx(1 / 3)}


def test_copies_are_seen_and_far_samples_are_none():
    real = np.random.default_rng(4).standard_normal((200, 16)).astype(np.float32) + 50
    assert measured("copying", real[:80].copy(), real) == {"copying": 1, "authenticity": 0}
    assert measured("copying", real[:80] + 1000, real) == {"copying": 0, "authenticity": 1}


@pytest.mark.parametrize("facts", [{"split": "test"}, {"first": 50}])
def test_copies_are_looked_for_among_all_training_images_only(facts):
    real = np.random.default_rng(5).standard_normal((60, 4)).astype(np.float32)
    with pytest.raises(UserError, match="copying compares with all training images, but the reference is of others"):
        measured("copying", real[:20], real, **facts)


# --- bad input


def test_too_few_images_and_values_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="5 nearest neighbours were asked for, but there are 4 images to be one"):
        neighbours.balls(column(0, 1), column(0, 1, 2, 3, 4))
    bad = column(0, 1, np.nan)
    for points, centres in ((bad, column(0, 1, 2)), (column(0, 1, 2), bad)):
        with pytest.raises(UserError, match="the features hold values that are not finite"):
            neighbours.balls(points, centres, 1)
