"""A whole training step as one CUDA graph: the host launches it once, and not each of its thousands of kernels.

A GPU computes a step of a small network in less time than one core needs to launch it piece by piece.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from targetwise.errors import in_one_line

#: Steps taken as they are before one is recorded: compilers, cuDNN's choice of kernels and the optimizer's state.
WARM_UP = 3

Step = Callable[..., Tensor]


def replayed(step: Step, device: torch.device) -> Step:
    """Return ``step``, which is recorded and replayed if ``device`` is a GPU.

    Args:
        step: from tensors on the device to one, always of the same shapes. What else it reads and writes must stay
            where it is, and it may neither wait for the device nor choose by what lies there.
        device: a GPU or the CPU.
    """
    return _Replayed(step, device) if device.type == "cuda" else step


class _Replayed:
    """A step in its states: taken as it is, recorded, or, where it cannot be recorded, taken as it is for good."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step = step
        self.stream: Any = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.taken = 0
        self.result: Tensor

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the step returns; a replay's result is overwritten by the next one."""
        if self.taken == WARM_UP:
            self._record(inputs)
        self.taken += 1
        if self.graph is None:
            return self._on_own_stream(inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.result

    def _on_own_stream(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Take the step where it is recorded later: what is recorded must not depend on the stream in use now."""
        now = torch.cuda.current_stream()
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            result = self.step(*inputs)
        now.wait_stream(self.stream)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        graph = torch.cuda.CUDAGraph()
        self.inputs = tuple(each.clone() for each in inputs)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.result = self.step(*self.inputs)
        except Exception as error:
            first = error.__context__ or error  # PyTorch's own, about the broken record, comes last
            print(
                f"note: the steps are not replayed as one CUDA graph, which is slower: {in_one_line(first)}",
                file=sys.stderr,
                flush=True,
            )
        else:
            self.graph = graph
