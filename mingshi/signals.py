"""Signals as flags: a handler notes that it was asked, and every loop looks at the note."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Protocol, final

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Asked(Protocol):
    """Says whether a run should stop."""

    @property
    def requested(self) -> bool: ...


@final
class Stop:
    """While open, the first SIGTERM or SIGINT sets `requested`; a second one ends the process at once.

        with Stop() as stop:
            for step in train(...):
                if stop.requested: ...

    Handlers belong to the main thread: opened in another one, it changes nothing and is never requested. Of several
    processes each may get the same signal more than once: what comes within `apart` seconds is no second one.
    """

    def __init__(self) -> None:
        self.requested = False
        self.apart = 0.0
        self._heard: float | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python, and cannot be put back from it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._heard is not None and now - self._heard >= self.apart:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._heard = now if self._heard is None else self._heard
        self.requested = True
