"""Fair timing: contestants take turns in one process chain, and only ratios of neighbours are quoted."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Contestant:
    """Something that can be timed: ``run`` does ``work`` units (steps, images) once; ``setup`` makes it ready."""

    name: str
    run: Callable[[], None]
    work: int
    unit: str


def seconds(contestant: Contestant) -> float:
    """Return the seconds of one run, the device's queue emptied before and after."""
    _wait()
    began = time.perf_counter()
    contestant.run()
    _wait()
    return time.perf_counter() - began


def compare(ours: Contestant, theirs: Contestant, pairs: int) -> dict[str, Any]:
    """Time both in turn, ``pairs`` times after one run each that does not count.

    Returns:
        Median units per second of each, and their ratio pair by pair (above 1: ours is faster).
    """
    for contestant in (ours, theirs):
        seconds(contestant)
    rates: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for _ in range(pairs):
        for contestant in (ours, theirs):
            rates[contestant.name].append(contestant.work / seconds(contestant))
    ratios = [mine / other for mine, other in zip(rates[ours.name], rates[theirs.name], strict=True)]
    return {
        "ours": ours.name,
        "theirs": theirs.name,
        "unit": f"{ours.unit}/s",
        "pairs": pairs,
        "ours_median": statistics.median(rates[ours.name]),
        "theirs_median": statistics.median(rates[theirs.name]),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def peaks(device: torch.device) -> dict[str, float]:
    """Measure what the hardware can do: a large matrix product in each number format, and a copy."""
    size = 8192 if device.type == "cuda" else 1024
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(size, size, device=device, dtype=dtype)
        took = min(_once(lambda a=a: a @ a) for _ in range(5))
        found[f"{name}_tflops"] = 2 * size**3 / took / 1e12
    block = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(block)
    took = min(_once(lambda: target.copy_(block)) for _ in range(5))
    found["copy_gb_per_s"] = 2 * block.numel() * 4 / took / 1e9
    return found


def _once(work: Callable[[], object]) -> float:
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
