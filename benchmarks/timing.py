"""Fair timing: two contestants take turns in one process, and what is quoted is the ratio of neighbours."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: The numbers of a matrix product; tf32 rounds those of fp32.
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32}


def torch_defaults() -> None:
    """Set the kernels as PyTorch sets them by default."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = True


@dataclass(frozen=True)
class Contestant:
    """Something that can be timed.

    Attributes:
        name: for people.
        run: does ``work`` units once.
        work: units of one run: images, or calls.
        settings: the switches it runs with.
        prepare: sets the process's kernels before a run, because the one before may have set others.
    """

    name: str
    run: Callable[[], object]
    work: int
    settings: Mapping[str, Any]
    prepare: Callable[[], None] = torch_defaults


def seconds(contestant: Contestant) -> float:
    """Return the seconds of one run, the device's queue emptied before and after."""
    contestant.prepare()
    _wait()
    began = time.perf_counter()
    contestant.run()
    _wait()
    return time.perf_counter() - began


def compare(ours: Contestant, theirs: Contestant, pairs: int) -> dict[str, Any]:
    """Time both ``pairs`` times, after one run each that does not count; the one that began a pair ends the next.

    Returns:
        Every rate in units per second, the pairs' ratio (above 1: ours is faster), and the seconds of the first runs.
    """
    sides = {"ours": ours, "theirs": theirs}
    first = {side: seconds(contestant) for side, contestant in sides.items()}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in sorted(sides, reverse=pair % 2 == 1):
            rates[side].append(_rate(sides[side]))
    ratios = [mine / other for mine, other in zip(rates["ours"], rates["theirs"], strict=True)]
    return {
        "pairs": pairs,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        **{side: _facts(contestant, first[side], rates[side]) for side, contestant in sides.items()},
    }


def alone(contestant: Contestant, runs: int) -> dict[str, Any]:
    """Time one contestant ``runs`` times, after a run that does not count."""
    first = seconds(contestant)
    return _facts(contestant, first, [_rate(contestant) for _ in range(runs)])


def peaks(device: torch.device, formats: Sequence[str], size: int, copied: int) -> dict[str, float]:
    """Measure what the hardware can do: a matrix product in each number format, and a copy; the best of five each.

    Args:
        device: to measure.
        formats: keys of :data:`FORMATS`.
        size: rows and columns of the matrices.
        copied: fp32 numbers in the block that is copied.

    Returns:
        TFLOP/s by number format, and GB/s read and written by a copy.
    """
    torch_defaults()
    found = {}
    for name in formats:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        a = torch.randn(size, size, device=device).to(FORMATS[name])
        found[f"{name}_tflops"] = 2 * size**3 / _best(lambda a=a: a @ a) / 1e12  # type: ignore[misc]
    torch_defaults()
    block = torch.zeros(copied, device=device)
    target = torch.zeros_like(block)
    found["copy_gb_per_s"] = 2 * block.nbytes / _best(lambda: target.copy_(block)) / 1e9
    return found


def _rate(contestant: Contestant) -> float:
    gc.collect()
    return contestant.work / seconds(contestant)


def _facts(contestant: Contestant, first_run_seconds: float, rates: list[float]) -> dict[str, Any]:
    return {
        "name": contestant.name,
        "settings": dict(contestant.settings),
        "work": contestant.work,
        "first_run_seconds": first_run_seconds,
        "rates": rates,
    }


def _best(work: Callable[[], object]) -> float:
    contestant = Contestant("peak", work, 1, {}, lambda: None)
    return min(seconds(contestant) for _ in range(6))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
