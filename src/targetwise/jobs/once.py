"""A job that is done once, whatever is killed: one process at a time, in parts, its result kept until it is used."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from targetwise.compute.distributed import ALONE, World
from targetwise.jobs.exclusive import ExclusiveFolder
from targetwise.jobs.kept import Kept
from targetwise.jobs.parts import Parts


def once(
    folder: Path,
    job: str,
    key: str,
    outputs: Sequence[Path],
    make: Callable[[Kept, Parts], None],
    world: World = ALONE,
) -> None:
    """Bring a job's outputs to their places: those that an earlier run has finished, or else by making them.

    Args:
        folder: whose results they are; ``state/<job>`` and ``kept/<job>`` are in it meanwhile.
        job: its name, e.g. ``sample-ddim-50-draw0``.
        key: a digest of everything that decides the outputs.
        outputs: the files; the one that says what they are comes last.
        make: is called in every process of ``world``; the main one writes each output to ``Kept.path(output)``. The
            parts are those that an earlier run of the same key has left.
        world: the processes that do the job together; one alone waits for another that is at work on it.

    Raises:
        InUseError: if another job of several processes is at work on it.
    """
    place = ExclusiveFolder(folder / "state" / job)
    kept = Kept(folder / "kept" / job, key, outputs)
    with place.held(wait=world.size == 1) if world.is_main else nullcontext():
        is_done = world.is_main and kept.put_back()
        parts = Parts(place.path, key) if world.is_main else None
        if not world.any(is_done):  # where the others wait until the main one has looked
            make(kept, parts or Parts(place.path, key))
            if world.is_main:
                kept.finish()
        if world.is_main:
            place.remove()
