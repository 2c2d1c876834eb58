"""The processor a stage runs on: which one, how many threads, which number formats and kernels."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from targetwise.compute import lease
from targetwise.compute.distributed import ALONE, World
from targetwise.files import cache

#: Where PyTorch keeps what it compiles.
COMPILED = "TORCHINDUCTOR_CACHE_DIR"

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def autocast(device: torch.device, precision: Mapping[str, str]) -> torch.autocast:
    """Return the autocast context for ``precision``, e.g. ``{"cuda": "bf16", "cpu": "fp32"}``."""
    dtype = DTYPES.get(precision[device.type])
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def compile_network(network: nn.Module, device: torch.device, options: Mapping[str, Any]) -> None:
    """Compile a network in place, if that is asked for on this kind of device.

    Args:
        network: compiled at its first call; another shape of input compiles it again.
        device: where it runs.
        options: the ``training`` section. What was compiled is kept in the user's cache, so that cells of one scale,
            and a resumed one, compile once.
    """
    if options["compile"][device.type]:
        keep_compiled_in(cache() / "compiled")
        network.compile()


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
    torch.use_deterministic_algorithms(options["deterministic"])
    torch.backends.cudnn.benchmark = not options["deterministic"]
    torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
    torch.backends.cudnn.allow_tf32 = options["tf32"]
