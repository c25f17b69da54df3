"""One process: what stands in where there are no others, and what all of them are to those who ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from mingshi.errors import MingshiError
from mingshi.signals import Asked, Stop

if TYPE_CHECKING:
    import torch

    from mingshi.types import Scores, Step

Result = TypeVar("Result")


class Ranks(Protocol):
    """This process among all: a context. Every method but `blame` must be called by all of them, in the same order."""

    number: int
    count: int
    first: bool  # the one that writes and speaks
    divided: bool  # each holds a part of the network, so that all must go through it together

    def __enter__(self) -> Ranks: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None: ...

    def exchange(self, value: Any) -> list[Any]:
        """What each process has to say, in their order. JSON, in which numbers need not be finite."""

    def told(self, work: Callable[[], Any]) -> Any:
        """What process 0 finds by this work, which it alone does."""

    def lent(self, work: Callable[[], Result]) -> Result | None:
        """What process 0 finds by this work, and None elsewhere: the others lend it their parts of the network."""

    def divide(self, follow: Callable[[], object]) -> Callable[[], None]:
        """From here on the network is divided. `follow` goes through it once, for another's sake.

        What is given back is to be called before the network is gone through.
        """

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Work that fills a cache: process 0 does it first, and then the others find what it left."""

    def added(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums by name over all processes."""

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Each parameter's gradient becomes the sum over all processes; it has none where none of them had one."""

    def agree(self, what: str, value: Any) -> None:
        """ModelError unless all processes have the same value."""

    def heed(self, stop: Stop) -> Asked:
        """What says whether a run should stop: the same on every process, though one alone may have had the signal."""

    def blame(self, error: Exception) -> Exception:
        """What the run really ended in: the failure of another process, where this one fell over that."""


@final
class Alone:
    """The only process."""

    number, count, first, divided = 0, 1, True, False

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Nobody waits."""

    def exchange(self, value: Any) -> list[Any]:
        return [value]

    def told(self, work: Callable[[], Any]) -> Any:
        return work()

    def lent(self, work: Callable[[], Result]) -> Result | None:
        return work()

    def divide(self, follow: Callable[[], object]) -> Callable[[], None]:
        raise MingshiError("one process has nobody to divide a network with")

    def in_turn(self, work: Callable[[], Result]) -> Result:
        return work()

    def added(self, sums: Mapping[str, float]) -> dict[str, float]:
        return dict(sums)

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """They are whole."""

    def agree(self, what: str, value: Any) -> None:
        """There is nobody to differ from."""

    def heed(self, stop: Stop) -> Asked:
        return stop

    def blame(self, error: Exception) -> Exception:
        return error


ALONE = Alone()


@final
class Onlooker:
    """A run folder in the hands of a process that leaves the writing to another: what it is told, it passes over."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.id, self.resumed = folder, name, False
        self.fields: dict[str, Any] = {"model": {}, "scores": {}}

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(self, *failure: object) -> None:
        """It holds no lock."""

    def write_step(self, step: Step, *, stage: int) -> None:
        """Not here."""

    def write_eval(self, *, stage: int, step: int, when: str, data: str, kind: str, scores: Scores) -> None:
        """Not here."""

    def write_json(self, name: str, value: Any) -> None:
        """Not here."""

    def update(self, *, name: str = "", model: Any = None, device: str = "", fit: Any = None) -> None:
        """Not here."""

    def truncate_after(self, stage: int, step: int) -> None:
        """Not here."""

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Not here."""
