"""Training loops: ours, and what one would write or install otherwise. The same U-Net, batch and steps for all."""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from plan import Plan, Settings, specification
from timing import Contestant
from torch import Tensor, nn

from targetwise.compute.device import set_kernels
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.diffusion.network import build
from targetwise.training.loop import prefetched
from targetwise.training.trainer import Trainer

#: denoising-diffusion-pytorch refuses to train with fewer images a step.
LEAST_IMAGES = 16

#: Number formats as accelerate calls them.
ACCELERATE = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def ours(plan: Plan, images: Images, settings: Settings, name: str, accumulated: int = 1) -> Contestant:
    """Return the project's own trainer; ``accumulated`` batches are one step."""
    cell = specification(plan, settings, accumulated)
    target = parameterization.load("epsilon")
    trainer = Trainer(cell, images, target, target, plan.device)

    def run() -> None:
        with prefetched(trainer.draw, trainer.step, plan.device) as draws:
            for _ in range(plan.steps):
                trainer.advance(next(draws))
        trainer.summarize()

    images_a_step = accumulated * plan.batch
    facts = {**settings, "batch": images_a_step}
    return Contestant(name, run, plan.steps * images_a_step, facts, lambda: set_kernels(trainer.options))


def batches_accumulated(plan: Plan) -> int:
    """Return how many of the plan's batches denoising-diffusion-pytorch needs for one step."""
    return math.ceil(LEAST_IMAGES / plan.batch)


def guide(plan: Plan, images: Images, precision: str, name: str) -> Contestant:
    """Return the loop of diffusers' unconditional training: accelerate, ``EMAModel``, torchvision."""
    from accelerate import Accelerator
    from torchvision import transforms

    _forget_accelerators(plan.device)
    options = specification(plan, plan.configured)["training"]
    flipped = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    )
    accelerator = Accelerator(mixed_precision=ACCELERATE[precision])
    model = _unet(plan, images)
    ema = EMAModel(model.parameters(), decay=options["ema_decay"], model_cls=type(model), model_config=model.config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"]
    )
    pictures = [Image.fromarray(image) for image in images.images]
    loader = torch.utils.data.DataLoader(
        _Pictures(pictures, flipped), batch_size=plan.batch, shuffle=True, drop_last=True
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    ema.to(accelerator.device)
    batches = _endless(loader)

    def run() -> None:
        for _ in range(plan.steps):
            clean = next(batches)
            noise = torch.randn(clean.shape, device=clean.device)
            timesteps = torch.randint(0, 1000, (len(clean),), device=clean.device)
            noisy = scheduler.add_noise(clean, noise, timesteps)
            with accelerator.accumulate(model):
                predicted = model(noisy, timesteps)
                loss = nn.functional.mse_loss(predicted, noise)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), options["gradient_clip"])
                optimizer.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            loss.detach().item()  # the guide shows the loss of every step

    return Contestant(name, run, plan.steps * plan.batch, {"precision": precision, "batch": plan.batch})


def lucidrains(plan: Plan, images: Images, precision: str, scratch: Path, name: str) -> Contestant:
    """Return denoising-diffusion-pytorch's ``GaussianDiffusion`` and ``Trainer`` around the same U-Net."""
    from denoising_diffusion_pytorch import GaussianDiffusion
    from denoising_diffusion_pytorch import Trainer as TheirTrainer

    _forget_accelerators(plan.device)
    options = specification(plan, plan.configured)["training"]
    accumulated = batches_accumulated(plan)
    folder = scratch / "images"
    if not folder.exists():
        folder.mkdir()
        for index, image in enumerate(images.images):
            Image.fromarray(image).save(folder / f"{index:05d}.png")
    diffusion = GaussianDiffusion(
        _PlainOutput(_unet(plan, images), images.channels),
        image_size=images.size,
        timesteps=1000,
        objective="pred_noise",
        beta_schedule="linear",
    )
    trainer = TheirTrainer(
        diffusion,
        str(folder),
        train_batch_size=plan.batch,
        gradient_accumulate_every=accumulated,
        train_lr=options["learning_rate"],
        train_num_steps=0,
        ema_decay=options["ema_decay"],
        save_and_sample_every=10**9,
        results_folder=str(scratch / "results"),
        amp=precision != "fp32",
        mixed_precision_type=ACCELERATE[precision],
        calculate_fid=False,
    )

    def run() -> None:
        trainer.train_num_steps += plan.steps
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.train()

    images_a_step = accumulated * plan.batch
    return Contestant(name, run, plan.steps * images_a_step, {"precision": precision, "batch": images_a_step})


class _Pictures(torch.utils.data.Dataset[Tensor]):
    """PIL images with torchvision transforms, as the guide has them."""

    def __init__(self, pictures: list[Image.Image], transform: Any) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        transformed: Tensor = self.transform(self.pictures[index])
        return transformed


class _PlainOutput(nn.Module):
    """diffusers' U-Net behind the interface that denoising-diffusion-pytorch expects."""

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.model, self.channels, self.out_dim = model, channels, channels
        self.self_condition = self.random_or_learned_sinusoidal_cond = False

    def forward(self, x: Tensor, t: Tensor, *unused: object) -> Tensor:
        """Return the network's output for noisy images ``x`` and time steps ``t``."""
        output: Tensor = self.model(x, t)
        return output


def _unet(plan: Plan, images: Images) -> nn.Module:
    return build(
        plan.network, in_channels=images.channels, out_channels=images.channels, image_size=images.size, seed=0
    )


def _endless(loader: Any) -> Iterator[Tensor]:
    while True:
        yield from loader


def _forget_accelerators(device: torch.device) -> None:
    """Let the next ``Accelerator`` choose device and number format again; accelerate keeps both for the process."""
    from accelerate.state import AcceleratorState

    os.environ["ACCELERATE_USE_CPU"] = str(device.type == "cpu").lower()
    AcceleratorState._reset_state(reset_partial_state=True)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
