"""Read ``model.safetensors``: the weights that a training ended with, and what it stored beside them."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from targetwise.errors import UserError
from targetwise.text import listed
from targetwise.training import averages, snapshots
from targetwise.training.power import coefficients


def read_weights(path: Path, *, length: float | None = None, snapshot: int | None = None) -> dict[str, Tensor]:
    """Return weights by the names of the parameters: those that a training ended with, unless others are asked for.

    Args:
        path: of the file.
        length: σ_rel of an average to be rebuilt from the stored ones.
        snapshot: the step after which weights were kept.

    Raises:
        UserError: if what is asked for is not stored, nor what it takes.
        OSError: if the file cannot be read; safetensors has an error of its own for one that is damaged.
    """
    with safe_open(path, framework="pt") as file:
        everything = list(file.keys())
        names = [name for name in everything if not name.startswith((averages.PREFIX, snapshots.PREFIX))]
        if snapshot is not None:
            steps = _places(everything, snapshots.PREFIX, 1)
            if (str(snapshot),) not in steps:
                kept = sorted((step for (step,) in steps), key=int)
                has = f"it has those after step {listed(kept)}" if kept else "it has none"
                raise UserError(f"{path} holds no snapshot after step {snapshot}; {has}")
            return {name: file.get_tensor(f"{snapshots.PREFIX}{snapshot}/{name}") for name in names}
        if length is None:
            return {name: file.get_tensor(name) for name in names}
        found = sorted(_places(everything, averages.PREFIX, 2))
        if not found:
            raise UserError(f"{path} holds no stored averages to rebuild one of length {length:g} from")
        factors = coefficients([(float(each), int(step)) for each, step in found], length)
        rebuilt: dict[str, Tensor] = {}
        for name in names:
            total = torch.zeros_like(file.get_tensor(name), dtype=torch.float64)
            for factor, (each, step) in zip(factors.tolist(), found, strict=True):
                total += factor * file.get_tensor(f"{averages.PREFIX}{each}/{step}/{name}")
            rebuilt[name] = total.float()
        return rebuilt


def _places(names: list[str], prefix: str, parts: int) -> set[tuple[str, ...]]:
    """Return what stands between a prefix and a parameter in the names of stored tensors."""
    return {tuple(name.removeprefix(prefix).split("/")[:parts]) for name in names if name.startswith(prefix)}
