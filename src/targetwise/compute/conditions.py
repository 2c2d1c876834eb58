"""What bits depend on beside a specification: unfinished work carries it, so that a change shows."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targetwise.compute.distributed import ALONE, World
from targetwise.errors import UserError

#: What no state is continued across: the numbers would be of two kinds under one name.
REFUSED = ("device", "format")


def conditions(device: torch.device, options: Mapping[str, Any], world: World = ALONE) -> dict[str, str]:
    """Return the conditions under which this world of processes computes, in words, by name.

    Args:
        device: this process's.
        options: the ``training`` section.
        world: the processes that work together. All of them must ask; the answer is whole in the main one.
    """
    number_format = options["precision"][device.type]
    versions = {"torch": str(torch.__version__), "numpy": np.__version__, "diffusers": version("diffusers")}
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
        number_format += ", products in TF32" if options["tf32"] else ""
        versions["cuDNN"] = str(torch.backends.cudnn.version())
    else:
        processor = torch.backends.cpu.get_cpu_capability()
        versions["compiled"] = "yes" if options["compile"]["cpu"] else "no"  # may be chosen, so in no key
    return {
        "device": device.type,
        "format": number_format,
        "card" if device.type == "cuda" else "instruction set": " and ".join(sorted(set(world.gather(processor)))),
        "number of processes": str(world.size),
        **versions,
    }


def differences(before: Mapping[str, str], now: Mapping[str, str], states: Path) -> list[str]:
    """Return in words how a saved state's conditions differ from those of now, e.g. ``torch 2.1 instead of 2.0``.

    Args:
        before: the conditions that the state was saved under.
        now: those that it would go on under.
        states: the folder that holds the state, for the message.

    Raises:
        UserError: if it would go on on another kind of device, or in another number format.
    """
    if any(before[name] != now[name] for name in REFUSED):
        was, is_now = (f"{each['device']} ({each['format']})" for each in (before, now))
        raise UserError(
            f"the state in {states} was saved on {was}, and this is {is_now}: the result would match neither; "
            f"continue it on {was}, or delete {states} to start again"
        )
    names = [name for name in now if now[name] != before.get(name, now[name])]  # an older state says less
    return [f"{name} {now[name]} instead of {before[name]}" for name in names]
