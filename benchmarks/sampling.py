"""Sampling: our sampler, and diffusers' pipeline. The same U-Net, steps and batch for both."""

import contextlib
import io

from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from plan import Plan, Settings, sampling_options, specification
from timing import Contestant

from targetwise.compute.device import autocast
from targetwise.data.store import Images
from targetwise.diffusion import parameterization
from targetwise.diffusion.network import build
from targetwise.sampling.denoiser import Denoiser, draw_images


def ours(plan: Plan, images: Images, settings: Settings, name: str) -> Contestant:
    """Return the project's own sampler."""
    cell = specification(plan, settings)
    denoiser = Denoiser(cell, images, parameterization.load("epsilon"), plan.device)
    options = sampling_options(plan)

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress
            draw_images(denoiser, options, 0, "sample")

    return Contestant(name, run, plan.sampling_images, settings)


def pipeline(plan: Plan, images: Images, precision: str, name: str) -> Contestant:
    """Return diffusers' ``DDIMPipeline``; a precision other than fp32 is autocast around it."""
    ours = build(
        plan.network, in_channels=images.channels, out_channels=images.channels, image_size=images.size, seed=0
    )
    unet = UNet2DModel.from_config(ours.config)  # which returns what the pipeline expects
    unet.load_state_dict(ours.state_dict())
    pipe = DDIMPipeline(unet.eval(), DDIMScheduler(num_train_timesteps=1000)).to(plan.device)
    pipe.set_progress_bar_config(disable=True)

    def run() -> None:
        with autocast(plan.device, {plan.device.type: precision}):
            pipe(batch_size=plan.sampling_images, num_inference_steps=plan.sampling_steps, output_type="np")

    return Contestant(name, run, plan.sampling_images, {"precision": precision})
