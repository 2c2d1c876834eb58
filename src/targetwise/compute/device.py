"""The processor a stage runs on: which one, how many threads, which number formats and kernels."""

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from targetwise.compute import lease
from targetwise.compute.distributed import ALONE, World
from targetwise.errors import UserError
from targetwise.files import cache

#: Where PyTorch keeps what it compiles.
COMPILED = "TORCHINDUCTOR_CACHE_DIR"

#: What turns a traced network into kernels.
COMPILER = "inductor"

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(threads: int, world: World = ALONE, stop: Callable[[], bool] = lambda: False) -> torch.device:
    """Return a GPU that no other process of ours uses, or the CPU with ``threads`` threads.

    Args:
        threads: of the CPU.
        world: one process takes the first visible GPU that is free, and waits for one; of several, each takes the
            one of its ``local_rank``.
        stop: asked while waiting for a GPU.

    Raises:
        StoppedEarlyError: if ``stop`` said so.
        UserError: if the GPU of one of several processes is in use.
    """
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    if world.size > 1:
        lease.take([visible[world.local_rank]], wait=False)
        return torch.device("cuda", world.local_rank)
    index = lease.take(visible, stop)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may run on: a batch system's share, where it set one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_gpu() -> None:
    """Refuse to go on where a GPU was asked for and there is none: on the CPU it would take days.

    Raises:
        UserError: if PyTorch sees no GPU.
    """
    if not torch.cuda.is_available():
        why = "sees none" if torch.version.cuda else "is a build for CPUs"
        raise UserError(
            f"a GPU was asked for, but PyTorch {torch.__version__} on {platform.node()} {why}; compare `nvidia-smi` "
            "there with `python -c 'import torch; print(torch.version.cuda)'`, or set `gpu: 0` to compute on the CPU"
        )


def autocast(device: torch.device, precision: Mapping[str, str]) -> torch.autocast:
    """Return the autocast context for ``precision``, e.g. ``{"cuda": "bf16", "cpu": "fp32"}``."""
    dtype = DTYPES[precision[device.type]]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def widen_output(network: nn.Module, device: torch.device, options: Mapping[str, Any]) -> None:
    """Let a network's last layer compute in fp32 under autocast, if ``output_in_fp32`` asks for it.

    In bf16 or fp16 that layer rounds what the network says. Of x0 that moves pixels to another level; the rounding of
    v or ε is multiplied by b or b/a on its way to them, which is small where the image is finished. So without this
    the number format would count against one target more than against another.

    Args:
        network: its layer that was defined last, embeddings left out, is changed in place, no weight is.
        device: where it runs.
        options: the ``training`` section.
    """
    if not options["output_in_fp32"] or options["precision"][device.type] == "fp32":
        return
    *_, last = (layer for layer in network.modules() if not isinstance(layer, nn.Embedding))

    def forward(layer: nn.Module, features: Tensor) -> Any:
        with torch.autocast(device.type, enabled=False):
            return type(layer).forward(layer, features.float())

    last.forward = MethodType(forward, last)


def compile_network(
    network: nn.Module, device: torch.device, options: Mapping[str, Any], *, graphs: bool = False
) -> None:
    """Compile a network in place, if that is asked for on this kind of device.

    Args:
        network: compiled at its first call; another shape of input compiles it again.
        device: where it runs.
        options: the ``training`` section. What was compiled is kept in the user's cache, so that cells of one scale,
            and a resumed one, compile once.
        graphs: whether a GPU may replay the network's kernels as one graph, which spares the host launching each.
            The next call then overwrites an output.
    """
    if options["compile"][device.type]:
        keep_compiled_in(cache() / "compiled")
        # Left to itself the compiler gives up channels last where a layer halves its channels, as in every U-Net.
        on_gpu = {"triton.cudagraphs": graphs, "force_layout_optimization": options["channels_last"]}
        network.compile(backend=COMPILER, options=on_gpu if device.type == "cuda" else None)


def keep_compiled_in(folder: Path) -> None:
    """Let PyTorch keep what it compiles in a folder, unless ``TORCHINDUCTOR_CACHE_DIR`` names one of the user's."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # PyTorch writes its default, under /tmp, into the variable as soon as diffusers is imported.
    if os.environ.get(COMPILED, default_cache_dir()) == default_cache_dir():
        os.environ[COMPILED] = str(folder)


def set_kernels(options: Mapping[str, Any]) -> None:
    """Choose kernels for the whole process.

    Args:
        options: the ``training`` section; ``deterministic`` asks for kernels whose result is the same in every run
            on one machine, ``tf32`` lets fp32 products on a GPU keep 10 bits of the mantissa.
    """
    if options["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is reproducible only with this
    _use_deterministic_algorithms(options["deterministic"])
    torch.backends.cudnn.benchmark = not options["deterministic"]
    torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
    torch.backends.cudnn.allow_tf32 = options["tf32"]


@contextmanager
def kernels(options: Mapping[str, Any]) -> Iterator[None]:
    """Choose kernels for a block as :func:`set_kernels` does; the rest of the process keeps its own."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    deterministic = torch.are_deterministic_algorithms_enabled()
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    set_kernels(options)
    try:
        yield
    finally:
        _use_deterministic_algorithms(deterministic)
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def _use_deterministic_algorithms(value: bool) -> None:
    # PyTorch's own function imports its compiler, which takes seconds.
    if torch.are_deterministic_algorithms_enabled() != value:
        torch.use_deterministic_algorithms(value)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use at a time so far: on a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
