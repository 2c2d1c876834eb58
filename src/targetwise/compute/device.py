"""The processor a stage runs on: which one, how many threads, which number formats and kernels."""

import os
from collections.abc import Mapping
from typing import Any

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(threads: int, local_rank: int = 0) -> torch.device:
    """Return this process's GPU (the ``local_rank``-th visible one), or the CPU with ``threads`` threads."""
    torch.set_num_threads(threads)
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def autocast(device: torch.device, precision: Mapping[str, str]) -> torch.autocast:
    """Return the autocast context for ``precision``, e.g. ``{"cuda": "bf16", "cpu": "fp32"}``."""
    dtype = DTYPES.get(precision[device.type])
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


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
