"""The reference task: its scales, its quirks one by one, its published numbers, and its submissions run unchanged."""

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from helpers import denoise, diffusers_options, link_workflow

from targetwise import cells
from targetwise.check import roundtrip as check
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.diffusion.network import build
from targetwise.diffusion.schedule import make_schedule
from targetwise.files import sha256_of_array
from targetwise.recipe import config
from targetwise.sampling.denoiser import Denoiser, to_uint8
from targetwise.training import loop
from targetwise.training.stopping import Stop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def clean(at_the_root):
    return config.load()


@pytest.fixture
def faithful(at_the_root):
    return config.load([Path("config/reference.yaml")])


@pytest.mark.parametrize(("scale", "millions"), [("small", 8.952067), ("medium", 35.746307), ("large", 142.861)])
def test_scales_have_the_published_numbers_of_parameters(scale, millions, clean):
    with torch.device("meta"):
        model = build(clean["scales"][scale], in_channels=3, out_channels=3, image_size=32, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_network_is_the_reference_tasks(clean):
    """Every architectural choice of protocol.md, read back from the network itself."""
    with torch.device("meta"):
        found = build(clean["scales"]["small"], in_channels=3, out_channels=3, image_size=32, seed=0).config
    expected = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "act_fn": "silu",
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "dropout": 0.0,
        "attention_head_dim": 8,
    }
    assert {key: tuple(found[key]) if "types" in key else found[key] for key in expected} == expected


def test_both_protocols_share_the_budget(clean, faithful):
    same = {"steps": 35000, "learning_rate": 2e-4, "weight_decay": 1e-4, "gradient_clip": 1.0, "ema_decay": 0.9995}
    for study in (clean, faithful):
        assert {key: study["training"][key] for key in same} == same
        assert study["diffusion"] == {
            "schedule": "linear",
            "timesteps": 1000,
            "beta_start": 1e-4,
            "beta_end": 0.02,
        } | {"times": "uniform"}
        sampling = {"sampler": "ddim", "steps": 50, "spacing": "leading", "clip": True, "images": 50000}
        assert {key: study["sampling"][key] for key in sampling} == sampling
        assert study["grid"]["parameterizations"] == ["epsilon", "v", "x0"]
        assert study["data"] == {"dataset": "cifar10", "horizontal_flip": True}
        assert study["metric"]["extractor"] == "inception" and study["metric"]["reference"] == {"split": "train"}


def test_clean_protocol_is_three_seeds_two_draws_and_no_quirk(clean):
    assert len(cells.grid(clean)) == 27 and clean["sampling"]["draws"] == 2
    assert clean["training"]["precision"]["cuda"] == "bf16" and clean["training"]["global_batch"] == 128
    quirks = {"last_alpha_is_one": True, "quantization": "round", "widen_output": True}
    assert {key: clean["sampling"][key] for key in quirks} == quirks
    assert clean["training"]["output_in_fp32"]


def test_faithful_protocol_is_seed_42_and_its_batches(faithful):
    assert faithful["grid"]["seeds"] == [42] and faithful["training"]["precision"]["cuda"] == "fp16"
    specifications = cells.specifications(faithful)
    batches = {
        cell.scale: specifications[cell.folder / "cell.json"]["training"]["global_batch"]
        for cell in cells.grid(faithful)
    }
    assert batches == {"small": 128, "medium": 128, "large": 64}
    assert not any(faithful["training"][key] for key in ("tf32", "output_in_fp32"))
    # The task does not compile. It changes rounding and time only; without it a GPU takes twice as long.
    assert faithful["training"]["compile"] == {"cuda": True, "cpu": False}


# -- quirks, each by its effect


class Known:
    """Stands for a denoiser that knows x_0, or that is wrong in a known way."""

    def __init__(self, study, x_0):
        self.variant = {"diffusion": study["diffusion"], "parameters": {}}
        self.answer = x_0
        self.asked = []

    def x_0(self, x_t, timesteps, *, widen_output):
        self.asked.append(int(timesteps[0]))
        return self.answer


def sampled(study, x_0, **options):
    """Return what the sampler makes of noise when the denoiser always answers ``x_0``, and the steps it took."""
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    denoiser = Known(study, x_0)
    return denoise(denoiser, noise, {**study["sampling"], **options}), denoiser.asked


def theirs(study):
    """Return diffusers' scheduler, as the reference task sets it up."""
    sampling = study["sampling"]
    scheduler = DDIMScheduler(
        **diffusers_options(study["diffusion"]),
        prediction_type="sample",
        clip_sample=sampling["clip"],
        set_alpha_to_one=sampling["last_alpha_is_one"],
        timestep_spacing=sampling["spacing"],
    )
    scheduler.set_timesteps(sampling["steps"])
    return scheduler


def test_leading_spacing_asks_at_980_to_0(faithful):
    _, asked = sampled(faithful, torch.zeros(8, 3, 32, 32))
    assert asked == list(range(980, -1, -20))


def test_49_of_50_steps_act_and_noise_stays(faithful, clean):
    """The last step goes from ᾱ₀ to ᾱ₀: noise of sd √(1 − ᾱ₀) = 0.01 stays, even with a perfect denoiser."""
    x_0 = torch.full((8, 3, 32, 32), 0.25)
    images, asked = sampled(faithful, x_0)
    assert len(asked) == 50
    a = (1 - faithful["diffusion"]["beta_start"]) ** 0.5
    assert (images - a * 0.25).std().item() == pytest.approx(0.01, rel=0.05)
    exact, _ = sampled(clean, x_0)
    assert (exact - 0.25).abs().max() < 1e-5


def test_truncation_darkens_by_half_a_level():
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rounded, truncated = (to_uint8(images, how).astype(float) for how in ("round", "truncate"))
    assert (rounded - truncated).mean() == pytest.approx(0.5, abs=0.01)
    assert set(np.unique(rounded - truncated)) == {0.0, 1.0}
    np.testing.assert_array_equal(truncated, np.floor((images.permute(0, 2, 3, 1).numpy() + 1) * 127.5))


@pytest.mark.parametrize("clipped_epsilon", [False, True])
def test_every_quirk_together_is_diffusers_own_sampler(faithful, clipped_epsilon):
    """With x0 far outside [-1, 1]: 50 steps of ours and of theirs from the same noise."""
    base = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def x_0(t):
        return 2 * torch.sin(base + t / 100)

    denoiser = Known(faithful, None)
    denoiser.x_0 = lambda x_t, timesteps, **_: x_0(int(timesteps[0]))
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = denoise(denoiser, noise, {**faithful["sampling"], "clipped_epsilon": clipped_epsilon})
    scheduler, x = theirs(faithful), noise
    for t in scheduler.timesteps:
        x = scheduler.step(x_0(int(t)), t, x, eta=0.0, use_clipped_model_output=clipped_epsilon).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_network_output_stays_in_the_type_of_autocast(faithful, clean):
    """On a CPU bf16 stands for fp16: x0's estimate is the output itself, so its type goes through the sampler."""
    seen = []

    def predict_x0(model_output, x_t, timesteps, schedule):
        seen.append(model_output.dtype)
        return model_output

    denoiser = Denoiser.__new__(Denoiser)
    denoiser.variant = {"diffusion": clean["diffusion"], "parameters": {}}
    denoiser.options = {"precision": {"cpu": "bf16"}, "deterministic": False, "tf32": False}
    denoiser.device = torch.device("cpu")
    denoiser.schedule = make_schedule(clean["diffusion"])
    denoiser.target = SimpleNamespace(predict_x0=predict_x0)
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)
    denoiser.model = lambda x, timesteps: convolution(x)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    narrow = denoise(denoiser, noise, faithful["sampling"])
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    wide = denoise(denoiser, noise, {**faithful["sampling"], "widen_output": True})
    assert set(seen) == {torch.float32}
    assert narrow.dtype == wide.dtype == torch.float32 and not torch.equal(narrow, wide)


# -- published numbers


def test_published_numbers_are_those_of_the_protocol(at_the_root):
    with Path("workflow/resources/published.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(row["entry"], row["setting"], row["scale"]): row["fid"] for row in rows}
    for entry, values in {
        "epsilon": ("18.580", "8.460", "7.170"),
        "v": ("21.700", "11.590", "8.800"),
        "x0": ("25.250", "13.560", "11.990"),
    }.items():
        assert tuple(found[entry, "baseline", scale] for scale in ("small", "medium", "large")) == values
    assert len(found) == len(rows) == 32
    assert all(row["source"] for row in rows)
    failed = [row for row in rows if not row["fid"]]
    assert [(row["entry"], row["scale"], row["note"]) for row in failed] == [("deepseek-reasoner", "large", "failed")]


# -- a submission of the reference task, as a user hands it in

SUBMISSION = '''
import math

import torch


SIGMA = 0.5


def _coefficients(timesteps, schedule):
    alpha = schedule["alphas_cumprod"].to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    a = schedule["sqrt_alpha"][timesteps][:, None, None, None]
    b = schedule["sqrt_one_minus_alpha"][timesteps][:, None, None, None]
    assert torch.allclose(alpha, a * a, atol=1e-5)
    return a, b


def compute_training_target(x_0, noise, timesteps, schedule):
    """F of EDM on the VP path."""
    assert isinstance(schedule, dict) and timesteps.dtype == torch.long
    a, b = _coefficients(timesteps, schedule)
    q = torch.sqrt(b**2 + SIGMA**2 * a**2)
    return (b * x_0 - SIGMA**2 * a * noise) / (SIGMA * q)


def predict_x0(model_output, x_t, timesteps, schedule):
    a, b = _coefficients(timesteps, schedule)
    q = b**2 + math.pow(SIGMA, 2) * a**2
    return (SIGMA**2 * a / q) * x_t + (b * SIGMA / torch.sqrt(q)) * model_output
'''


@pytest.fixture
def submission(tmp_path, monkeypatch):
    """A project with one more parameterization, which is a user's file as it is."""
    (link_workflow(tmp_path) / "submitted.py").write_text(SUBMISSION)
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_submission_runs_unchanged(submission):
    overlay = {
        "grid": {"parameterizations": ["submitted"], "scales": ["narrow"], "seeds": [42]},
        "scales": {"narrow": {"channels": [32, 32], "attention": [], "layers_per_block": 1}},
        "training": {"steps": 3, "global_batch": 8, "log_every": 1},
    }
    study = config.validate(config.merge(config.load([Path("config/reference.yaml")]), overlay))
    (cell,) = cells.grid(study)
    specification = cells.specifications(study)[cell.folder / "cell.json"]
    target = parameterization.load("submitted")
    found = check.check(target, target, specification["variant"], ["fp16"])
    assert found["round_trip"]["fp64"]["largest_error"] < 1e-12
    assert found["mean_weight_in_x0_space"] > 4  # SNR + 1/s², s = 0.5

    array = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    images = Images(array, np.zeros(16, dtype=np.int64), sha256_of_array(array))
    cell.folder.mkdir(parents=True)
    outcome = loop.train(specification, images, cell.folder, save_every_seconds=1e9, stop=Stop())
    assert outcome["status"] == "finished" and outcome["steps"] == 3

    denoiser = Denoiser(specification, images, target, torch.device("cpu"))
    denoiser.load(cell.folder / "model.safetensors")
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pictures = denoise(denoiser, noise, {**study["sampling"], "steps": 4})
    assert pictures.shape == (2, 3, 32, 32) and pictures.isfinite().all()


def test_whole_study_is_planned(tmp_path):
    """3 parameterizations × 3 scales × 3 seeds with two draws each."""
    for name in ("workflow", "rules", "config", "profiles", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("Snakefile", "config.yaml", "dvc.yaml", "environment.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "all"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = dict(
        line.split() for line in done.stdout.split("Job stats:")[1].splitlines()[3:] if len(line.split()) == 2
    )
    expected = {"train": 27, "sample": 54, "fid": 54, "prepare_data": 1, "prepare_weights": 1, "reference_stats": 1}
    assert {rule: int(jobs[rule]) for rule in expected} == expected
