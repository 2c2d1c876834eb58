"""What ``auto`` is on a CPU: number format and compiling of the network, chosen once for a study.

Neither can be told by a processor's name: bf16 makes a U-Net half as fast again on one AMD EPYC, and many times
slower on another. So the first job of a study that needs to know measures it (measurement.py) and writes
``results/<study>/cpu.json``. All later jobs follow that file, so that the cells of one study are of one kind. A key
never holds the choice: to a GPU's results it is nothing.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from targetwise.cells import RESULTS, Cell, Keys
from targetwise.cells.outcome import read_outcome
from targetwise.compute.distributed import ALONE, World
from targetwise.data.store import Images
from targetwise.errors import UserError
from targetwise.files import read_json, remedy, write_json
from targetwise.jobs.exclusive import ExclusiveFolder
from targetwise.provenance import environment
from targetwise.recipe.schema import fault
from targetwise.training import measurement
from targetwise.training.measurement import AUTO

#: What may be left to be chosen, in the section ``training``.
SWITCHES = ("precision", "compile")

NAME = "cpu.json"
SCHEMA = Path("workflow/schemas/cpu.schema.yaml")

Values = Mapping[str, Any]


def undecided(options: Mapping[str, Any]) -> list[str]:
    """Return the switches that a ``training`` section leaves to be chosen on a CPU."""
    return [name for name in SWITCHES if options[name]["cpu"] == AUTO]


def decided(specification: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return the content of a ``cell.json`` with ``values`` where it says ``auto``; what it states itself stays."""
    options = specification["training"]
    own = {name: {**options[name], "cpu": values[name]} for name in undecided(options)}
    return {**specification, "training": {**options, **own}}


def used(options: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the switches' values on a kind of device, ``cpu`` or ``cuda``."""
    return {name: options[name][kind] for name in SWITCHES}


def settled(
    specification: Mapping[str, Any],
    images: Images,
    device: torch.device,
    *,
    training: Mapping[str, Any] | None = None,
    world: World = ALONE,
    stop: Callable[[], str] = str,
) -> dict[str, Any]:
    """Return the content of a ``cell.json`` in which nothing is left to be chosen on ``device``.

    Args:
        specification: the content of ``cell.json``.
        images: the training split.
        device: this process's.
        training: the content of ``training.json``, to use the network as a CPU has trained it.
        world: the processes that need to know; all of them must ask, and the main one chooses.
        stop: asked while another job chooses and while steps are measured; a text is the reason to stop.

    Raises:
        StoppedEarlyError: if ``stop`` gave a reason.
        UserError: if the study's record is damaged, or the network cannot be measured.
    """
    switches = undecided(specification["training"]) if device.type == "cpu" else []
    if not switches:
        return dict(specification)
    if training and training.get("device") == "cpu" and "formats" in training:
        return decided(specification, training["formats"])
    study = RESULTS / specification["cell"]["study"]
    if world.is_main:
        _choose(study, switches, specification, images, world.size, stop)
    world.barrier()
    return decided(specification, read(study)["values"])


def read(study: Path) -> dict[str, Any]:
    """Return what was chosen for the study in the folder ``results/<study>``, and why; nothing if nothing was yet.

    Raises:
        UserError: if the record is damaged.
    """
    path = study / NAME
    if not path.exists():
        return {"values": {}, "grounds": []}
    content: dict[str, Any] = read_json(path)
    found = fault(content, SCHEMA)
    if found:
        raise UserError(f"{path} is damaged: {found}; {remedy(path)}")
    return content


def follow(study: Path, values: Values, record: Path) -> None:
    """Let the study in the folder ``results/<study>`` follow the ``values`` of a record, and measure nothing."""
    write_json(study / NAME, {"values": dict(values), "grounds": [_taken(list(values), record)]})


def _choose(
    study: Path,
    switches: Sequence[str],
    specification: Mapping[str, Any],
    images: Images,
    processes: int,
    stop: Callable[[], str],
) -> None:
    """Bring the study's record to hold all ``switches``: one job does it, and others that need it wait."""
    if set(switches) <= read(study)["values"].keys():
        return
    place = ExclusiveFolder(study / "state/cpu")
    with place.held(stop):
        record = read(study)
        missing = [name for name in switches if name not in record["values"]]
        if missing:
            values, grounds = _recorded(study, missing, images) or _measured(specification, images, processes, stop)
            chosen = {name: values[name] for name in missing}
            write_json(
                study / NAME,
                {
                    "values": {**record["values"], **chosen},
                    "grounds": [*record["grounds"], {**grounds, "decided": missing}],
                },
            )
            words = ", ".join(f"{name} {value}" for name, value in chosen.items())
            print(f"note: on a CPU, study {study.name} has {words} ({study / NAME})", file=sys.stderr, flush=True)
        place.remove()


def _recorded(study: Path, switches: list[str], images: Images) -> tuple[Values, dict[str, Any]] | None:
    """Return what a CPU has trained a cell of the study with, which left the same to be chosen as it is now."""
    keys = Keys(images.digest)
    for path in sorted(study.glob("*/*/seed*/training.json")):
        training, specification = read_outcome(path), read_json(path.with_name("cell.json"))
        if (
            training.get("device") == "cpu"
            and "formats" in training
            and set(switches) <= set(undecided(specification["training"]))
            and training.get("key") == keys.of(specification)
        ):
            return training["formats"], _taken(switches, path)
    return None


def _measured(
    specification: Mapping[str, Any], images: Images, processes: int, stop: Callable[[], str]
) -> tuple[Values, dict[str, Any]]:
    options = specification["training"]
    shape = images.size, images.channels
    found = measurement.measure(specification, shape, processes=processes, stop=stop)
    about = {"cell": Cell(**specification["cell"]).name, "threads": options["threads"], "environment": environment()}
    return found.pop("values"), {**about, **found}


def _taken(switches: list[str], record: Path) -> dict[str, Any]:
    return {"decided": switches, "taken_from": str(record)}
