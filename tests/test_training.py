"""Training: exact resume through any kill, pairing across parameterizations, divergence as a result."""

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_dataset
from safetensors.numpy import load_file

from targetwise.cells import grid, specifications
from targetwise.cells.outcome import marks
from targetwise.compute import device as device_module
from targetwise.compute.conditions import conditions
from targetwise.compute.distributed import World
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.recipe import config
from targetwise.sampling.denoiser import Denoiser, draw_images, to_uint8
from targetwise.sampling.stage import sample
from targetwise.training import loop
from targetwise.training import trainer as trainer_module
from targetwise.training.state import StateFolder
from targetwise.training.stopping import Stop
from targetwise.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
STEPS = 10


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def images():
    array = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    return Images(array, np.zeros(64, dtype=np.int64), sha256_of_array(array))


def specification(name="v", seed=0, **training_options):
    overlay = {
        "grid": {"parameterizations": [name], "seeds": [seed]},
        "training": {
            "steps": STEPS,
            "global_batch": 16,
            "log_every": 4,
            "learning_rate": 1e-3,
            "ema_decay": 0.99,
            **training_options,
        },
    }
    study = config.merge(config.load([Path("config/digits.yaml")]), overlay)
    study["scales"]["tiny"] = {"channels": [32, 32], "attention": [], "layers_per_block": 1}
    study = config.validate(study)
    return specifications(study)[grid(study)[0].folder / "cell.json"]


def run(spec, images, folder, stop=None, save_every=1e9):
    folder.mkdir(parents=True, exist_ok=True)
    return loop.train(spec, images, folder, save_every_seconds=save_every, stop=Stop() if stop is None else stop)


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return run(specification(), images, folder), folder
    finally:
        os.chdir(before)


def curve(folder):
    """The log without what depends on the clock or the process."""
    timed = ("images_per_second", "memory_peak_bytes", "time")
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


class StopAfter(Stop):
    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def __bool__(self):
        self.left -= 1
        if self.left <= 0:
            self.reason = "the test says so"
        return super().__bool__()


def test_result_is_whole(uninterrupted):
    outcome, folder = uninterrupted
    assert outcome["status"] == "finished" and outcome["steps"] == STEPS
    assert outcome["model_sha256"] == sha256_of_file(folder / "model.safetensors")
    assert [line["step"] for line in curve(folder)] == [4, 8, 10]
    assert outcome["final_loss"] == curve(folder)[-1]["loss"]
    assert not (folder / "state/train").exists()
    assert read_json(folder / "training.json") == outcome


def test_two_runs_are_identical(uninterrupted, images, tmp_path):
    again = run(specification(), images, tmp_path)
    assert again["model_sha256"] == uninterrupted[0]["model_sha256"]
    assert curve(tmp_path) == curve(uninterrupted[1])


@pytest.mark.parametrize("steps", range(1, STEPS))
def test_stopped_after_any_step_and_resumed_gives_the_same_bits(steps, uninterrupted, images, tmp_path):
    with pytest.raises(StoppedEarlyError, match=f"state saved after step {steps} of {STEPS}"):
        run(specification(), images, tmp_path, StopAfter(steps))
    assert not (tmp_path / "model.safetensors").exists()
    outcome = run(specification(), images, tmp_path)
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]
    assert curve(tmp_path) == curve(uninterrupted[1])


def test_another_seed_gives_other_weights(uninterrupted, images, tmp_path):
    assert run(specification(seed=1), images, tmp_path)["model_sha256"] != uninterrupted[0]["model_sha256"]


def test_state_of_another_specification_is_not_used(uninterrupted, images, tmp_path, capfd):
    with pytest.raises(StoppedEarlyError):
        run(specification(learning_rate=5e-4), images, tmp_path, StopAfter(3))
    outcome = run(specification(), images, tmp_path)
    assert "another specification" in capfd.readouterr().err
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]


def test_the_share_of_clipped_steps_is_that_of_all_steps(images, tmp_path):
    """Windows of 4, 4 and 2 steps, against a log of every step."""
    norms = {}
    for log_every in (1, 4):
        folder = tmp_path / str(log_every)
        outcome = run(specification(log_every=log_every, gradient_clip=1.4), images, folder)
        norms[log_every] = [line["gradient_norm"] for line in curve(folder)]
        assert outcome["clipped_share"] == pytest.approx(sum(norm > 1.4 for norm in norms[1]) / STEPS)
    shares = [line["clipped_share"] for line in curve(folder)]
    assert len(shares) == 3 and sum(shares) / 3 != pytest.approx(outcome["clipped_share"])


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_that_is_not_fused_still_takes_all_tensors_at_once(images, fused):
    """AdamW(fused=False) is a kernel for every tensor; only where neither is named it chooses foreach on a GPU."""
    spec = specification(fused_optimizer=fused)
    trainer = Trainer(spec, images, *[parameterization.load("v")] * 2, torch.device("cpu"))
    chosen = trainer.optimizer.param_groups[0]
    assert (chosen["fused"], chosen["foreach"]) == (True if fused else None, None)


@pytest.fixture
def one_key(monkeypatch):
    """Another number format of a device that is not used is no other cell; here the only device stands for both."""
    monkeypatch.setattr(loop, "training_key", lambda *_: "a" * 64)


@pytest.mark.parametrize(("began", "went_on"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_a_state_of_another_number_format_is_refused_and_kept(began, went_on, one_key, images, tmp_path):
    formats = {each: specification(precision={"cuda": "fp32", "cpu": each}) for each in (began, went_on)}
    with pytest.raises(StoppedEarlyError):
        run(formats[began], images, tmp_path, StopAfter(3))
    states = tmp_path / "state/train"
    with pytest.raises(UserError) as refused:
        run(formats[went_on], images, tmp_path)
    assert str(refused.value) == (
        f"the state in {states} was saved on cpu ({began}), and this is cpu ({went_on}): the result would match "
        f"neither; continue it on cpu ({began}), or delete {states} to start again"
    )
    assert not (tmp_path / "training.json").exists()
    assert run(formats[began], images, tmp_path)["continued"] == []


def test_a_state_of_another_kind_of_device_is_refused(images, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        real = trainer_module.conditions
        patched.setattr(trainer_module, "conditions", lambda *given: {**real(*given), "device": "cuda"})
        with pytest.raises(StoppedEarlyError):
            run(specification(), images, tmp_path, StopAfter(3))
    with pytest.raises(UserError, match=r"was saved on cuda \(fp32\), and this is cpu \(fp32\)"):
        run(specification(), images, tmp_path)


@pytest.mark.parametrize(
    ("module", "name", "value", "words"),
    [
        (torch, "__version__", "2.0.0", "torch {} instead of 2.0.0"),
        (np, "__version__", "1.20", "numpy {} instead of 1.20"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "VSX", "instruction set {} instead of VSX"),
    ],
)
def test_a_state_of_another_machine_goes_on_and_the_result_says_so(
    module, name, value, words, uninterrupted, images, tmp_path, monkeypatch
):
    """Whatever else happens to the training later, and though the bits here are the same."""
    now = getattr(module, name)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, value)
        with pytest.raises(StoppedEarlyError):
            run(specification(), images, tmp_path, StopAfter(3))
    with pytest.raises(StoppedEarlyError):
        run(specification(), images, tmp_path, StopAfter(2))
    outcome = run(specification(), images, tmp_path)
    words = words.format(now() if callable(now) else now)
    assert outcome["continued"] == [{"step": 3, "differences": [words]}]
    assert marks(outcome) == [f"continued after step 3 with {words}"]
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]


def test_a_training_in_one_piece_and_one_resumed_where_it_began_carry_no_mark(uninterrupted, images, tmp_path):
    with pytest.raises(StoppedEarlyError):
        run(specification(), images, tmp_path, StopAfter(3))
    for outcome in (uninterrupted[0], run(specification(), images, tmp_path)):
        assert outcome["continued"] == [] and marks(outcome) == []


def test_the_conditions_on_a_gpu_are_its_own(monkeypatch):
    """The card, cuDNN and the rounding of products, which a CPU's bits do not depend on."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90100)
    switches = {"precision": {"cuda": "bf16", "cpu": "fp32"}, "compile": {"cuda": True, "cpu": False}}
    options = {**switches, "tf32": False}
    found = conditions(torch.device("cuda", 1), options, World())
    versions = {"torch": torch.__version__, "numpy": np.__version__, "diffusers": version("diffusers")}
    expected = {"device": "cuda", "format": "bf16", "card": "card 1", "number of processes": "1", "cuDNN": "90100"}
    assert found == {**expected, **versions}
    assert conditions(torch.device("cuda", 1), {**options, "tf32": True}, World())["format"] != "bf16"
    on_cpu = conditions(torch.device("cpu"), options, World())
    assert on_cpu == conditions(torch.device("cpu"), {**options, "tf32": True}, World())
    assert (on_cpu["device"], on_cpu["format"]) == ("cpu", "fp32") and "cuDNN" not in on_cpu


def test_damaged_newest_state_falls_back_to_the_one_before(uninterrupted, images, tmp_path, capfd):
    with pytest.raises(StoppedEarlyError):
        run(specification(), images, tmp_path, StopAfter(6), save_every=0)
    states = sorted((tmp_path / "state/train").glob("*.pt"))
    assert [path.name for path in states] == ["step-000000005.pt", "step-000000006.pt"]
    with states[-1].open("rb+") as file:
        file.seek(1000)
        file.write(b"damage")
    outcome = run(specification(), images, tmp_path)
    assert "step-000000006.pt is damaged" in capfd.readouterr().err
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]
    assert curve(tmp_path) == curve(uninterrupted[1])


def test_a_record_that_no_later_stage_could_read_is_not_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "environment", dict)
    with pytest.raises(UserError, match=r"training\.json: environment\.versions is missing"):
        run(specification(), images, tmp_path)
    assert not (tmp_path / "training.json").exists()


def test_killed_in_the_middle_of_publishing_goes_on(uninterrupted, images, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            run(specification(), images, tmp_path, save_every=0)
    assert not (tmp_path / "training.json").exists()
    outcome = run(specification(), images, tmp_path)
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]


@pytest.mark.deep
def test_killed_with_sigkill_again_and_again(tmp_path, images):
    """The real script, killed at random moments while it saves after every step, most of them while it writes."""
    write_dataset(tmp_path / "data/digits", images.images)
    spec = specification(steps=40)
    spec["data"]["train_sha256"] = images.digest
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    digests = []
    randomness = random.Random(1)
    for kills in (0, 3):
        folder = tmp_path / f"cell{kills}"
        folder.mkdir()
        write_json(folder / "cell.json", spec)
        command = [
            sys.executable,
            str(ROOT / "workflow/scripts/train.py"),
            "--specification",
            str(folder / "cell.json"),
        ]
        command += ["--save-every-seconds", "0"]
        killed = 0
        while not (folder / "training.json").exists():
            process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
            if killed < kills:
                before = set((folder / "state/train").glob("*"))
                while process.poll() is None and set((folder / "state/train").glob("step-*.pt")) <= before:
                    time.sleep(0.01)
                time.sleep(randomness.uniform(0, 0.15))
                process.send_signal(signal.SIGKILL)
                killed += 1
            assert process.wait(timeout=120) in (0, -signal.SIGKILL)
        assert killed == kills
        digests.append(sha256_of_file(folder / "model.safetensors"))
    assert digests[0] == digests[1]


def test_parameterizations_of_one_seed_see_the_same_and_start_alike(images):
    trainers = [
        Trainer(specification(name), images, *[parameterization.load(name)] * 2, torch.device("cpu"))
        for name in ("epsilon", "x0")
    ]
    draws = [trainer.draw(3) for trainer in trainers]
    for field in ("indices", "flips", "timesteps", "noise"):
        np.testing.assert_array_equal(getattr(draws[0], field), getattr(draws[1], field))
    for one, other in zip(*(trainer.parameters for trainer in trainers), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("flip", [False, True])
def test_one_step_is_adamw_on_the_plain_loss(images, flip):
    """One step against the textbook: epsilon's flat loss, clip, AdamW, EMA, written out with torch alone.

    The decay is so strong that the step would end elsewhere without it.
    """
    spec = specification("epsilon", gradient_clip=0.05, weight_decay=2.0)
    spec["data"]["horizontal_flip"] = flip
    trainer = Trainer(spec, images, *[parameterization.load("epsilon")] * 2, torch.device("cpu"))
    model = copy.deepcopy(trainer.model)
    start = [p.detach().clone() for p in model.parameters()]
    draw = trainer.draw(0)
    trainer.advance(draw)

    assert draw.flips.any() == flip
    chosen = zip(images.images[draw.indices], draw.flips, strict=True)
    mirrored = [image[:, ::-1] if flipped else image for image, flipped in chosen]
    x_0 = torch.from_numpy(np.stack(mirrored)).permute(0, 3, 1, 2).float() / 127.5 - 1
    t, noise = torch.from_numpy(draw.timesteps), torch.from_numpy(draw.noise)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=2.0)
    loss = torch.nn.functional.mse_loss(model(abar.sqrt() * x_0 + (1 - abar).sqrt() * noise, t), noise)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
    optimizer.step()

    assert norm > 0.05, "the clip must act for the test to mean something"
    for mine, theirs in zip(trainer.parameters, model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    for average, first, now in zip(trainer.ema, start, model.parameters(), strict=True):
        torch.testing.assert_close(average, 0.99 * first + 0.01 * now.detach(), rtol=1e-4, atol=1e-6)
    row = trainer.window[0]
    assert row[0].item() == pytest.approx(norm.item(), rel=1e-4)
    assert row[1:5].sum().item() / 16 == pytest.approx(loss.item(), rel=1e-5)
    assert trainer.summarize()["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_fp16_with_its_scaler_clips_the_gradient_itself(images):
    """Not the one that the scaler has multiplied by 65,536."""
    trainers = {}
    for name in ("fp32", "fp16"):
        spec = specification("epsilon", gradient_clip=100.0)
        spec["training"]["precision"]["cpu"] = name
        trainers[name] = Trainer(spec, images, *[parameterization.load("epsilon")] * 2, torch.device("cpu"))
        trainers[name].advance(trainers[name].draw(0))
    assert trainers["fp16"].scaler.get_scale() == 65536
    norms = {name: trainer.window[0, 0].item() for name, trainer in trainers.items()}
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.02)
    assert 0.1 < norms["fp32"] < 100, "the clip must lie between the gradient and the scaled one"
    for one, other in zip(trainers["fp16"].parameters, trainers["fp32"].parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2.1e-3)


def test_steps_that_wait_for_other_processes_are_not_replayed(images, monkeypatch):
    asked = []
    monkeypatch.setattr(trainer_module, "replayed", lambda step, device: asked.append(device) or step)
    monkeypatch.setattr(trainer_module, "DistributedDataParallel", lambda network, _: network)
    monkeypatch.setattr(World, "gather", lambda self, value: [value] * self.size)
    v = parameterization.load("v")
    for world in (World(), World(size=2)):
        Trainer(specification(), images, v, v, torch.device("cpu"), world)
    assert asked == [torch.device("cpu")]


def test_a_compiled_network_trains_resumes_and_samples_as_the_plain_one(uninterrupted, images, tmp_path, monkeypatch):
    """With the backend that only traces, so the bits are the plain network's."""
    backends = []

    def traced(graph, example):
        backends.append(graph)
        return graph.forward

    monkeypatch.setattr(device_module, "COMPILER", traced)
    spec = specification(compile={"cuda": False, "cpu": True})
    with pytest.raises(StoppedEarlyError):
        run(spec, images, tmp_path, StopAfter(3))
    assert backends, "nothing was compiled"
    outcome = run(spec, images, tmp_path)
    assert outcome["continued"] == []
    assert weights(tmp_path) == weights(uninterrupted[1])
    assert curve(tmp_path) == curve(uninterrupted[1])
    options = {**config.load([Path("config/digits.yaml")])["sampling"], "images": 5, "batch": 3, "steps": 4}
    drawn = []
    for each in (spec, specification()):
        denoiser = Denoiser(each, images, parameterization.load("v"), torch.device("cpu"))
        denoiser.load(tmp_path / "model.safetensors")
        backends.clear()
        drawn.append(draw_images(denoiser, options, 0, "test"))
        assert bool(backends) == each["training"]["compile"]["cpu"]
    np.testing.assert_array_equal(*drawn)


def test_times_of_another_file_are_drawn_and_logged(images, tmp_path):
    spec = specification(log_every=1)
    spec["variant"]["diffusion"]["times"] = "logit_normal"
    spec["variant"]["parameters"] = {"logit_mean": 3.0, "logit_deviation": 0.5}
    run(spec, images, tmp_path)
    assert all(line["loss_by_quarter"][:2] == [0, 0] and line["loss_by_quarter"][3] > 0 for line in curve(tmp_path))
    sources = read_json(tmp_path / "training.json")["sources"]
    digests = {name: sha256_of_file(ROOT / name) for name in sources}
    assert sources == digests
    assert set(sources) == {
        f"workflow/{name}.py"
        for name in ("parameterizations/v", "paths/linear", "networks/unet", "times/logit_normal")
    }


def test_a_network_of_another_file_than_it_was_trained_with_is_not_sampled(images, tmp_path, monkeypatch):
    spec, options = specification(), config.load([Path("config/digits.yaml")])["sampling"]
    options = {**options, "images": 2, "batch": 2, "steps": 2}
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/digits/v/tiny/seed0"
    run(spec, images, folder)
    sample(spec, options, images, folder, 0, folder / "samples/ddim-2/draw0.npz")
    with Path("workflow/networks/unet.py").open("a") as file:
        file.write("\n# edited\n")
    with pytest.raises(
        UserError, match=r"^workflow/networks/unet.py is not the file that .*training.json was trained"
    ):
        sample(spec, options, images, folder, 1, folder / "samples/ddim-2/draw1.npz")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_network_trains_resumes_and_samples(precision, images, tmp_path):
    spec = specification(precision={"cuda": "fp32", "cpu": precision})
    spec["network"] = {"network": "mlp", "width": 32, "layers": 2}
    run(spec, images, tmp_path / "whole")
    with pytest.raises(StoppedEarlyError):
        run(spec, images, tmp_path / "parts", StopAfter(3))
    run(spec, images, tmp_path / "parts")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    lines = curve(tmp_path / "whole")
    assert lines[-1]["loss"] < lines[0]["loss"]
    denoiser = Denoiser(spec, images, parameterization.load("v"), torch.device("cpu"))
    denoiser.load(tmp_path / "whole/model.safetensors")
    options = {**config.load([Path("config/digits.yaml")])["sampling"], "images": 5, "batch": 3, "steps": 4}
    assert draw_images(denoiser, options, 0, "test").shape == (5, 8, 8, 1)
    x_t = torch.randn(4, 1, 8, 8)
    output = denoiser.model(x_t, torch.arange(4))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        assert denoiser.model(x_t, torch.arange(4)).dtype == output.dtype == torch.float32


def weights(folder):
    return {name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()}


def estimate_in_bf16(images, output_in_fp32):
    """Return x0 as a network under bf16 says it, and what its last layer's weights make of the same features in fp32.

    The last layer is scaled so that its values are those of pixels.
    """
    spec = specification("x0", precision={"cuda": "bf16", "cpu": "bf16"}, output_in_fp32=output_in_fp32)
    denoiser = Denoiser(spec, images, parameterization.load("x0"), torch.device("cpu"))
    last = denoiser.model.conv_out
    features = []
    last.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    x_t = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last.weight.mul_(1.5)
        said = denoiser.x_0(x_t, torch.arange(0, 960, 15))
        exact = torch.nn.functional.conv2d(features[0].float(), last.weight, last.bias, padding=1)
    assert 0.2 < exact.std() < 0.7
    return said, exact


def test_in_bf16_the_output_is_not_rounded_to_eight_bits(images):
    said, exact = estimate_in_bf16(images, output_in_fp32=True)
    torch.testing.assert_close(said, exact, rtol=1e-5, atol=1e-6)
    assert (said == said.bfloat16()).float().mean() < 0.01
    np.testing.assert_array_equal(to_uint8(said, "round"), to_uint8(exact, "round"))


def test_the_reference_task_rounds_its_output_and_several_pixels_of_a_hundred_change_a_level(images):
    said, exact = estimate_in_bf16(images, output_in_fp32=False)
    assert (said == said.bfloat16()).all()
    changed = (to_uint8(said, "round") != to_uint8(exact, "round")).mean()
    assert 0.03 < changed < 0.2


def test_training_in_bf16_learns_from_the_output_in_fp32(images):
    trainers = {}
    for wide in (True, False):
        spec = specification("x0", precision={"cuda": "bf16", "cpu": "bf16"}, output_in_fp32=wide)
        trainers[wide] = Trainer(spec, images, *[parameterization.load("x0")] * 2, torch.device("cpu"))
        seen = []
        trainers[wide].model.conv_out.register_forward_hook(lambda *given, seen=seen: seen.append(given[2]))
        trainers[wide].advance(trainers[wide].draw(0))
        (output,) = seen
        assert output.dtype == (torch.float32 if wide else torch.bfloat16)
        assert all(torch.isfinite(parameter.grad).all() for parameter in trainers[wide].parameters)
    assert trainers[True].window[0, 0] == pytest.approx(trainers[False].window[0, 0].item(), rel=0.05)


def test_log_line_is_the_mean_of_its_steps(images):
    trainer = Trainer(specification(), images, *[parameterization.load("v")] * 2, torch.device("cpu"))
    for step in range(4):
        trainer.advance(trainer.draw(step))
    line = trainer.summarize()
    counts = np.bincount(np.concatenate([trainer.draw(step).timesteps for step in range(4)]) // 250, minlength=4)
    assert trainer.window[:4, 5:].sum(0).tolist() == counts.tolist()
    by_quarter = np.array(line["loss_by_quarter"])
    assert (by_quarter * counts).sum() / counts.sum() == pytest.approx(line["loss"], rel=1e-4)


def test_micro_batches_give_the_same_gradient(images):
    trainers = [
        Trainer(specification(micro_batch=size), images, *[parameterization.load("v")] * 2, torch.device("cpu"))
        for size in (None, 4)
    ]
    for step in range(3):
        for trainer in trainers:
            trainer.advance(trainer.draw(step))
    torch.testing.assert_close(trainers[0].window, trainers[1].window, rtol=1e-5, atol=1e-6)
    assert not torch.equal(trainers[0].window, torch.zeros_like(trainers[0].window))


def test_time_budget_stops_in_time_with_the_state_saved(uninterrupted, images, tmp_path):
    with pytest.raises(StoppedEarlyError, match="time budget"):
        run(specification(), images, tmp_path, Stop(time_budget=60, margin=60))
    assert run(specification(), images, tmp_path)["model_sha256"] == uninterrupted[0]["model_sha256"]


def test_saving_takes_a_hundredth_of_the_time_at_most(images, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    states = StateFolder(tmp_path, "key")
    monkeypatch.setattr(states, "save", lambda step, content: clock.__setitem__(0, clock[0] + 8.0))
    savings = loop.Savings(states, 300.0, 0.0)
    trainer = Trainer(specification(), images, *[parameterization.load("v")] * 2, torch.device("cpu"))
    clock[0] = 299.0
    assert not savings.due()
    clock[0] = 300.0
    assert savings.due()
    savings.save(trainer)
    clock[0] += 799.0
    assert not savings.due()
    clock[0] += 1.0
    assert savings.due()


def test_divergence_is_a_result(images, tmp_path):
    outcome = run(specification(learning_rate=1e30), images, tmp_path)
    assert outcome["status"] == "diverged"
    assert "not finite at step" in outcome["reason"]
    assert 2 <= outcome["divergence"]["step"] <= 8
    assert len(outcome["divergence"]["last_losses"]) >= 1
    assert (tmp_path / "model.safetensors").exists() and not (tmp_path / "state/train").exists()


def truncated(weighting, **training_options):
    spec = specification("epsilon", **training_options)
    spec["variant"]["weighting"] = weighting
    return spec


def test_epsilon_under_truncated_snr_diverges_and_says_where(images, tmp_path):
    """Salimans & Ho 2022, table 1, has no number for it: at t = 999 an error counts 24,000 times epsilon's own."""
    wild = {"learning_rate": 3.0, "gradient_clip": 1e9, "steps": 30}
    outcome = run(truncated("truncated_snr", **wild), images, tmp_path / "truncated")
    assert outcome["status"] == "diverged"
    assert outcome["reason"] == f"the loss was not finite at step {outcome['divergence']['step']}"
    assert outcome["divergence"]["step"] < 12
    assert all(loss > 100 for loss in outcome["divergence"]["last_losses"][1:])
    assert outcome["divergence"]["last_gradient_norms"][0] > 1e3


def test_under_truncated_snr_a_clip_of_one_cuts_every_step_which_the_log_tells(images, tmp_path):
    assert run(truncated("truncated_snr"), images, tmp_path / "truncated")["clipped_share"] == 1.0
    assert run(truncated("snr"), images, tmp_path / "snr")["clipped_share"] < 1.0


def test_a_normalized_weight_is_the_trainings(images):
    spec = truncated("min_snr")
    plain, normalized = copy.deepcopy(spec), copy.deepcopy(spec)
    normalized["variant"]["normalize_weight"] = True
    target = parameterization.load("epsilon")
    factors = [
        Trainer(each, images, target, target, torch.device("cpu")).objective.factor for each in (plain, normalized)
    ]
    assert factors[0].mean() < 0.95
    assert factors[1].mean().item() == pytest.approx(1, rel=1e-6)


def test_second_trainer_is_refused_and_told_who_holds_the_cell(images, tmp_path):
    with StateFolder(tmp_path / "state/train", "whatever").locked():
        time.sleep(0.1)
        with pytest.raises(UserError, match=f"in use by another process .*process {os.getpid()}"):
            run(specification(), images, tmp_path)


def test_full_disk_keeps_the_state_before(uninterrupted, images, tmp_path, monkeypatch):
    real, calls = torch.save, []

    def save(content, path):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", str(path))
        real(content, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        with pytest.raises(OSError, match="No space left"):
            run(specification(), images, tmp_path, save_every=0)
    assert not list((tmp_path / "state/train").glob(".*part"))
    outcome = run(specification(), images, tmp_path)
    assert outcome["model_sha256"] == uninterrupted[0]["model_sha256"]


def test_batch_larger_than_the_data_is_refused(images, tmp_path):
    with pytest.raises(UserError, match=r"training.global_batch is 65; it must be at most 64 images"):
        run(specification(global_batch=65), images, tmp_path)
