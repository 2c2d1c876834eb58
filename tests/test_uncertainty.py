"""The learned weight of a noise level: its gradients, what it converges to, and a training that has it."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import LINEAR, PATHS, ROOT, verdict
from safetensors.torch import load_file
from test_training import StopAfter, run, specification

from targetwise import cells
from targetwise.check.process import LEARNED, in_words
from targetwise.diffusion.effective import same_objectives
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import make_schedule
from targetwise.errors import StoppedEarlyError
from targetwise.files import read_json
from targetwise.recipe import config as configuration
from targetwise.training.trainer import Trainer
from targetwise.training.uncertainty import Uncertainty

CPU = torch.device("cpu")


def learned(path="linear"):
    return Uncertainty(make_schedule({**LINEAR, "schedule": path}))


def test_it_begins_as_if_it_were_not_there():
    losses = torch.tensor([0.1, 3.0])
    assert torch.equal(learned()(losses, torch.tensor([0, 999])), losses)


def test_gradients_are_those_of_the_closed_form():
    """∂/∂l = exp(−u), and over the factor of a feature f: Σ (1 − l·exp(−u))·f."""
    uncertainty, random = learned(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        uncertainty.weight.copy_(0.1 * torch.randn(128, generator=random))
    timesteps = torch.tensor([3, 400, 900])
    losses = torch.tensor([0.2, 1.5, 4.0], requires_grad=True)
    uncertainty(losses, timesteps).sum().backward()
    u = uncertainty.at(timesteps).detach()
    assert u.abs().min() > 0.05
    torch.testing.assert_close(losses.grad, torch.exp(-u))
    expected = ((1 - losses.detach() * torch.exp(-u))[:, None] * uncertainty.features[timesteps]).sum(0)
    torch.testing.assert_close(uncertainty.weight.grad, expected)


def test_features_are_fourier_features_of_the_noise_level():
    """cos(2π(f·ln(b/a)/4 + φ))·√2: frequencies as of a normal distribution, phases as of a uniform one."""
    uncertainty, schedule = learned(), make_schedule(LINEAR, dtype=torch.float64)
    noise = (schedule["sqrt_one_minus_alpha"] / schedule["sqrt_alpha"]).log().numpy() / 4
    random = np.random.default_rng(0)
    frequencies, phases = random.standard_normal(20_000), random.uniform(size=20_000)
    drawn = np.sqrt(2) * np.cos(2 * np.pi * (frequencies * noise[::100, None] + phases))
    mine = uncertainty.features[::100].numpy()
    # Two noise levels look alike as far as E[cos(2π·f·(c − c'))] = exp(−2π²(c − c')²) says.
    distance = noise[::100, None] - noise[::100]
    np.testing.assert_allclose(drawn @ drawn.T / 20_000, np.exp(-2 * np.pi**2 * distance**2), atol=0.03)
    np.testing.assert_allclose(mine @ mine.T / 128, np.exp(-2 * np.pi**2 * distance**2), atol=0.1)


@pytest.mark.parametrize("path", PATHS)
def test_it_takes_any_path(path):
    assert learned(path).features.isfinite().all()


@pytest.mark.parametrize("path", ["linear", "cosine_continuous"])
def test_it_converges_to_the_mean_loss_of_each_noise_level(path):
    """Of losses over four orders of magnitude, that scatter."""
    uncertainty = learned(path)
    share = torch.linspace(0, 1, 1000)
    mean = torch.exp(-7 * (1 - share) + 2 * torch.sin(3 * share))
    optimizer = torch.optim.AdamW([uncertainty.weight], lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-2, total_iters=1000)
    random = torch.Generator().manual_seed(0)
    for _ in range(1000):
        timesteps = torch.randint(0, 1000, (256,), generator=random)
        losses = mean[timesteps] * torch.empty(256).exponential_(generator=random)
        optimizer.zero_grad()
        uncertainty(losses, timesteps).mean().backward()
        optimizer.step()
        schedule.step()
    timesteps = torch.arange(10, 990)
    ratio = torch.exp(uncertainty.at(timesteps)).detach() / mean[timesteps]
    assert (ratio.log().abs() < 0.2).float().mean() > 0.97 and ratio.log().mean().abs() < 0.03


def test_several_processes_average_its_gradient():
    uncertainty = learned()
    uncertainty.weight.grad = torch.full((128,), 3.0)
    uncertainty.exchange(SimpleNamespace(size=2, sum=lambda mine: mine + 1.0))
    assert uncertainty.weight.grad.eq(2).all()


# --- a training ----------------------------------------------------------------------------------------------------


def cell(*, uncertainty=True, **training):
    spec = specification(global_batch=8, **training)
    if uncertainty:
        spec["variant"]["uncertainty"] = True
    return spec


@pytest.fixture(scope="module")
def trained(pixels, tmp_path_factory):
    folders = {uncertainty: tmp_path_factory.mktemp(f"uncertainty_{uncertainty}") for uncertainty in (True, False)}
    with contextlib.chdir(ROOT):
        for uncertainty, folder in folders.items():
            run(cell(uncertainty=uncertainty, log_every=1), pixels, folder)
    return folders


def trainers(pixels, **training):
    specs = [cell(uncertainty=uncertainty, **training) for uncertainty in (True, False)]
    return [Trainer(spec, pixels, load("v"), load("v"), CPU) for spec in specs]


def test_the_first_step_is_that_of_the_plain_loss_and_its_own(pixels):
    """u is 0, so the network's step is the same: neither clipping nor its norm knows u. Decay knows it neither."""
    mine, plain = trainers(pixels, gradient_clip=0.5, weight_decay=2.0)
    for trainer in (mine, plain):
        trainer.advance(trainer.draw(0))
    assert all(torch.equal(one, other) for one, other in zip(mine.parameters, plain.parameters, strict=True))
    assert torch.equal(mine.window[0], plain.window[0]) and mine.window[0, 0] > 0.5
    # The first step of Adam is the learning rate against the sign of the gradient.
    draw = mine.draw(0)
    gradient = mine.uncertainty.weight.grad
    torch.testing.assert_close(mine.uncertainty.weight.detach(), -1e-3 * gradient.sign(), rtol=1e-3, atol=1e-6)
    decayed = [group["weight_decay"] for group in mine.optimizer.param_groups]
    assert decayed == [2.0, 0.0] and len(draw.timesteps) == 8


def test_a_step_divides_the_loss_and_logs_it_undivided(pixels):
    mine, plain = trainers(pixels)
    with torch.no_grad():
        mine.uncertainty.weight.copy_(torch.linspace(-0.1, 0.1, 128))
    draw = mine.draw(0)
    u = mine.uncertainty.at(torch.from_numpy(draw.timesteps)).detach()
    objective = plain.objective
    plain.objective = lambda *given: objective(*given) * torch.exp(-u)
    for trainer in (mine, plain):
        trainer.advance(draw)
    for one, other in zip(mine.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)
    again = trainers(pixels)[1]
    again.advance(draw)
    assert torch.equal(mine.window[0, 1:], again.window[0, 1:])
    assert not torch.equal(plain.window[0, 1:], again.window[0, 1:])


def test_the_model_is_the_network_alone(trained):
    with_u, without = (load_file(trained[each] / "model.safetensors") for each in (True, False))
    assert with_u.keys() == without.keys()
    assert any(not torch.equal(value, without[name]) for name, value in with_u.items())
    losses = [
        [json.loads(line)["loss"] for line in (trained[each] / "train.jsonl").read_text().splitlines()]
        for each in (True, False)
    ]
    assert losses[0][0] == losses[1][0] and losses[0][-1] == pytest.approx(losses[1][-1], rel=0.2)


@pytest.mark.parametrize("steps", [1, 5])
def test_stopped_and_resumed_gives_the_same_bits(steps, trained, pixels, tmp_path):
    with pytest.raises(StoppedEarlyError):
        run(cell(log_every=1), pixels, tmp_path, StopAfter(steps))
    outcome = run(cell(log_every=1), pixels, tmp_path)
    assert outcome["model_sha256"] == read_json(trained[True] / "training.json")["model_sha256"]


# --- configuration and check ---------------------------------------------------------------------------------------


def test_it_is_in_the_specifications_of_its_variant_alone(study):
    plain = cells.specifications(configuration.validate(study))
    study["parameterizations"] |= {"v_learned": {"target": "v", "uncertainty": True}, "v": {"uncertainty": False}}
    study["grid"]["parameterizations"].append("v_learned")
    found = cells.specifications(configuration.validate(study))
    assert all(found[path] == content for path, content in plain.items() if path.name != "study.json")
    mine, v = (found[cells.Cell("digits", name, "tiny", 0).folder / "cell.json"] for name in ("v_learned", "v"))
    assert mine["variant"] == {**v["variant"], "uncertainty": True}


def test_the_check_says_that_the_weight_is_learned_and_calls_no_objective_the_same():
    plain, learned = verdict(load("v")), verdict(load("v"), uncertainty=True)
    assert learned["weighting"] == "constant × learned" and learned["objective"]["log_snr"] == []
    differing = {"weighting", "uncertainty", "objective"}
    assert {name for name in learned if learned[name] != plain.get(name)} == differing
    assert in_words(learned) == in_words(plain) + LEARNED
    twice = {"one": learned["objective"], "two": learned["objective"], "v": plain["objective"]}
    assert same_objectives(twice) == []
