"""Snapshots of a training's averaged weights after declared steps, each as a shorter training would end."""

from collections.abc import Sequence

from torch import Tensor

#: Begins the name of a tensor of a snapshot in model.safetensors: ``snapshot/<step>/<parameter>``.
PREFIX = "snapshot/"


class Snapshots:
    """The averaged weights of one training after some of its steps; there may be none."""

    def __init__(self, steps: Sequence[int]) -> None:
        """Begin before the first step, to keep the weights after each of ``steps``."""
        self.steps = frozenset(steps)
        self.kept: dict[int, list[Tensor]] = {}

    def keep(self, step: int, averaged: Sequence[Tensor]) -> None:
        """Keep the weights, if the step is a declared one, in the host's memory, which waits for the device."""
        if step in self.steps:
            self.kept[step] = [each.to("cpu", copy=True) for each in averaged]

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return what is kept as it is called in model.safetensors; ``names`` are those of the weights."""
        return {
            f"{PREFIX}{step}/{name}": value.contiguous()
            for step, values in self.kept.items()
            for name, value in zip(names, values, strict=True)
        }
