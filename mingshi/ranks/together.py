"""Several processes: what they tell one another, the sum of their gradients, and how they end together.

Small things travel as JSON over gloo, gradients over NCCL where they lie on CUDA devices and over gloo elsewhere. Every
wait is polled, so that a signal is heard and the failure of another process ends it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from mingshi.errors import (
    DataError,
    DivergedError,
    MingshiError,
    ModelError,
    Preempted,
    RecipeError,
    ResourceError,
)
from mingshi.ranks.place import Place, threads
from mingshi.ranks.pulse import UNKNOWN, Failure, Pulse, told
from mingshi.signals import Asked, Stop

Result = TypeVar("Result")

MEETING = timedelta(minutes=5)  # for all processes to have started
LONGEST = timedelta(days=7)  # of a wait: the pulse, and not a clock, says when there is nothing to wait for
BUCKET = 1 << 24  # numbers that are summed at a time
SHORTEST_PAUSE, LONGEST_PAUSE = 1e-4, 5e-3  # seconds between two looks at what is waited for
LAST_WORDS = 1.5  # seconds for process 0 to say the same, and for whoever failed to end first
WRITING = 20.0  # seconds for process 0 to write down how a run ended
ERRORS: tuple[type[MingshiError], ...] = (
    RecipeError,
    DataError,
    ModelError,
    DivergedError,
    ResourceError,
    Preempted,
)


@final
class Together:
    """One process among several, from the first call within its context to the last."""

    def __init__(self, place: Place, device: str):
        self.number, self.count, self.first = place.number, place.count, place.number == 0
        self._place = place
        self._stop: Stop | None = None
        self.requested = False  # has a signal come, as all processes knew when they last exchanged anything
        self._blamed: Exception | None = None
        self._code = 0  # to end with, once the group is broken
        self.divided = False
        self._follow: Callable[[], object] | None = None
        self._leading = False  # does this process go through a divided network with nothing but help from the others?
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            _take_device(place)
        if count := threads(place):
            torch.set_num_threads(count)
        if not self.first:
            logging.getLogger("mingshi").setLevel(logging.ERROR)
        self._pulse = _meet(place, cuda=cuda)
        atexit.register(self._leave)

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.exchange(None)
            self._pulse.close()
            dist.destroy_process_group()
            return
        self._code = code = error.exit_code if isinstance(error, MingshiError) else MingshiError.exit_code
        try:
            silent = self._silent(error, code)
        finally:
            self._pulse.close()
        if silent:
            raise SystemExit(code)

    def exchange(self, value: Any) -> list[Any]:
        heard = self._stop is not None and self._stop.requested
        mine = torch.frombuffer(bytearray(json.dumps([heard, value]).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        self._wait(dist.all_gather(sizes, torch.tensor([len(mine)]), async_op=True))
        longest = max(int(size) for size in sizes)
        padded = torch.nn.functional.pad(mine, (0, longest - len(mine)))
        columns = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
        self._wait(dist.all_gather(columns, padded, async_op=True))
        said = [json.loads(column[: int(size)].numpy().tobytes()) for column, size in zip(columns, sizes, strict=True)]
        self.requested = self.requested or any(asked for asked, _ in said)
        return [theirs for _, theirs in said]

    def told(self, work: Callable[[], Any]) -> Any:
        return self.exchange(self.lent(work))[0]

    def lent(self, work: Callable[[], Result]) -> Result | None:
        if self._follow is None:
            return work() if self.first else None
        if not self.first:
            while self.exchange(None)[0]:
                self._follow()
            return None
        self._leading = True
        try:
            result = work()
        finally:
            self._leading = False
        self.exchange(False)
        return result

    def divide(self, follow: Callable[[], object]) -> Callable[[], None]:
        self.divided, self._follow = True, follow
        return self._lead

    def _lead(self) -> None:
        if self._leading:
            self.exchange(True)

    def in_turn(self, work: Callable[[], Result]) -> Result:
        if not self.first:
            self.exchange(None)
            return work()
        result = work()
        self.exchange(None)
        return result

    def added(self, sums: Mapping[str, float]) -> dict[str, float]:
        found = self.exchange(dict(sums))
        names = dict.fromkeys(name for theirs in found for name in theirs)
        return {name: sum(theirs[name] for theirs in found if name in theirs) for name in names}

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        mine = "".join("01"[parameter.grad is not None] for parameter in parameters)
        marks = self.exchange(mine)
        wanted = [one for place, one in enumerate(parameters) if any(theirs[place] == "1" for theirs in marks)]
        for bucket in _buckets(wanted):
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            self._wait(dist.all_reduce(flat, async_op=True))
            start = 0
            for one in bucket:
                one.grad = flat[start : start + one.numel()].view_as(one)
                start += one.numel()

    def agree(self, what: str, value: Any) -> None:
        found = self.exchange(value)
        others = [number for number, theirs in enumerate(found) if theirs != found[0]]
        if others:
            raise ModelError(
                f"process {others[0]} of {self.count} has another {what} than process 0",
                "All must see the same files, and compute on the same kind of device.",
            )

    def heed(self, stop: Stop) -> Asked:
        self._stop = self._pulse.stop = stop
        stop.apart = LAST_WORDS + WRITING  # a launcher hands the same signal on, and sends it again as processes end
        return self

    def blame(self, error: Exception) -> Exception:
        if self.divided and _is_broken(error):
            error = self._of(self._pulse.culprit(patience=6.0))
        self._pulse.look()  # a launcher's signal may have been quicker
        failure = self._pulse.failure
        other = failure is not None and failure.number != self.number and failure.code != Preempted.exit_code
        if failure is not None and other and isinstance(error, Preempted) and error is not self._blamed:
            error = self._of(failure)
        if self.first:
            self._pulse.say(_text(error))
        return error

    def _leave(self) -> None:
        """torch would wait for common work that can no longer be done."""
        if self._code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code)

    def _wait(self, work: Any) -> None:
        """Until a piece of common work is done; what another process failed with, if it never will be."""
        pause = SHORTEST_PAUSE
        self._pulse.waiting = True
        try:
            while not work.is_completed():
                if self._pulse.failure is not None:
                    raise self._of(self._pulse.failure)
                time.sleep(pause)
                pause = min(1.2 * pause, LONGEST_PAUSE)
            work.wait()
        except RuntimeError as error:
            raise self._of(self._pulse.culprit(patience=6.0)) from error
        finally:
            self._pulse.waiting = False

    def _of(self, failure: Failure) -> Exception:
        """Another process's failure as an error of the same kind."""
        kinds = {kind.exit_code: kind for kind in ERRORS}
        self._blamed = kinds.get(failure.code, MingshiError)(told(failure, self.count))
        return self._blamed

    def _silent(self, error: BaseException, code: int) -> bool:
        """Tell the others how this process ends; is there nothing left for it to say aloud?"""
        if error is self._blamed:
            failure = self._pulse.failure
            self._pulse.close()
            time.sleep(2 * LAST_WORDS)  # a launcher takes who ends first for who failed
            mute = failure is None or failure.number in (0, UNKNOWN)  # process 0 cannot say whose failure it was
            return not self.first and not (mute and self.number == 1 and code != Preempted.exit_code)
        shared = not self.first and self._pulse.said(_text(error), patience=LAST_WORDS)
        if shared:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._pulse.ended(patience=WRITING)
            self._pulse.close()
            time.sleep(LAST_WORDS)
            return True
        if self.first:
            self._pulse.say(_text(error))
            self._pulse.end()
        failure = Failure(number=self.number, code=code, text=_text(error))
        self._pulse.fail(failure, patience=2 * LAST_WORDS if self.first else 0.0)  # who is first may keep the store
        return False


def _text(error: BaseException) -> str:
    plain = str(error) if isinstance(error, MingshiError) else f"{type(error).__name__}: {error}"
    return " ".join(plain.split("\n"))[:2000]


def _is_broken(error: Exception) -> bool:
    """Has a connection failed within the network, where the parts of others are asked for?"""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters of one type and device together, so many that their copy stays small."""
    bucket: list[torch.nn.Parameter] = []
    for one in parameters:
        if bucket and sum(map(torch.numel, bucket)) + one.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket


def _take_device(place: Place) -> None:
    devices = torch.cuda.device_count()
    if place.local >= devices:
        what = f"{place.beside} processes on this machine, which has {devices} CUDA devices"
        raise RecipeError(what, f"Start with --nproc-per-node {devices}, or set `device: cpu`.")
    torch.cuda.set_device(place.local)


def _meet(place: Place, *, cuda: bool) -> Pulse:
    """Find the others; where all are on one machine, nothing is open to the network."""
    if place.beside == place.count and os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        store, number, count = next(rendezvous("env://", timeout=MEETING))
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        own = TCPStore(address, port, is_master=False, timeout=MEETING, wait_for_workers=False)
        attempt = f"mingshi/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        pulse = Pulse(PrefixStore(attempt, own), place)
        if absent := pulse.absent(patience=MEETING.total_seconds()):
            raise RuntimeError(f"process {absent[0]} has not come in {MEETING.total_seconds():.0f} s")
        pulse.start()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore(f"{attempt}/group", store),
            rank=number,
            world_size=count,
            timeout=LONGEST,
        )
    except (RuntimeError, ValueError, KeyError) as error:
        what = f"{place} cannot reach the others: {str(error).splitlines()[0][:160]}"
        raise ResourceError(what, "Start them all with torchrun or accelerate launch.") from error
    return pulse
