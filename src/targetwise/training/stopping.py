"""When to stop before the end: at a signal, or when the job's time is up."""

import signal
import time
from types import FrameType

#: What a batch system sends before it kills, and what a person sends with Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop:
    """Whether to stop, and why; asked once per step, so a signal never cuts a step in two."""

    def __init__(self, time_budget: float | None = None, margin: float = 0.0, used: float = 0.0) -> None:
        """Stop ``margin`` seconds before the budget's end.

        Args:
            time_budget: seconds in all; None never ends.
            margin: seconds kept free for saving.
            used: seconds of the budget that have passed by now.
        """
        self.reason = ""
        self.interrupted = False
        self._until = None if time_budget is None else time.monotonic() + time_budget - margin - used

    def listen(self) -> "Stop":
        """Turn the signals of :data:`SIGNALS` into a request to stop."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        return self

    def __bool__(self) -> bool:
        if not self.reason and self._until is not None and time.monotonic() > self._until:
            self.reason = "the time budget is used up"
        return bool(self.reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.reason = f"received {signal.Signals(number).name}"
        self.interrupted = number == signal.SIGINT
