"""Several processes on one cell: who does which part, and the few things they tell each other.

Started by ``torchrun``; without it there is a world of one process, and nothing here costs anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from targetwise.errors import UserError

if TYPE_CHECKING:
    # A world of one needs no PyTorch, which takes seconds to import.
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among ``size`` ones; ``local_rank`` counts on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and talks to people."""
        return self.rank == 0

    def share(self, total: int, what: str) -> tuple[int, int]:
        """Return first index and count of this process's part of ``total`` things.

        Raises:
            UserError: if ``total`` does not divide; ``what`` names the configuration's key.
        """
        if total % self.size:
            raise UserError(f"{what} is {total}, which {self.size} processes cannot share evenly")
        count = total // self.size
        return self.rank * count, count

    def part(self, total: int) -> range:
        """Return this process's part of ``range(total)``; parts differ by one at most and follow the ranks."""
        return range(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` holds in any process; all of them must ask together."""
        if self.size == 1:
            return flag
        import torch
        import torch.distributed as dist

        agreed = torch.tensor(float(flag), device=self._device())
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return bool(agreed)

    def sum(self, tensor: "Tensor") -> "Tensor":
        """Return the sum of ``tensor`` over all processes, on the tensor's device."""
        if self.size == 1:
            return tensor
        import torch.distributed as dist

        total = tensor.to(self._device(), copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        """Return every process's ``value`` by rank, in the main process; an empty list in the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values or []

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def _device(self) -> "torch.device":
        import torch
        import torch.distributed as dist

        return torch.device("cuda", self.local_rank) if dist.get_backend() == "nccl" else torch.device("cpu")


#: The world of one process.
ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started for the length of the block (nccl on GPUs, gloo on CPUs)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    import torch
    import torch.distributed as dist

    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank} of this machine has no GPU; only {torch.cuda.device_count()} are visible"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), size, local_rank)
    finally:
        dist.destroy_process_group()
