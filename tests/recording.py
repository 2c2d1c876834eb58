"""CUDA graphs where there is no GPU: operations are recorded without effect, and replayed on the tensors they had.

As on a GPU, a replay repeats each kernel with the addresses and numbers of the recording, so a step counter, an index
or a new tensor that Python chose while recording is chosen for good, and shows.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Graph(TorchDispatchMode):
    """Stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self.before = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in _written(func, args, kwargs):
            self.before.setdefault(tensor.data_ptr(), (tensor.detach(), tensor.detach().clone()))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result

    def take_back(self):
        """Undo what was written while recording."""
        for tensor, value in self.before.values():
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self):
        """Repeat all operations, in order."""
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for mine, new in zip(tree_iter(result), tree_iter(again), strict=True):
                if isinstance(mine, Tensor) and mine.data_ptr() != new.data_ptr():
                    mine.detach().copy_(new)


def _written(func, args, kwargs):
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            yield from (each for each in tree_iter(given) if isinstance(each, Tensor))


class Stream:
    """Stands for ``torch.cuda.Stream``: nothing runs beside anything else."""

    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        """Do nothing."""


@contextmanager
def recording(graph, stream):
    """Stand for ``torch.cuda.graph``."""
    try:
        with graph:
            yield
    finally:
        graph.take_back()


def patch(monkeypatch):
    """Put all of this in place of PyTorch's."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
