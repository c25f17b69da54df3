"""What a run tells whoever watches it: lines, progress, and steps. The library itself prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mingshi.errors import Preempted
from mingshi.signals import Stop
from mingshi.types import Step

Item = TypeVar("Item")


class Display(Protocol):
    """A watcher. Methods return at once and never fail."""

    def say(self, text: str) -> None:
        """One line that a person should read."""

    def track(self, items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
        """Yield the items, showing how far they are."""

    def step(self, step: Step, steps: int) -> None:
        """One optimiser step of `steps` is done."""


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Shows nothing."""

    def track(self, items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
        return iter(items)

    def step(self, step: Step, steps: int) -> None:
        """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Another display, whose every loop ends with `Preempted` once a signal has asked for it."""

    display: Display
    stop: Stop

    def say(self, text: str) -> None:
        self.display.say(text)

    def track(self, items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
        for item in self.display.track(items, total, label):
            if self.stop.requested:
                raise Preempted(f"stopped while busy with: {label}", "Go on with --resume.")
            yield item

    def step(self, step: Step, steps: int) -> None:
        self.display.step(step, steps)
