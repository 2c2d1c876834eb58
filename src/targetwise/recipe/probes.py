"""The probes that a configuration names: that they are there, and which numbers they give.

A probe's file says in a constant, ``GIVES``, which numbers it returns. It is read without running the file, so that a
study can be checked before anything is trained.
"""

import re
from collections.abc import Mapping
from typing import Any

from targetwise.errors import UserError
from targetwise.recipe import kinds

#: What a number may be called; as in the schema of ``probe.json``.
NAME = re.compile(r"[a-z][a-z0-9_]*")


def gives(name: str) -> list[str]:
    """Return the names of the numbers that a probe returns: the entries of its ``GIVES``, or the keys of a mapping.

    Raises:
        UserError: if its file says nothing of them, or something else.
    """
    found = kinds.constant("probes", name, "GIVES", None)
    names = list(found) if isinstance(found, tuple | list | dict) else []
    if not names or not all(isinstance(each, str) and NAME.fullmatch(each) for each in names):
        raise UserError(
            f"{kinds.file_of('probes', name)}: GIVES must hold the names of the numbers that measure returns, as in "
            f'GIVES = ("{name}",), of lower-case letters, digits and _'
        )
    return names


def check(config: Mapping[str, Any]) -> None:
    """Make sure that the probes exist, and that each number is one probe's and no metric's.

    Raises:
        UserError: at the first thing that is wrong.
    """
    owners = {name: f"metric {name}" for name in config["metric"]["names"]}
    for index, name in enumerate(config["probes"]):
        kinds.require_known("probes", name, f"probes.{index}")
        for number in gives(name):
            if number in owners:
                raise UserError(
                    f"{kinds.file_of('probes', name)}: GIVES names {number}, which {owners[number]} gives"
                )
            owners[number] = f"probe {name}"
