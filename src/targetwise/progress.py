"""Progress for people: a bar on a terminal, a plain line now and then in a log."""

import re
import sys
import time
from types import TracebackType

from tqdm import tqdm

LOG_EVERY_SECONDS = 30.0

#: A line that only counts how far the work is: ours (see ``_say``), or a bar of tqdm's.
PROGRESS_LINE = re.compile(r": \d+/\d+ \w+|\d+%\|")


class Progress:
    """Counts ``total`` things, ``done`` of which an earlier run has finished."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0, *, silent: bool = False) -> None:
        """Show ``what`` is counted, e.g. ``Progress("train v-tiny-0", 1000, "step")``."""
        self.silent = silent
        self.what, self.total, self.unit = what, total, unit
        self.first = self.count = done
        self.began = self.spoke = time.monotonic()
        self.warm: tuple[int, float] | None = None
        self.bar = tqdm(desc=what, total=total, initial=done, unit=unit, disable=silent or not sys.stderr.isatty())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.bar.disable and kind is None:
            self._say()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more; ``note`` is a short figure worth seeing."""
        self.count += count
        if self.warm is None:
            self.warm = (self.count, time.monotonic())
        self.bar.update(count)
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        if self.bar.disable and time.monotonic() - self.spoke > LOG_EVERY_SECONDS:
            self._say(note)

    def skip(self, count: int) -> None:
        """Count ``count`` that an earlier run has finished: they say nothing of how fast this one is."""
        self.first += count
        self.count += count
        if self.warm:
            self.warm = (self.warm[0] + count, self.warm[1])
        self.bar.update(count)

    def _say(self, note: str = "") -> None:
        self.spoke = time.monotonic()
        if self.silent:
            return
        # What is counted first can take a minute longer than the others: the network is compiled then.
        steady = self.warm is not None and self.count > self.warm[0]
        first, began = self.warm if self.warm and steady else (self.first, self.began)
        rate = (self.count - first) / max(self.spoke - began, 1e-9)
        left = f", {(self.total - self.count) / rate:.0f} s left" if steady and self.count < self.total else ""
        tail = f", {note}" if note else ""
        print(
            f"{self.what}: {self.count}/{self.total} {self.unit}s, {rate:.1f} {self.unit}s/s{left}{tail}",
            file=sys.stderr,
            flush=True,
        )
