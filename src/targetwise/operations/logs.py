"""What the log of a job says about its end: the script's own reason, its exception, or nothing."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from targetwise.progress import PROGRESS_LINE

#: How a command's last words begin (errors.py).
OWN_REASONS = ("error:", "stopped:", "interrupted")

TRACEBACK = "Traceback (most recent call last):"

#: A line of progress at its end.
WHOLE = re.compile(r": (\d+)/\1 |100%\|")

#: What PyTorch puts before each line of a traceback where several processes share a log.
RANK = re.compile(r"^\[rank\d+\]: ?")

#: torchrun's exception says only that one of its processes failed.
LAUNCHER_EXCEPTION = "ChildFailedError"


@dataclass(frozen=True)
class Words:
    """A log's telling lines; each is empty where there is none.

    Attributes:
        reason: the last line with which the script itself gave a reason, or else the line of its last exception.
        remark: ``reason``, or else the last line that is neither progress nor a warning; it may be the reason.
        progress: the last line that counts how far the work is.
    """

    reason: str = ""
    remark: str = ""
    progress: str = ""

    @property
    def is_cut_off(self) -> bool:
        """Return whether work was under way, did not come to its end, and no line says why."""
        return bool(self.progress) and not self.remark and not WHOLE.search(self.progress)

    @staticmethod
    def of(text: str) -> "Words":
        """Return the telling lines of a log, or of its end."""
        lines = [RANK.sub("", line.strip("\0").rstrip()) for line in text.splitlines()]
        own = [line for line in lines if line.startswith(OWN_REASONS)]
        progress = [line.strip() for line in lines if PROGRESS_LINE.search(line)]
        reason = _last(own) or _last(_exceptions(lines))
        return Words(reason, reason or _last(filter(_is_remark, lines)), _last(progress))


def _last(lines: Iterable[str]) -> str:
    return next(reversed([*lines]), "")


def _exceptions(lines: list[str]) -> list[str]:
    """Return the line below each traceback: the first that is not indented."""
    found, inside = [], False
    for line in lines:
        if line == TRACEBACK:
            inside = True
        elif inside and line and not line[0].isspace():
            inside = False
            if LAUNCHER_EXCEPTION not in line:
                found.append(line)
    return found


def _is_remark(line: str) -> bool:
    # Below a warning and within a traceback stands indented source code.
    return bool(line) and not (
        line[0].isspace() or PROGRESS_LINE.search(line) or "warning" in line.lower() or line.startswith("note:")
    )
