"""The effective weight over λ, against closed forms, and by it which objectives are one."""

import numpy as np
import pytest
import torch
from helpers import LINEAR, verdict

from targetwise.diffusion.effective import described, effective_weight, is_same, same_objectives
from targetwise.diffusion.loss import weight_in_x0_space
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.times import probabilities

INSIDE = slice(50, -50)  # of a thousand steps: at the ends a difference is no slope


def effective(space, path, weighting="constant", times="uniform", **parameters):
    """Return λ and the effective weight at every time step."""
    schedule = make_schedule({**LINEAR, "schedule": path}, parameters, dtype=torch.float64)
    weight = weight_in_x0_space(load(space), weighting, schedule).numpy()
    a, b = (schedule[name].numpy() for name in ("sqrt_alpha", "sqrt_one_minus_alpha"))
    return effective_weight(weight, probabilities(times, schedule), a, b)


def sech(x):
    return 1 / np.cosh(x)


@pytest.mark.parametrize(
    ("space", "path", "closed_form"),
    [
        # Kingma & Gao 2023, table 1, times SNR, from ε to x0: a uniform t is sech(λ/2) on the cosine path …
        ("x0", "cosine_continuous", lambda lam: sech(lam / 2)),
        ("epsilon", "cosine_continuous", lambda lam: sech(lam / 2) * np.exp(lam)),
        ("v", "cosine_continuous", lambda lam: sech(lam / 2) * (np.exp(lam) + 1)),
        # … and sech²(λ/4) on the straight one, where a flat loss of u is exp(−λ/2) on ε.
        ("x0", "flow", lambda lam: sech(lam / 4) ** 2),
        ("u", "flow", lambda lam: np.exp(-lam / 2) * np.exp(lam)),
    ],
)
def test_a_flat_loss_has_the_effective_weight_of_the_paper(space, path, closed_form):
    lam, found = effective(space, path)
    ratio = (found / closed_form(lam))[INSIDE]
    np.testing.assert_allclose(ratio, ratio[400], rtol=5e-3)


def test_how_often_a_step_is_drawn_counts_as_much_as_its_weight():
    _, rarely = effective("x0", "linear", times="logit_normal")
    _, always = effective("x0", "linear")
    schedule = make_schedule(LINEAR, dtype=torch.float64)
    drawn = probabilities("logit_normal", schedule) * 1000
    np.testing.assert_allclose(rarely, always * drawn, rtol=1e-9)


def test_a_step_without_noise_or_image_has_none():
    a, b = np.array([1.0, 0.8, 0.6, 0.0]), np.array([0.0, 0.6, 0.8, 1.0])
    lam, found = effective_weight(np.ones(4), np.full(4, 0.25), a, b)
    # ln SNR = ±2·ln(4/3) at the two others, so each has half of the weight over a slope of 4·ln(4/3).
    np.testing.assert_allclose(lam, [2 * np.log(4 / 3), -2 * np.log(4 / 3)])
    np.testing.assert_allclose(found, 0.5 / (4 * np.log(4 / 3)))
    nothing = effective_weight(np.zeros(4), np.full(4, 0.25), a, b)
    assert [len(each) for each in nothing] == [0, 0] and described(*nothing)["log_snr"] == []


def test_a_check_tells_it_at_even_noise_levels():
    lam, weight = effective("v", "linear")
    told = described(lam, weight)
    assert (told["log_snr"][0], told["log_snr"][-1]) == (lam[0], lam[-1])
    places = [list(lam).index(each) for each in told["log_snr"]]
    assert told["effective_weight"] == weight[places].tolist()
    gaps = -np.diff(told["log_snr"])
    between = -np.diff(lam)[places[0] : places[-1]]
    assert gaps.max() < max(2 * (lam[0] - lam[-1]) / 200, between.max() + 1e-12)
    assert is_same(told, {"log_snr": list(lam), "effective_weight": list(weight)})


def curve(*arguments, **options):
    return described(*effective(*arguments, **options))


SAME = {
    "epsilon": [("epsilon", "linear"), ("x0", "linear", "snr"), ("v", "linear", "snr")],
    "v": [("v", "linear"), ("x0", "linear", "snr_plus_one"), ("epsilon", "linear", "snr_plus_one")],
    "x0": [("x0", "linear"), ("residual", "linear")],
    "min-SNR": [("epsilon", "linear", "min_snr"), ("x0", "linear", "min_snr")],
    "sigmoid": [("x0", "flow", "sigmoid"), ("v", "cosine_continuous", "sigmoid")],
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("other", SAME)
def test_objectives_are_one_where_they_weigh_errors_alike(name, other):
    found = {is_same(curve(*one), curve(*two)) for one in SAME[name] for two in SAME[other]}
    assert found == {name == other}


def test_the_same_weight_means_another_thing_on_another_path():
    assert not is_same(curve("x0", "cosine_continuous"), curve("x0", "flow"))


def test_variants_of_one_objective_are_told_together():
    curves = {
        "v": curve("v", "linear"),
        "x0": curve("x0", "linear"),
        "x0_as_v": curve("x0", "linear", "snr_plus_one"),
        "nothing": {"log_snr": [], "effective_weight": []},
    }
    (sentence,) = same_objectives(curves)
    assert sentence.startswith("v, x0_as_v: one objective")
    assert same_objectives({name: curves[name] for name in ("v", "x0", "nothing")}) == []


def test_the_check_of_a_variant_tells_its_objective():
    assert verdict(load("x0"), load("v"))["objective"] == curve("v", "linear")
