"""The pulse of one process among several: a thread that shows the others that it lives, and learns how they fare.

Everything goes through the key-value store of the rendezvous. A process that fails says so there before it ends; one
that is killed stops beating; one that sleeps for ever is found out by its own thread, which ends it. Whoever waits for
such a process learns its number and ends as well.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from mingshi.errors import Preempted, ResourceError
from mingshi.signals import Stop

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

    from mingshi.ranks.place import Place

BEAT = 1.0  # seconds between two beats
IDLE = 35.0  # seconds without work, in a process that waits for no other: it is stuck
WORK = 0.05  # seconds of processor time in that span that count as work
SILENCE = 40.0  # seconds without a beat of another process: it is gone, or frozen
LINGER = 20.0  # seconds that a process has to end by itself once another one failed
UNKNOWN = -1  # a failure of nobody in particular
_FAILURE, _STOP, _SAID, _ENDED, _HEARD = "failure", "stop", "said", "ended", "heard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Which process failed first, and how."""

    number: int
    code: int  # its exit code
    text: str


@final
class Pulse:
    """Beats from `start` until `close`."""

    def __init__(self, store: Store, place: Place):
        self.failure: Failure | None = None  # of another process
        self.waiting = False  # for others: no work is expected meanwhile
        self.stop: Stop | None = None
        self._store, self._place = store, place
        self._main = threading.main_thread().native_id
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mingshi-pulse", daemon=True)
        self._beats = 0
        self._heard = {other: (b"", 0) for other in range(place.count) if other != place.number}
        self._work = (0.0, time.monotonic())  # processor time when there last was some, and when
        self._learnt = 0.0  # when the failure was
        self._passed_on = False
        self._beat()

    def start(self) -> None:
        self._work = (time.process_time(), time.monotonic())
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(2 * BEAT)

    def absent(self, *, patience: float) -> list[int]:
        """Who has not come; at once empty where all have."""
        end = time.monotonic() + patience
        return [other for other in self._heard if not self._until(f"beat/{other}", end - time.monotonic())]

    def fail(self, failure: Failure, *, patience: float = 0.0) -> None:
        """Tell the others, unless one of them was first, and wait until they know: whoever has ended never says so."""
        end = time.monotonic() + patience
        with suppress(RuntimeError):  # whoever kept the store has ended: so have the others, or they will
            self._store.compare_set(_FAILURE, "", json.dumps(asdict(failure)))
        for other in self._heard if patience else ():
            self._until(f"{_HEARD}/{other}", end - time.monotonic())

    def look(self) -> None:
        """Learn at once of a failure that was told."""
        with suppress(RuntimeError):
            self._hear_failure()

    def say(self, text: str) -> None:
        """What process 0 is about to tell the person who watches."""
        with suppress(RuntimeError):
            self._store.set(_SAID, text)

    def said(self, text: str, *, patience: float) -> bool:
        """Does process 0 say the very same?"""
        return self._until(_SAID, patience) and self._store.get(_SAID).decode() == text

    def end(self) -> None:
        """Process 0 has written all that it will write."""
        with suppress(RuntimeError):
            self._store.set(_ENDED, "1")

    def ended(self, *, patience: float) -> bool:
        return self._until(_ENDED, patience)

    def culprit(self, *, patience: float) -> Failure:
        """Who failed, once a connection is broken: whoever said so, else the one that stops beating."""
        end = time.monotonic() + patience
        before = self._others()
        while time.monotonic() < end and self.failure is None:
            time.sleep(BEAT / 4)
        after = self._others()
        if self.failure is None:
            gone = [other for other, beat in after.items() if beat == before.get(other)]
            self._learn(_gone(gone[0] if gone else UNKNOWN))
        assert self.failure is not None
        return self.failure

    def _others(self) -> dict[int, bytes]:
        """The last beat of each; none where the store is gone."""
        others = list(self._heard)
        with suppress(RuntimeError):
            return dict(zip(others, self._store.multi_get([f"beat/{one}" for one in others]), strict=True))
        return {}

    def _until(self, key: str, patience: float) -> bool:
        end = time.monotonic() + patience
        with suppress(RuntimeError):
            while not self._store.check([key]):
                if time.monotonic() > end:
                    return False
                time.sleep(0.1)
            return True
        return False

    def _watch(self) -> None:
        while not self._closing.wait(BEAT):
            try:
                self._beat()
                self._hear()
            except (RuntimeError, ValueError) as error:  # the store is gone, and whoever kept it
                if not self._closing.is_set() and self.failure is None:
                    self._learn(_gone(UNKNOWN if "TORCHELASTIC_RUN_ID" in os.environ else 0, str(error)))
            if self.failure is not None and time.monotonic() - self._learnt > LINGER:
                self._leave(f"{told(self.failure, self._place.count)}", self.failure.code)
            if self._asleep():
                self._end_asleep()

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self._place.number}", str(self._beats))

    def _hear(self) -> None:
        if self.stop is not None and self.stop.requested and not self._passed_on:
            self._store.set(_STOP, "1")
            self._passed_on = True
        elif self.stop is not None and not self.stop.requested and self._store.check([_STOP]):
            self.stop.requested = True
        self._hear_failure()
        for other, beat in self._others().items():
            before, since = self._heard[other]
            self._heard[other] = (before, since) if beat == before else (beat, self._beats)
            if self._beats - self._heard[other][1] > SILENCE / BEAT and self.failure is None:
                self._learn(_gone(other))

    def _hear_failure(self) -> None:
        if self.failure is None and self._store.check([_FAILURE]):
            failure = Failure(**json.loads(self._store.get(_FAILURE)))
            if failure.number != self._place.number:
                self._learn(failure)
                self._store.set(f"{_HEARD}/{self._place.number}", "1")

    def _learn(self, failure: Failure) -> None:
        self._learnt = time.monotonic()
        self.failure = failure

    def _asleep(self) -> bool:
        """Has the process used next to no processor time for long, though it waits for no other?

        A main thread that would run if it were let, or that waits for a disk, is not asleep.
        """
        used, now = time.process_time() - time.thread_time(), time.monotonic()
        if self.waiting or used - self._work[0] > WORK or _state(self._main) != "S":
            self._work = (used, now)
        return now - self._work[1] > IDLE

    def _end_asleep(self) -> None:
        text = f"has done nothing for {IDLE:.0f} s"
        self.fail(Failure(number=self._place.number, code=ResourceError.exit_code, text=text))
        time.sleep(2 * BEAT)  # for the others to hear of it, where this process keeps the store
        self._leave(f"{self._place} {text}", ResourceError.exit_code)

    def _leave(self, text: str, code: int) -> None:
        """The main thread does not listen: the process ends without it."""
        os.write(2, f"error: {text}\n".encode())
        os._exit(code)


def told(failure: Failure, count: int) -> str:
    if failure.number == UNKNOWN:
        return failure.text
    how = "" if failure.code == Preempted.exit_code else " failed"
    return f"process {failure.number} of {count}{how}: {failure.text}"


def _gone(number: int, reason: str = "") -> Failure:
    text = "it is gone without a word" if number != UNKNOWN else "the connection to the other processes is gone"
    return Failure(number=number, code=ResourceError.exit_code, text=text + (f" ({reason[:120]})" if reason else ""))


def _state(thread: int | None) -> str:
    """R runs or would, S sleeps, D waits for a disk; S where the system does not say."""
    try:
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "S"
