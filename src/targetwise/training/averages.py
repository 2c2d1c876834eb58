"""Stored averages of a training's weights: tracked beside the usual one, and kept at some steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from targetwise.training.power import exponent, snapshot_steps

#: Begins the name of a tensor of a stored average in model.safetensors: ``average/<length>/<step>/<parameter>``.
PREFIX = "average/"


class PowerAverages:
    """The power-function averages of one training (:mod:`targetwise.training.power`); there may be none."""

    def __init__(self, parameters: Sequence[Tensor], lengths: Sequence[float], steps: int) -> None:
        """Begin before the first step.

        Args:
            parameters: the weights, on the device, which the optimizer changes in place.
            lengths: σ_rel of each average.
            steps: of the whole training.
        """
        self.lengths = lengths
        self._parameters = list(parameters)
        self.values = [[each.detach().clone() for each in parameters] for _ in lengths]
        self.kept: dict[int, list[list[Tensor]]] = {}
        self._steps = set(snapshot_steps(steps)) if lengths else set()
        self._powers = [exponent(length) + 1 for length in lengths]
        self._taken = torch.zeros((), dtype=torch.float64, device=parameters[0].device)

    def update(self) -> None:
        """Take in the weights of a step: θ̂ ← β·θ̂ + (1 − β)·θ, β = (1 − 1/step)^(γ+1).

        The step is counted on the device, so that a recorded step counts on when it is replayed.
        """
        if not self.lengths:
            return
        self._taken += 1
        for values, power in zip(self.values, self._powers, strict=True):
            share = -torch.expm1(power * torch.log1p(-1 / self._taken))  # 1 − β, without its cancellation
            change = torch._foreach_sub(self._parameters, values)
            torch._foreach_mul_(change, share.float())
            torch._foreach_add_(values, change)

    def keep(self, step: int) -> None:
        """Keep the averages, if the step is one of the few, in the host's memory, which waits for the device."""
        if step in self._steps:
            self.kept[step] = [[each.to("cpu", copy=True) for each in values] for values in self.values]

    def state(self) -> dict[str, Any]:
        """Return all that coming steps, and the file at the end, depend on."""
        return {"values": self.values, "kept": self.kept}

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continue after a step."""
        for mine, saved in zip(self.values, state["values"], strict=True):
            for value, other in zip(mine, saved, strict=True):
                value.copy_(other)
        self.kept = dict(state["kept"])
        self._taken.fill_(step)

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return what is kept as it is called in model.safetensors; ``names`` are those of the weights."""
        return {
            f"{PREFIX}{length}/{step}/{name}": value.contiguous()
            for step, averages in self.kept.items()
            for length, values in zip(self.lengths, averages, strict=True)
            for name, value in zip(names, values, strict=True)
        }
