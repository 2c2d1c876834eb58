"""The processor a stage runs on: which one, how many threads, which autocast type."""

from collections.abc import Mapping

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(threads: int) -> torch.device:
    """Return the first visible GPU, or the CPU with ``threads`` threads."""
    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Mapping[str, str]) -> torch.autocast:
    """Return the autocast context for ``precision``, e.g. ``{"cuda": "bf16", "cpu": "fp32"}``."""
    dtype = DTYPES.get(precision[device.type])
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
