"""A training step that is replayed as a CUDA graph is the step itself: without a GPU, and on one if there is one."""

import pytest
import recording
import torch
from test_waiting import specification

from targetwise.diffusion.parameterization import load
from targetwise.training import trainer as module
from targetwise.training.replay import WARM_UP, replayed
from targetwise.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS = WARM_UP + 4


def plain(monkeypatch):
    """Take each step as it is."""
    monkeypatch.setattr(module, "replayed", lambda step, device: step)


def recorded(monkeypatch):
    """Let the CPU do what a GPU does."""
    recording.patch(monkeypatch)
    monkeypatch.setattr(module, "replayed", lambda step, device: replayed(step, torch.device("cuda")))


def trained(images, device=CPU, steps=STEPS, state=None, variant="x0_in_v", network="mlp", **training):
    options = {"precision": {"cuda": "fp32", "cpu": "fp32"}, "log_every": STEPS, **training}
    spec = specification(variant, network, **options)
    target, space = (load(spec["variant"][each]) for each in ("target", "loss_space"))
    trainer = Trainer(spec, images, target, space, device)
    if state:
        trainer.restore(state, "states")
    while trainer.step < steps:
        trainer.advance(trainer.draw(trainer.step))
    return trainer


def weights(trainer):
    learned = [trainer.uncertainty.weight] if trainer.uncertainty else []
    stored = [each for values in trainer.averages.values for each in values]
    return [each.detach().cpu() for each in [*trainer.parameters, *trainer.ema, *stored, *learned, trainer.window]]


def assert_same(one, other):
    for mine, expected in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("variant", "network", "training"),
    [
        ("x0_in_v", "mlp", {}),
        ("v_learned", "mlp", {"micro_batch": 4}),
        ("x0_in_v", "mlp", {"ema_power": [0.05, 0.1]}),
        ("x0_in_v", "unet", {"precision": {"cuda": "bf16", "cpu": "bf16"}}),
    ],
)
def test_replayed_steps_are_the_steps_themselves(images, monkeypatch, variant, network, training):
    with monkeypatch.context() as patched:
        plain(patched)
        expected = trained(images, variant=variant, network=network, **training)
    recorded(monkeypatch)
    found = trained(images, variant=variant, network=network, **training)
    assert len(found.take.graph.operations) > 100, "nothing was replayed"
    assert_same(found, expected)


def test_a_resumed_training_records_again_and_goes_on_the_same(images, monkeypatch):
    recorded(monkeypatch)
    options = {"variant": "v_learned", "ema_power": [0.05, 0.1]}
    first = trained(images, steps=WARM_UP + 2, **options)
    resumed = trained(images, state={**first.state(0.0), "step": first.step}, steps=2 * STEPS, **options)
    assert resumed.take.graph and resumed.continued == []
    assert_same(resumed, trained(images, steps=2 * STEPS, **options))


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(images, monkeypatch, capsys):
    def asks(losses):
        return losses if losses.sum().item() else losses + 1

    with monkeypatch.context() as patched:
        plain(patched)
        expected = trained(images)
    recorded(monkeypatch)
    objective = module.Objective.__call__
    monkeypatch.setattr(module.Objective, "__call__", lambda *given: asks(objective(*given)))
    found = trained(images)
    said = capsys.readouterr().err
    assert said.count("not replayed as one CUDA graph") == 1 and "not permitted when stream is capturing" in said
    assert found.take.graph is None
    assert_same(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_replayed_steps_are_the_steps_themselves(images, monkeypatch, precision):
    options = {"network": "unet", "deterministic": True, "precision": {"cuda": precision, "cpu": "fp32"}}
    options |= {"variant": "v_learned", "ema_power": [0.05, 0.1]}
    found = trained(images, torch.device("cuda"), **options)
    assert found.take.graph is not None
    plain(monkeypatch)
    assert_same(found, trained(images, torch.device("cuda"), **options))
