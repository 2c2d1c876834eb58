"""On a GPU, a step of training, sampling or the metric mixes no devices and waits for none; shown without a GPU."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import EXAMPLE, ROOT, of_one_cell
from pretended import CPU, DEVICE, MixedDevicesError, OnDevice, WaitingError, pretended
from torch import nn

from targetwise import cells
from targetwise.compute.device import widen_output
from targetwise.diffusion.loss import Objective
from targetwise.diffusion.network import build
from targetwise.diffusion.parameterization import load
from targetwise.diffusion.schedule import add_noise, make_schedule
from targetwise.errors import UserError
from targetwise.metric import extractors, inception
from targetwise.recipe import config as configuration
from targetwise.sampling import denoiser as sampling
from targetwise.sampling.denoiser import Denoiser, Sampler
from targetwise.sampling.guidance import labels_of
from targetwise.training.trainer import Trainer

BATCH = 6
SAMPLERS = sorted(path.stem for path in (ROOT / "workflow/samplers").glob("*.py"))
NETWORKS = {
    "mlp": {"network": "mlp", "width": 16, "layers": 1},
    "unet": {"network": "unet", "channels": [32, 32], "attention": [1], "layers_per_block": 1},
    "vit": {"network": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 4, "skip": True},
}
CONDITIONAL = {
    "mlp": {**NETWORKS["mlp"], "network": "conditional_mlp"},
    "unet": {**NETWORKS["unet"], "network": "conditional_unet"},
    "vit": NETWORKS["vit"],
}
VARIANTS = {
    "epsilon": {"target": "epsilon"},
    "v": {"target": "v"},
    "x0": {"target": "x0"},
    "x0_in_v": {"target": "x0", "loss_space": "v"},
    "v_learned": {"target": "v", "uncertainty": True},
    "epsilon_min_snr": {"target": "epsilon", "weighting": "min_snr", "parameters": {"gamma": 4.0}},
}


@pytest.fixture
def device(monkeypatch):
    """A GPU as far as the code can tell."""
    with pretended(monkeypatch) as device:
        yield device


def specification(variant="v", network="mlp", **training):
    """Return a cell's specification, for a GPU but for the compiler."""
    plain = {"global_batch": BATCH, "log_every": 4, "compile": {"cuda": False, "cpu": False}}
    overlay = {
        "grid": {"parameterizations": [variant], "scales": ["tiny"], "seeds": [0]},
        "parameterizations": {variant: VARIANTS[variant]},
        "training": {**plain, **training},
    }
    study = configuration.merge(EXAMPLE, overlay)
    study["scales"]["tiny"] = (CONDITIONAL if "label_dropout" in training else NETWORKS)[network]
    study = configuration.validate(study)
    (cell,) = cells.grid(study)
    return of_one_cell(study, cell)[cell.folder / "cell.json"]


def spaces(specification):
    return load(specification["variant"]["target"]), load(specification["variant"]["loss_space"])


def trainer_on(device, images, specification):
    return Trainer(specification, images, *spaces(specification), device)


def train(trainer, steps=2):
    for step in range(steps):
        trainer.advance(trainer.draw(step))


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_does_not_wait(device, images, variant, micro_batch):
    """The second step is what all others are; in the first one, the optimizer makes its state."""
    spec = specification(variant, micro_batch=micro_batch, ema_power=[0.05, 0.1])
    trainer = trainer_on(DEVICE, images, spec)
    with device.step():
        train(trainer)
    stored = [each for values in trainer.averages.values for each in values]
    assert all(isinstance(each, OnDevice) for each in [*trainer.parameters, *trainer.ema, *stored, trainer.window])
    assert trainer.window[:2].isfinite().all() and not trainer.window[2:].any()
    if trainer.uncertainty:
        assert isinstance(trainer.uncertainty.weight.data, OnDevice) and trainer.uncertainty.weight.detach().any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_step_of_the_unet_does_not_wait(device, images, precision):
    trainer = trainer_on(DEVICE, images, specification(network="unet", precision={"cuda": precision, "cpu": "fp32"}))
    with device.step():
        train(trainer)
    assert trainer.summarize()["loss"] > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_step_with_labels_does_not_wait(device, images, network):
    options = {"label_dropout": 0.4, "micro_batch": 4}
    trainer = trainer_on(DEVICE, images, specification(network=network, **options))
    with device.step():
        train(trainer)
    assert isinstance(trainer.labels, OnDevice) and trainer.summarize()["loss"] > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_on_the_pretended_device_is_whole(device, images, network):
    """Its gradients are those of the CPU, so what is shown for it is shown for all that training computes."""
    plain = {"precision": {"cuda": "fp32", "cpu": "fp32"}, "fused_optimizer": False, "channels_last": False}
    spec = specification("x0_in_v", network, **plain, micro_batch=4)
    there, here = (trainer_on(each, images, spec) for each in (DEVICE, CPU))
    with device.step():
        for trainer in (there, here):
            train(trainer, 1)
    for mine, expected in zip(there.parameters, here.parameters, strict=True):
        assert torch.allclose(mine.grad.cpu(), expected.grad, rtol=1e-4, atol=1e-6)
    assert there.summarize()["loss"] == pytest.approx(here.summarize()["loss"], rel=1e-5)


def test_on_the_pretended_device_autocast_is_on(device, images):
    trainer, types = trainer_on(DEVICE, images, specification()), []
    first, last = trainer.model.first, trainer.model.last
    for layer in (first, last):
        layer.register_forward_hook(lambda _, __, output: types.append(output.dtype))
    train(trainer, 1)
    assert types == [torch.bfloat16, torch.float32]


def test_the_summary_waits_and_is_no_part_of_a_step(device, images):
    trainer = trainer_on(DEVICE, images, specification())
    train(trainer)
    with device.step(), pytest.raises(WaitingError, match="a copy from cuda:0 to cpu"):
        trainer.summarize()
    assert trainer.summarize()["step"] == 2


def test_fp16_waits_in_each_step_where_the_optimizer_is_not_fused(device, images):
    """PyTorch's gradient scaler skips a step only after it has looked at the gradients."""
    fp16 = {"precision": {"cuda": "fp16", "cpu": "fp32"}, "fused_optimizer": False}
    trainer = trainer_on(DEVICE, images, specification(**fp16))
    with device.step(), pytest.raises(WaitingError, match="_local_scalar_dense"):
        train(trainer, 1)


# --- sampling ------------------------------------------------------------------------------------------------------


def denoiser_on(device, images, network="mlp"):
    return Denoiser(specification("epsilon", network), images, load("epsilon"), device)


def sample(device, denoiser, sampler, step=None, **changes):
    """Take a few steps from noise to images that nobody would recognize."""
    way = Sampler(denoiser.variant, {**EXAMPLE["sampling"], "sampler": sampler, "steps": 3, **changes})
    if step:
        way._source = {"step": step}
    noise = torch.randn(2, 1, 8, 8).to(DEVICE)
    with device.step():
        return sampling.denoise(denoiser, noise, way)


@pytest.mark.parametrize(
    "options", [{}, {"clipped_epsilon": True, "widen_output": False, "last_alpha_is_one": False}]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_of_a_sampler_does_not_wait(device, images, sampler, options):
    found = sample(device, denoiser_on(DEVICE, images), sampler, **options)
    assert isinstance(found, OnDevice) and found.isfinite().all()


def test_a_step_of_sampling_from_the_unet_does_not_wait(device, images):
    assert isinstance(sample(device, denoiser_on(DEVICE, images, "unet"), "ddim"), OnDevice)


@pytest.mark.parametrize("guidance", [{}, {"guidance": 2.0, "guidance_interval": [-2, 9], "guidance_rescale": 0.7}])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_guided_step_does_not_wait(device, images, network, guidance):
    spec = specification("v", network, label_dropout=0.4)
    denoiser = Denoiser(spec, images, load("v"), DEVICE)
    way = Sampler(denoiser.variant, {**EXAMPLE["sampling"], "steps": 3, **guidance})
    noise, labels = torch.randn(2, 1, 8, 8).to(DEVICE), labels_of(10, 0, 2, DEVICE)
    with device.step():
        found = sampling.denoise(denoiser, noise, way, labels)
    assert isinstance(found, OnDevice) and found.isfinite().all()


# --- the metric ----------------------------------------------------------------------------------------------------


def test_features_of_digits_are_computed_without_waiting(device, images):
    extractor = extractors.load("digits", DEVICE, "native")
    batch = torch.from_numpy(images.images).to(DEVICE)
    with device.step(), torch.inference_mode():
        features = extractor.function(batch)
    assert isinstance(features, OnDevice)
    here = extractors.load("digits", CPU, "native").features(images.images, CPU)
    np.testing.assert_allclose(extractor.features(images.images, DEVICE), here, rtol=1e-5)


@pytest.fixture
def layers(device):
    """Stand for Inception's layers, which are a file of their own: (B, 3, 299, 299) to (B, 2048)."""
    return nn.Sequential(nn.AvgPool2d(50), nn.Flatten(), nn.Linear(75, inception.FEATURES)).to(DEVICE)


@torch.inference_mode()
def test_inceptions_features_are_computed_without_waiting(device, layers):
    colours = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    there, by_pillow = colours.to(DEVICE), inception.resized_by_pillow(colours.numpy(), DEVICE).to(DEVICE)
    with device.step():
        assert isinstance(inception.features(layers, inception.resize_on_device(there)), OnDevice)
        assert isinstance(inception.features(layers, by_pillow), OnDevice)


def test_features_of_many_batches_are_in_order_and_few_are_prepared_ahead(device, images):
    prepared, computed, most = [], [], 0

    def prepare(batch):
        prepared.append(batch)
        return torch.from_numpy(batch)

    def function(batch):
        nonlocal most
        computed.append(batch)
        most = max(most, len(prepared) - len(computed))
        return batch.flatten(1).float()

    extractor = replace(extractors.load("pixels", DEVICE, "native"), batch=2, prepare=prepare, function=function)
    some = np.random.default_rng(0).integers(0, 256, (601, 1, 1, 3), dtype=np.uint8)
    np.testing.assert_array_equal(extractor.features(some, DEVICE), some.reshape(601, 3))
    assert len(computed) == 301 and 1 <= most <= 2


# --- one graph -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_one_graph():
    """Trace a function; a break in its graph is an error."""
    torch._dynamo.reset()
    yield partial(torch.compile, fullgraph=True, backend="eager")
    torch._dynamo.reset()


def inputs():
    random = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, BATCH, 1, 8, 8, generator=random)
    return x_0, noise, torch.arange(BATCH) * 100


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_one_graph(in_one_graph, network):
    model = build(NETWORKS[network], in_channels=1, out_channels=1, image_size=8, seed=0)
    widen_output(model, CPU, {"output_in_fp32": True, "precision": {"cpu": "bf16"}})
    x_t, _, timesteps = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(in_one_graph(model)(x_t, timesteps), model(x_t, timesteps))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_is_one_graph(in_one_graph, variant):
    spec = specification(variant)["variant"]
    schedule = make_schedule(spec["diffusion"], spec["parameters"])
    objective = Objective.of(load(spec["target"]), load(spec["loss_space"]), spec["weighting"], schedule)
    x_0, noise, timesteps = inputs()
    given = 0.5 * noise, x_0, noise, add_noise(x_0, noise, timesteps, schedule), timesteps
    torch.testing.assert_close(in_one_graph(objective)(*given), objective(*given))


# --- these tests would notice --------------------------------------------------------------------------------------

WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "cpu": lambda x: x.cpu(),
    "cpu without waiting": lambda x: x.to("cpu", non_blocking=True),
    "indexing by a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.index_put_((x > 0,), x.sum()),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "allclose": lambda x: torch.allclose(x, x),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "numbers of the host": lambda x: x + torch.tensor([1.0, 2.0], device=x.device),
    "from pageable memory": lambda x: x + torch.ones(2).to(x.device, non_blocking=True),
    "from pinned memory, waiting": lambda x: x + torch.ones(2).pin_memory().to(x.device),
    "writing from the host": lambda x: x.copy_(torch.ones(2)),
}
DOES_NOT_WAIT = {
    "arithmetic": lambda x: torch.where(x > 0, 2 * x, 0.0).sum(),
    "masked_fill": lambda x: x.masked_fill_(x > 0, 1.0),
    "indexing by numbers": lambda x: x[x.argsort()],
    "made there": lambda x: x + torch.arange(2, device=x.device) + torch.full_like(x, 2),
    "from pinned memory": lambda x: x + torch.ones(2).pin_memory().to(x.device, non_blocking=True),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("what", WAITS)
def test_waiting_is_noticed_in_a_step_and_only_there(device, what, inference):
    x = torch.zeros(2).to(DEVICE)
    with torch.inference_mode(inference):
        with device.step(), pytest.raises(WaitingError):
            WAITS[what](x)
        WAITS[what](x)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("what", DOES_NOT_WAIT)
def test_what_does_not_wait_is_let_through(device, what, inference):
    with device.step(), torch.inference_mode(inference):
        DOES_NOT_WAIT[what](torch.zeros(2, device=DEVICE))


@pytest.mark.parametrize("other", [torch.zeros(2), torch.tensor(1.0)], ids=["a vector", "a number"])
def test_a_tensor_left_on_the_cpu_is_noticed_anywhere(device, other):
    """PyTorch would let a 0-d tensor of the CPU through; nobody means one."""
    with pytest.raises(MixedDevicesError, match="cuda:0, cpu"):
        torch.zeros(2, device=DEVICE) * other


def test_a_schedule_left_on_the_cpu_is_noticed(device, images):
    trainer = trainer_on(DEVICE, images, specification())
    trainer.schedule["sqrt_alpha"] = trainer.schedule["sqrt_alpha"].cpu()
    with pytest.raises(MixedDevicesError):
        train(trainer, 1)


def test_a_loss_that_waits_is_noticed(device, images):
    spec = specification()
    v = load("v")

    def compute(x_0, noise, timesteps, schedule):
        assert noise.isfinite().all()
        return v.compute_training_target(x_0, noise, timesteps, schedule)

    target = replace(v, compute_training_target=compute)
    trainer = Trainer(spec, images, target, target, DEVICE)
    with device.step(), pytest.raises(WaitingError, match="_local_scalar_dense"):
        train(trainer, 1)


def test_a_backward_pass_that_waits_is_noticed(device):
    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient / max(1.0, gradient.norm().item())

    loss = Clipped.apply(torch.ones(2, requires_grad=True, device=DEVICE)).sum()
    with device.step(), pytest.raises(WaitingError, match="_local_scalar_dense"):
        loss.backward()


def test_a_sampler_that_waits_is_noticed(device, images):
    def step(x_t, x_0, now, then, memory):
        assert x_t.abs().max() < 1e6
        return x_0

    with pytest.raises(UserError, match=r"step fails: .*_local_scalar_dense.* reads from the device"):
        sample(device, denoiser_on(DEVICE, images), "ddim", step)


def test_a_break_in_a_graph_is_noticed(in_one_graph):
    def function(x):
        return x + x.sum().item() if x.sum() > 0 else x

    with pytest.raises(torch._dynamo.exc.Unsupported):
        in_one_graph(function)(torch.ones(2))
