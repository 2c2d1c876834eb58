"""The exact denoiser against closed forms, limits, Tweedie's formula, and every other denoiser."""

import math

import numpy as np
import pytest
import torch

from targetwise.diffusion import exact
from targetwise.diffusion.exact import ExactDenoiser

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return torch.from_numpy(RANDOM.standard_normal(shape))


def images(count=40, shape=(1, 2, 3)):
    return torch.from_numpy(RANDOM.uniform(-1, 1, (count, *shape)))


@pytest.mark.parametrize("a", [0.9, 0.1])
def test_two_points_give_the_hyperbolic_tangent(a):
    """x_0 = ±m: E[x_0 | x_t] = m·tanh(a·m·x_t/b²)."""
    m, b, x_t = 0.7, 0.4, torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    found = ExactDenoiser(torch.tensor([[m], [-m]])).x0(x_t, a, b)
    torch.testing.assert_close(found, m * torch.tanh(a * m * x_t / b**2), rtol=1e-6, atol=1e-7)  # m is of fp32


def test_with_little_noise_it_is_the_nearest_image():
    known = images()
    noisy = 0.9 * known[[3, 17]] + 0.01 * normal(2, 1, 2, 3)
    for b in (1e-3, 1e-200, 0.0):
        assert torch.equal(ExactDenoiser(known).x0(noisy, 0.9, b), known[[3, 17]])


def test_images_equally_near_share_the_limit():
    found = ExactDenoiser(torch.tensor([[1.0], [-1.0], [5.0]])).x0(torch.zeros(1, 1), 1.0, 0.0)
    assert found.item() == 0


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1e-9, 1.0), (1.0, 1e9)])
def test_with_nothing_but_noise_it_is_the_mean(a, b):
    known = images()
    torch.testing.assert_close(ExactDenoiser(known).x0(normal(2, 1, 2, 3), a, b), known.mean(0).expand(2, 1, 2, 3))


def test_tweedie():
    """E[x_0 | x_t] = (x_t + b²·∇ log p(x_t))/a, by automatic differentiation of the mixture's density."""
    known, a, b = images(), 0.6, 0.8
    x_t = normal(5, 1, 2, 3).requires_grad_()
    distances = (x_t[:, None] - a * known[None]).flatten(2).square().sum(2)
    (slope,) = torch.autograd.grad(torch.logsumexp(-distances / (2 * b**2), dim=1).sum(), x_t)
    torch.testing.assert_close(ExactDenoiser(known).x0(x_t.detach(), a, b), (x_t.detach() + b**2 * slope) / a)


def test_no_other_denoiser_has_less_error():
    """Of D + δ the mean squared error is larger by E‖δ‖², whatever δ(x_t) is; here six of them."""
    known, a, b = images(8, (2,)), 0.7, 0.5
    x_0 = known[torch.from_numpy(RANDOM.integers(0, 8, 500_000))]
    x_t = a * x_0 + b * normal(500_000, 2)
    best = ExactDenoiser(known).x0(x_t, a, b)
    for moved in (0.05 * x_t, -0.05 * x_t, torch.full_like(x_t, 0.05), 0.1 * best, -0.1 * best, 0.1 * x_t.sin()):
        more = (best + moved - x_0).square().sum(1) - (best - x_0).square().sum(1)
        expected = moved.square().sum(1).mean().item()
        assert more.mean().item() == pytest.approx(expected, abs=5 * more.std().item() / math.sqrt(len(more)))
        assert more.mean().item() > 0


def test_noise_levels_of_their_own_chunks_and_types(monkeypatch):
    known, noisy = images(), normal(7, 1, 2, 3)
    a, b = torch.linspace(1, 0, 7), torch.linspace(0, 1, 7)
    one_by_one = [ExactDenoiser(known).x0(noisy[i : i + 1], a[i].item(), b[i].item()) for i in range(7)]
    monkeypatch.setattr(exact, "LIMIT", 3 * len(known))
    together = ExactDenoiser(known).x0(noisy, a, b)
    torch.testing.assert_close(together, torch.cat(one_by_one), rtol=1e-12, atol=1e-12)
    single = ExactDenoiser(known.float()).x0(noisy.float(), a, b)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=1e-4, atol=1e-4)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        ExactDenoiser(torch.zeros(0, 4))
