"""The loops that are compared: ours, and what one would write or install otherwise. Same U-Net, batch and steps."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from timing import Contestant
from torch import nn
from torchvision import transforms

from targetwise import parameterization
from targetwise.data import Images
from targetwise.network import build
from targetwise.sampling import Denoiser, draw_images
from targetwise.trainer import Trainer


def unet(specification: dict[str, Any], images: Images) -> nn.Module:
    """Return the cell's U-Net with its initial weights."""
    return build(
        specification["network"],
        in_channels=images.channels,
        out_channels=images.channels,
        image_size=images.size,
        seed=specification["cell"]["seed"],
    )


def our_training(specification: dict[str, Any], images: Images, device: torch.device, steps: int) -> Contestant:
    """Return the project's own trainer."""
    trainer = Trainer(specification, images, *[parameterization.load("epsilon")] * 2, device)

    def run() -> None:
        for _ in range(steps):
            trainer.advance(trainer.draw(trainer.step))
        trainer.summarize()

    return Contestant("targetwise", run, steps, "steps")


class FolderOfImages(torch.utils.data.Dataset):
    """Images as a data set of PIL images with torchvision transforms, as the documented example has them."""

    def __init__(self, images: Images) -> None:
        self.images = [Image.fromarray(image) for image in images.images]
        self.transform = transforms.Compose(
            [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.images[index])


def diffusers_training(
    specification: dict[str, Any], images: Images, device: torch.device, steps: int, mixed_precision: str
) -> Contestant:
    """Return the loop of diffusers' guide to unconditional training, with accelerate and ``EMAModel``."""
    from accelerate import Accelerator

    options = specification["training"]
    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu")
    model = unet(specification, images)
    ema = EMAModel(model.parameters(), decay=options["ema_decay"], model_cls=type(model), model_config=model.config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"]
    )
    loader = torch.utils.data.DataLoader(
        FolderOfImages(images), batch_size=options["global_batch"], shuffle=True, drop_last=True
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    ema.to(accelerator.device)

    def batches() -> Any:
        while True:
            yield from loader

    source = batches()

    def run() -> None:
        for _ in range(steps):
            clean = next(source)
            noise = torch.randn(clean.shape, device=clean.device)
            timesteps = torch.randint(0, 1000, (len(clean),), device=clean.device)
            with accelerator.accumulate(model):
                predicted = model(scheduler.add_noise(clean, noise, timesteps), timesteps).sample
                loss = nn.functional.mse_loss(predicted, noise)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), options["gradient_clip"])
                optimizer.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            loss.detach().item()  # the guide shows the loss of every step

    return Contestant(f"diffusers guide, {mixed_precision}", run, steps, "steps")


class PlainOutput(nn.Module):
    """diffusers' U-Net behind the interface that denoising-diffusion-pytorch expects."""

    def __init__(self, model: nn.Module, images: Images) -> None:
        super().__init__()
        self.model, self.channels, self.out_dim = model, images.channels, images.channels
        self.self_condition = self.random_or_learned_sinusoidal_cond = False

    @property
    def downsample_factor(self) -> int:
        """Return what image sizes must be a multiple of."""
        return 8

    def forward(self, x: torch.Tensor, t: torch.Tensor, *unused: object) -> torch.Tensor:
        """Return the network's output for noisy images ``x`` and time steps ``t``."""
        return self.model(x, t).sample


def lucidrains_training(specification: dict[str, Any], images: Images, steps: int, amp: bool) -> Contestant:
    """Return denoising-diffusion-pytorch's ``GaussianDiffusion`` and ``Trainer`` around the same U-Net."""
    from denoising_diffusion_pytorch import GaussianDiffusion
    from denoising_diffusion_pytorch import Trainer as LucidrainsTrainer

    options = specification["training"]
    folder = tempfile.mkdtemp()
    for index, image in enumerate(images.images):
        Image.fromarray(image).save(Path(folder) / f"{index:05d}.png")
    diffusion = GaussianDiffusion(
        PlainOutput(unet(specification, images), images),
        image_size=images.size,
        timesteps=1000,
        objective="pred_noise",
        beta_schedule="linear",
    )
    trainer = LucidrainsTrainer(
        diffusion,
        folder,
        train_batch_size=options["global_batch"],
        train_lr=options["learning_rate"],
        train_num_steps=0,
        gradient_accumulate_every=1,
        ema_decay=options["ema_decay"],
        save_and_sample_every=10**9,
        results_folder=tempfile.mkdtemp(),
        amp=amp,
        calculate_fid=False,
    )

    def run() -> None:
        trainer.train_num_steps += steps
        trainer.train()

    return Contestant("denoising-diffusion-pytorch", run, steps, "steps")


def our_sampling(
    specification: dict[str, Any], options: dict[str, Any], images: Images, device: torch.device
) -> Contestant:
    """Return the project's own sampler."""
    denoiser = Denoiser(specification, images, parameterization.load("epsilon"), device)
    return Contestant(
        "targetwise", lambda: void(draw_images(denoiser, options, 0, "sample")), options["images"], "images"
    )


def diffusers_sampling(
    specification: dict[str, Any], options: dict[str, Any], images: Images, device: torch.device
) -> Contestant:
    """Return diffusers' ``DDIMPipeline`` with the same network, steps and batch."""
    pipeline = DDIMPipeline(unet(specification, images), DDIMScheduler(num_train_timesteps=1000)).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def run() -> None:
        for first in range(0, options["images"], options["batch"]):
            count = min(options["batch"], options["images"] - first)
            pipeline(batch_size=count, num_inference_steps=options["steps"], output_type="np")

    return Contestant("diffusers DDIMPipeline", run, options["images"], "images")


def void(value: np.ndarray) -> None:
    """Take a result and keep nothing."""
