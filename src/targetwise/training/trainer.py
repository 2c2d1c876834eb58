"""One cell's model, EMA and optimizer, advanced step by step without waiting for the device."""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from targetwise.compute.conditions import conditions, differences
from targetwise.compute.device import autocast, compile_network, peak_memory, set_kernels, widen_output
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.diffusion.loss import Objective, mean_under
from targetwise.diffusion.network import build
from targetwise.diffusion.parameterization import Parameterization, probe_output_channels
from targetwise.diffusion.randomness import StepDraw, TrainingStreams
from targetwise.diffusion.schedule import add_noise, make_schedule
from targetwise.diffusion.times import draws_of
from targetwise.errors import UserError
from targetwise.text import counted
from targetwise.training.averages import PowerAverages
from targetwise.training.replay import replayed
from targetwise.training.snapshots import Snapshots
from targetwise.training.uncertainty import Uncertainty

#: The time axis is logged in this many equal parts.
QUARTERS = 4

#: What the window keeps of each step: gradient norm, then sums and counts of the loss by quarter.
COLUMNS = 1 + 2 * QUARTERS


class Trainer:
    """Model, EMA and optimizer of one cell, advanced one step at a time."""

    def __init__(
        self,
        specification: Mapping[str, Any],
        images: Images,
        target: Parameterization,
        loss_space: Parameterization,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        """Build everything at step 0.

        Args:
            specification: the content of ``cell.json``.
            images: the training split.
            target: what the network predicts.
            loss_space: where its error is measured.
            device: this process's.
            world: the processes that share the global batch.

        Raises:
            UserError: if the batch is larger than the data, or cannot be shared evenly.
        """
        options, variant = specification["training"], specification["variant"]
        set_kernels(options)
        self.options = options
        self.device = device
        self.world = world
        self.first, self.count = world.share(options["global_batch"], "training.global_batch")
        self.micro_batch = options["micro_batch"] or self.count
        self.schedule = make_schedule(variant["diffusion"], variant["parameters"], device=device)
        cpu_schedule = {name: value.cpu() for name, value in self.schedule.items()}
        self.objective = Objective.of(target, loss_space, variant["weighting"], self.schedule, mean_under(variant))
        self.out_channels = probe_output_channels(target, images.channels, images.size, cpu_schedule)
        self.classes = specification["data"].get("classes")
        self.model = build(
            specification["network"],
            in_channels=images.channels,
            out_channels=self.out_channels,
            image_size=images.size,
            seed=specification["cell"]["seed"],
            classes=self.classes,
        ).to(device)
        if options["channels_last"]:
            self.model = self.model.to(memory_format=torch.channels_last)
        widen_output(self.model, device, options)
        self.network = self._wrapped()
        self.take = replayed(self._take, device) if world.size == 1 else self._take
        self.parameters = list(self.model.parameters())
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        self.update_ema = get_ema_multi_avg_fn(options["ema_decay"])
        self.averages = PowerAverages(self.parameters, options.get("ema_power", ()), options["steps"])
        self.snapshots = Snapshots(options.get("snapshots", ()))
        self.uncertainty = Uncertainty(self.schedule) if variant.get("uncertainty") else None
        groups: list[dict[str, Any]] = [{"params": self.parameters}]
        if self.uncertainty:
            groups.append({"params": [self.uncertainty.weight], "weight_decay": 0.0})  # which would pull it to 0
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=options["learning_rate"],
            weight_decay=options["weight_decay"],
            fused=options["fused_optimizer"] or None,  # a plain False turns foreach off as well
            capturable=device.type == "cuda",
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=options["precision"][device.type] == "fp16")
        self.data = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous().to(device)
        if len(self.data) < options["global_batch"]:
            raise UserError(
                f"training.global_batch is {options['global_batch']}; it must be at most "
                f"{counted(len(self.data), 'image')}, which is all there is to train on"
            )
        self.labels = torch.from_numpy(images.labels).to(device)
        self.streams = TrainingStreams(
            specification["cell"]["seed"],
            images=len(self.data),
            global_batch=options["global_batch"],
            draw_times=draws_of(variant["diffusion"]["times"], cpu_schedule),
            image_shape=(images.channels, images.size, images.size),
            horizontal_flip=specification["data"]["horizontal_flip"],
            label_dropout=options.get("label_dropout"),
        )
        self.conditions = conditions(device, options, world)
        self.continued: list[dict[str, Any]] = []
        self.step = 0
        self.seconds = 0.0
        self.window = torch.zeros(options["log_every"], COLUMNS, device=device)
        self.window_began = time.monotonic()
        self.window_first = 0

    def draw(self, step: int) -> StepDraw:
        """Return what this process draws for step ``step`` (from 0)."""
        return self.streams.draw(step, self.first, self.count)

    def advance(self, draw: StepDraw) -> None:
        """Take one optimizer step; nothing waits for the device."""
        arrays = draw.indices, draw.flips, draw.timesteps, draw.noise
        told = [] if draw.unlabelled is None else [draw.unlabelled]
        row = self.take(*map(self._to_device, [*arrays, *told]))
        self.window[self.step % len(self.window)].copy_(row)
        self.step += 1
        if self.world.is_main:
            self.averages.keep(self.step)
            self.snapshots.keep(self.step, self.ema)

    def _take(self, indices: Tensor, flips: Tensor, timesteps: Tensor, noise: Tensor, *unlabelled: Tensor) -> Tensor:
        """Take one optimizer step and return its row of the window."""
        x_0 = self._images(indices, flips)
        labels = [self.labels[indices].masked_fill(dropped, self.classes) for dropped in unlabelled]
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for first in range(0, self.count, self.micro_batch):
            part = slice(first, first + self.micro_batch)
            is_last = first + self.micro_batch >= self.count
            told = [each[part] for each in labels]
            losses.append(self._accumulate(x_0[part], noise[part], timesteps[part], *told, exchange=is_last))
        if self.uncertainty:
            self.uncertainty.exchange(self.world)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options["gradient_clip"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.update_ema(self.ema, self.parameters, 0)
            self.averages.update()
            return self._row(torch.cat(losses), norm, timesteps)

    def window_is_full(self) -> bool:
        """Return whether ``log_every`` steps have passed since the last summary."""
        return self.step % self.options["log_every"] == 0

    def summarize(self) -> dict[str, Any]:
        """Return the log line of the steps since the last one; this is where the device is waited for.

        A line with ``diverged`` names the first step whose loss was not finite, and losses and gradient norms of up
        to five steps before it in this window, null where they were not finite either.
        """
        log_every = self.options["log_every"]
        count = (self.step - 1) % log_every + 1
        # Losses are summed over the processes; the gradient, and so its norm, is the same in all of them.
        rows = self.window[:count].cpu().double()
        norms, shared = rows[:, 0], self.world.sum(rows[:, 1:])
        losses = shared[:, :QUARTERS].sum(1) / self.options["global_batch"]
        sums, counts = shared[:, :QUARTERS].sum(0), shared[:, QUARTERS:].sum(0)
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
            "memory_peak_bytes": peak_memory(self.device),
            "time": time.time(),
        }
        bad = (~losses.isfinite()).nonzero().flatten()
        if len(bad):
            first = int(bad[0])
            before = slice(max(0, first - 5), first)
            line["diverged"] = {
                "step": self.step - count + first + 1,
                "last_losses": [_number(value) for value in losses[before]],
                "last_gradient_norms": [_number(value) for value in norms[before]],
            }
        self.window_began, self.window_first = now, self.step
        return line

    def state(self, seconds: float) -> dict[str, Any]:
        """Return all that the coming steps depend on, and the ``seconds`` this process has spent."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "averages": self.averages.state(),
            "snapshots": self.snapshots.kept,
            "uncertainty": self.uncertainty and self.uncertainty.weight,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "window": self.window,
            "seconds": self.seconds + seconds,
            "conditions": self.conditions,
            "continued": self.continued,
        }

    def restore(self, state: Mapping[str, Any], states: Path) -> None:
        """Continue after the step of a state from the folder ``states``; other conditions than its own are noted.

        Raises:
            UserError: if the state is of another kind of device or number format.
        """
        self.continued = list(state["continued"])
        changes = differences(state["conditions"], self.conditions, states) if self.world.is_main else []
        if changes:
            self.continued.append({"step": state["step"], "differences": changes})
        self.model.load_state_dict(state["model"])
        for mine, saved in zip(self.ema, state["ema"], strict=True):
            mine.copy_(saved)
        if self.averages.lengths:
            self.averages.restore(state["averages"], state["step"])
        if self.snapshots.steps:
            self.snapshots.kept = dict(state["snapshots"])
        if self.uncertainty:
            self.uncertainty.weight.data.copy_(state["uncertainty"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.window.copy_(state["window"])
        self.seconds = state["seconds"]
        self.step = self.window_first = state["step"]

    def stored_weights(self) -> dict[str, Tensor]:
        """Return all that model.safetensors holds, on the CPU: the averaged weights, and averages and snapshots."""
        names = [name for name, _ in self.model.named_parameters()]
        averaged = {name: value.cpu().contiguous() for name, value in zip(names, self.ema, strict=True)}
        return averaged | self.averages.tensors(names) | self.snapshots.tensors(names)

    def _to_device(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _images(self, indices: Tensor, flips: Tensor) -> Tensor:
        batch = self.data[indices]
        batch = torch.where(flips.view(-1, 1, 1, 1), batch.flip(-1), batch)
        return batch.float() / 127.5 - 1

    def _wrapped(self) -> torch.nn.Module:
        """Return the model as the loop calls it: exchanging gradients, compiled, or as it is."""
        network: torch.nn.Module = self.model
        if self.world.size > 1:
            network = DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)
        compile_network(network, self.device, self.options)
        return network

    def _accumulate(self, x_0: Tensor, noise: Tensor, timesteps: Tensor, *labels: Tensor, exchange: bool) -> Tensor:
        """Add the gradient of some images to the step's, and return their losses, shape (B,)."""
        x_t = add_noise(x_0, noise, timesteps, self.schedule)
        if self.options["channels_last"]:
            x_t = x_t.contiguous(memory_format=torch.channels_last)
        waits = isinstance(self.network, DistributedDataParallel) and not exchange
        with cast(DistributedDataParallel, self.network).no_sync() if waits else nullcontext():
            with autocast(self.device, self.options["precision"]):
                output = self.network(x_t, timesteps, *labels)
            losses = self.objective(output.float(), x_0, noise, x_t, timesteps)
            minimized = self.uncertainty(losses, timesteps) if self.uncertainty else losses
            self.scaler.scale(minimized.sum() / self.count).backward()
        return losses.detach()

    def _row(self, losses: Tensor, norm: Tensor, timesteps: Tensor) -> Tensor:
        quarter = timesteps * QUARTERS // len(self.schedule["sqrt_alpha"])
        member = (quarter[:, None] == torch.arange(QUARTERS, device=self.device)).float()
        # Not a matrix product: an infinite loss must not make its neighbours' sums NaN.
        sums = torch.where(member.bool(), losses[:, None], 0.0).sum(0)
        return torch.cat([norm[None], sums, member.sum(0)])


def _number(value: Tensor) -> float | None:
    """Return a JSON number; what is not finite is null."""
    number = float(value)
    return number if math.isfinite(number) else None
