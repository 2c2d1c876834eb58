"""The weighting that gives one variant another's objective, against sums over time steps and a closed form."""

import copy
from math import atan, tanh

import numpy as np
import pytest
import torch
from helpers import LINEAR, ROOT

from targetwise import cli
from targetwise.check.roundtrip import check
from targetwise.diffusion import table
from targetwise.diffusion.effective import same_objectives
from targetwise.diffusion.loss import weight_in_x0_space
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.times import probabilities
from targetwise.errors import UserError
from targetwise.operations.matching import Way, match, matched
from targetwise.recipe import config, kinds

VARIANTS = {
    "eps": {"target": "epsilon"},
    "min_snr": {
        "target": "v",
        "weighting": "min_snr",
        "schedule": "scaled_linear",
        "diffusion.times": "logit_normal",
    },
    "late": {"target": "x0", "diffusion.times": "logit_normal"},
    "straight": {"target": "x0", "schedule": "flow", "loss_space": "u"},
    "wide": {"target": "x0", "schedule": "cosine_continuous"},
    "zero": {"target": "x0", "diffusion.zero_terminal_snr": True},
}


@pytest.fixture
def mine(study):
    study["parameterizations"] = copy.deepcopy(VARIANTS)
    study["grid"]["parameterizations"] = list(VARIANTS)
    return config.validate(study)


def facts(study, name):
    """Return λ, how likely each time step is, and the weight in x0 space."""
    variant = config.variant(study, name)
    schedule = make_schedule(variant["diffusion"], variant["parameters"], dtype=torch.float64)
    weight = weight_in_x0_space(load(variant["loss_space"]), variant["weighting"], schedule).numpy()
    a, b = (schedule[key].numpy() for key in ("sqrt_alpha", "sqrt_one_minus_alpha"))
    return 2 * np.log(a / b), probabilities(variant["diffusion"]["times"], schedule), weight


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "zero"])
def test_matched_to_itself_a_variant_keeps_its_weight(mine, name):
    found = match(mine, name, name)
    np.testing.assert_allclose(found.weight, facts(mine, name)[2], rtol=1e-9)
    assert found.out_of_reach == 0


@pytest.mark.parametrize(
    ("name", "other"),
    [("eps", "wide"), ("eps", "straight"), ("min_snr", "straight"), ("late", "wide"), ("wide", "straight")],
)
def test_errors_cost_as_much_on_both_paths(mine, name, other):
    """Σ p·w·(error at λ) is the same sum; the error is one that both paths see."""
    found = match(mine, name, other)
    lam, probability, weight = facts(mine, name)
    other_lam, other_probability, _ = facts(mine, other)
    for middle in (-4, 0, 3):
        one, another = (np.exp(-((each - middle) ** 2) / 4) for each in (lam, other_lam))
        expected = (probability * weight * one).sum()
        assert (other_probability * found.weight * another).sum() == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", ["eps", "min_snr", "late"])
@pytest.mark.parametrize("other", ["straight", "wide"])
def test_a_match_is_recognised_as_the_same_objective(mine, name, other, tmp_path, monkeypatch):
    (tmp_path / "weightings").mkdir()
    for path in (ROOT / "workflow").iterdir():
        if path.name != "weightings":
            (tmp_path / path.name).symlink_to(path)
    for path in (ROOT / "workflow/weightings").iterdir():
        (tmp_path / "weightings" / path.name).symlink_to(path)
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    found = match(mine, name, other)
    assert found.out_of_reach < 1e-9
    (tmp_path / "weightings/tabled.csv").write_text(table.written(found.weight))
    mine["parameterizations"][other]["weighting"] = "tabled"
    told = {}
    for each in (name, other):
        variant = config.variant(mine, each)
        told[each] = check(load(variant["target"]), load(variant["loss_space"]), variant, [])["objective"]
    (sentence,) = same_objectives(told)
    assert sentence.startswith(f"{name}, {other}: one objective")
    mine["parameterizations"][other]["weighting"] = "constant"
    variant = config.variant(mine, other)
    told[other] = check(load(variant["target"]), load(variant["loss_space"]), variant, [])["objective"]
    assert same_objectives(told) == []


def test_what_is_out_of_reach_is_said(mine):
    """A flat x0 loss on the cosine is sech(λ/2), of which the integral is 4·atan(tanh(λ/4))."""
    found, lam = match(mine, "wide", "eps"), facts(mine, "eps")[0]
    low, high = lam[-1] - (lam[-2] - lam[-1]) / 2, lam[0] + (lam[0] - lam[1]) / 2
    reached = (4 * atan(tanh(high / 4)) - 4 * atan(tanh(low / 4))) / (2 * np.pi)
    assert found.out_of_reach == pytest.approx(1 - reached, abs=1.1e-3)  # a step or so of a thousand
    assert found.out_of_reach > 0.005


def test_at_zero_snr_a_step_is_matched_by_a_step(mine):
    """At t = 999 there is no λ: what is asked there can be asked on a path that has such a step, and on no other."""
    mine["parameterizations"]["zero_late"] = {**mine["parameterizations"]["zero"], "target": "v"}
    mine["parameterizations"]["zero_late"]["diffusion"] = {"times": "logit_normal", "zero_terminal_snr": True}
    onto_itself, onto_late, onto_none = (match(mine, "zero", other) for other in ("zero", "zero_late", "eps"))
    np.testing.assert_allclose(onto_itself.weight, np.ones(1000), rtol=1e-9)
    drawn = probabilities("logit_normal", make_schedule(LINEAR))
    assert onto_late.weight[-1] * drawn[-1] == pytest.approx(1e-3)
    assert onto_itself.out_of_reach == onto_late.out_of_reach == 0
    assert onto_none.out_of_reach >= 1e-3 and onto_none.weight[-1] < 2


def test_where_nothing_is_asked_in_between_nothing_is():
    a = np.cos(np.linspace(0.01, 1.56, 400))
    way = Way(a, np.sqrt(1 - a**2), np.full(400, 1 / 400))
    coarse = Way(a[::4], way.b[::4], np.full(100, 1 / 100))
    weight = np.ones(400)
    weight[100:200] = 0
    found = matched(weight, way, coarse).weight
    assert (found[26:49] == 0).all() and (found[1:24] > 0.9).all() and (found[51:-1] > 0.9).all()


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *map(str, arguments)])
    cli.main()


def test_the_command_prints_or_writes_a_table(project, monkeypatch, capsys):
    (project / "mine.yaml").write_text("parameterizations: {straight: {target: x0, schedule: flow}}\n")
    files = ["--configfile", "config/digits.yaml", "mine.yaml"]
    call(monkeypatch, "match", "epsilon", "--to", "straight", *files)
    printed, said = capsys.readouterr()
    assert said == "straight with this weighting asks for what epsilon asks for, at every noise level\n"
    call(monkeypatch, "match", "epsilon", "--to", "straight", "--output", "mine.csv", *files)
    assert capsys.readouterr().out == "mine.csv: a weight for each of 1000 time steps\n"
    assert (project / "mine.csv").read_text() == printed
    assert len(table.read(project / "mine.csv", 1000)) == 1000
    call(monkeypatch, "match", "straight", "--to", "epsilon", *files)
    # A flat x0 loss is uniform in τ: 0.8 % and 0.6 % of it are beyond the two ends of linear's λ.
    assert "but for 1.4 % of it, at noise levels that it never sees" in capsys.readouterr().err


def test_a_variant_that_there_is_not_is_one_line(mine):
    with pytest.raises(UserError, match="there is no variant 'epsilom'; did you mean 'epsilon'"):
        match(mine, "epsilom", "eps")
