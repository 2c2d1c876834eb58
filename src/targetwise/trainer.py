"""One cell's model, EMA and optimizer, advanced step by step without waiting for the device."""

import math
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from targetwise.data import Images
from targetwise.device import autocast
from targetwise.errors import UserError
from targetwise.loss import Objective
from targetwise.network import build
from targetwise.parameterization import Parameterization, probe_output_channels
from targetwise.randomness import StepDraw, TrainingStreams
from targetwise.schedule import add_noise, make_schedule

#: The time axis is logged in this many equal parts.
QUARTERS = 4

#: What the window keeps of each step: loss, gradient norm, then sums and counts of the loss by quarter.
COLUMNS = 2 + 2 * QUARTERS


class Trainer:
    """Model, EMA and optimizer of one cell, advanced one step at a time."""

    def __init__(
        self,
        specification: Mapping[str, Any],
        images: Images,
        target: Parameterization,
        loss_space: Parameterization,
        device: torch.device,
    ) -> None:
        """Build everything at step 0; see :func:`train` for the arguments."""
        options, variant = specification["training"], specification["variant"]
        self.options = options
        self.device = device
        self.schedule = make_schedule(variant["diffusion"], variant["parameters"], device=device)
        cpu_schedule = {name: value.cpu() for name, value in self.schedule.items()}
        self.objective = Objective.of(target, loss_space, variant["weighting"], self.schedule)
        self.out_channels = probe_output_channels(target, images.channels, images.size, cpu_schedule)
        self.model = build(
            specification["network"],
            in_channels=images.channels,
            out_channels=self.out_channels,
            image_size=images.size,
            seed=specification["cell"]["seed"],
        ).to(device)
        self.parameters = list(self.model.parameters())
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        self.update_ema = get_ema_multi_avg_fn(options["ema_decay"])
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=options["learning_rate"], weight_decay=options["weight_decay"]
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=options["precision"][device.type] == "fp16")
        self.data = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous().to(device)
        if len(self.data) < options["global_batch"]:
            raise UserError(
                f"training.global_batch is {options['global_batch']}, but there are only {len(self.data)} images"
            )
        self.streams = TrainingStreams(
            specification["cell"]["seed"],
            images=len(self.data),
            global_batch=options["global_batch"],
            timesteps=variant["diffusion"]["timesteps"],
            image_shape=(images.channels, images.size, images.size),
            horizontal_flip=specification["data"]["horizontal_flip"],
        )
        self.step = 0
        self.seconds = 0.0
        self.window = torch.zeros(options["log_every"], COLUMNS, device=device)
        self.window_began = time.monotonic()
        self.window_first = 0

    def draw(self, step: int) -> StepDraw:
        """Return what step ``step`` (from 0) draws."""
        return self.streams.draw(step)

    def advance(self, draw: StepDraw) -> None:
        """Take one optimizer step; nothing waits for the device."""
        timesteps, noise = self._to_device(draw.timesteps), self._to_device(draw.noise)
        x_0 = self._images(self._to_device(draw.indices), self._to_device(draw.flips))
        x_t = add_noise(x_0, noise, timesteps, self.schedule)
        with autocast(self.device, self.options["precision"]):
            output = self.model(x_t, timesteps).sample
        losses = self.objective(output.float(), x_0, noise, x_t, timesteps)
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options["gradient_clip"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.update_ema(self.ema, self.parameters, 0)
            self._record(losses.detach(), loss.detach(), norm, timesteps)
        self.step += 1

    def window_is_full(self) -> bool:
        """Return whether ``log_every`` steps have passed since the last summary."""
        return self.step % self.options["log_every"] == 0

    def summarize(self) -> dict[str, Any]:
        """Return the log line of the steps since the last one; this is where the device is waited for.

        A line with ``diverged`` names the first step whose loss was not finite.
        """
        log_every = self.options["log_every"]
        count = (self.step - 1) % log_every + 1
        rows = self.window[:count].cpu().double()
        losses, norms = rows[:, 0], rows[:, 1]
        sums, counts = rows[:, 2 : 2 + QUARTERS].sum(0), rows[:, 2 + QUARTERS :].sum(0)
        now = time.monotonic()
        line: dict[str, Any] = {
            "step": self.step,
            "loss": _number(losses.mean()),
            "gradient_norm": _number(norms.mean()),
            "clipped_share": (norms > self.options["gradient_clip"]).double().mean().item(),
            "loss_by_quarter": [_number(total / max(n.item(), 1)) for total, n in zip(sums, counts, strict=True)],
            "images_per_second": (self.step - self.window_first)
            * self.options["global_batch"]
            / (now - self.window_began),
            "memory_peak_bytes": torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _peak_memory(),
            "time": time.time(),
        }
        bad = (~losses.isfinite()).nonzero().flatten()
        if len(bad):
            first = int(bad[0])
            line["diverged"] = {
                "step": self.step - count + first + 1,
                "last_losses": [_number(value) for value in losses[max(0, first - 5) : first]],
                "gradient_norm": _number(norms[first - 1]) if first else None,
            }
        self.window_began, self.window_first = now, self.step
        return line

    def state(self, seconds: float) -> dict[str, Any]:
        """Return all that the coming steps depend on, and the ``seconds`` this process has spent."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "window": self.window,
            "seconds": self.seconds + seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after a state's step."""
        self.model.load_state_dict(state["model"])
        for mine, saved in zip(self.ema, state["ema"], strict=True):
            mine.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.window.copy_(state["window"])
        self.seconds = state["seconds"]
        self.step = self.window_first = state["step"]

    def ema_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, on the CPU."""
        names = [name for name, _ in self.model.named_parameters()]
        return {name: value.cpu().contiguous() for name, value in zip(names, self.ema, strict=True)}

    def _to_device(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _images(self, indices: Tensor, flips: Tensor) -> Tensor:
        batch = self.data[indices]
        batch = torch.where(flips.view(-1, 1, 1, 1), batch.flip(-1), batch)
        return batch.float() / 127.5 - 1

    def _record(self, losses: Tensor, loss: Tensor, norm: Tensor, timesteps: Tensor) -> None:
        quarter = timesteps * QUARTERS // self.streams.timesteps
        member = (quarter[:, None] == torch.arange(QUARTERS, device=self.device)).float()
        row = self.window[self.step % len(self.window)]
        row[0], row[1] = loss, norm
        row[2 : 2 + QUARTERS] = (member * losses[:, None]).sum(0)
        row[2 + QUARTERS :] = member.sum(0)


def _number(value: Tensor) -> float | None:
    """Return a JSON number; what is not finite is null."""
    number = float(value)
    return number if math.isfinite(number) else None


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
