"""Training: exact resume through any kill, pairing across parameterizations, divergence as a result."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_dataset

from targetwise import config
from targetwise.cells import grid, specifications
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.training import loop
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
        "scales": {"tiny": {"channels": [32, 32], "attention": [], "layers_per_block": 1}},
        "training": {"steps": STEPS, "global_batch": 16, "log_every": 4, **training_options},
    }
    study = config.validate(config.merge(config.load([Path("config/digits.yaml")]), overlay))
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


def test_one_step_is_adamw_on_the_plain_loss(images):
    """One step against the textbook: epsilon's flat loss, clip, AdamW, EMA, written out with torch alone."""
    spec = specification("epsilon", gradient_clip=0.05)
    trainer = Trainer(spec, images, *[parameterization.load("epsilon")] * 2, torch.device("cpu"))
    model = copy.deepcopy(trainer.model)
    start = [p.detach().clone() for p in model.parameters()]
    draw = trainer.draw(0)
    trainer.advance(draw)

    x_0 = torch.from_numpy(images.images[draw.indices]).permute(0, 3, 1, 2).float() / 127.5 - 1
    t, noise = torch.from_numpy(draw.timesteps), torch.from_numpy(draw.noise)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    loss = torch.nn.functional.mse_loss(model(abar.sqrt() * x_0 + (1 - abar).sqrt() * noise, t).sample, noise)
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
