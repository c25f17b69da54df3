"""Which trials go on: successive halving without waiting (ASHA, Li et al. 2020, algorithm 2), as functions of records.

Rung `k` is a number of trained tokens that is the same for every trial; the last rung is the end. A trial stops at a
rung until it is among the best there of all that have come so far, and goes on from where it stopped. One that can no
longer be among them, whatever the trials to come are like, is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["open", "done", "pruned", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of the space, and how far it has come."""

    number: int
    point: Mapping[str, Any]
    state: State = "open"
    scores: tuple[float, ...] = ()  # of the rungs that it was judged at, in order
    target: int = 0  # the rung that it may train to
    steps: tuple[int, ...] = ()  # of its last stage, at each rung
    budget: int = 0  # tokens of its last stage, were it trained whole
    reason: str = ""  # why it failed
    code: int = 0  # of the process that failed
    killed: int = 0  # how often its process was ended from outside

    @property
    def waits(self) -> bool:
        """Has it been judged at the rung that it may train to?"""
        return self.state == "open" and len(self.scores) > self.target

    @property
    def wanted(self) -> bool:
        """Is there something left to train before it can be judged again?"""
        return self.state == "open" and not self.waits

    @property
    def score(self) -> float | None:
        """Where it was judged last."""
        return self.scores[-1] if self.scores else None


def settled(trials: Sequence[Trial], *, planned: int, factor: int, higher: bool) -> tuple[list[int], list[int]]:
    """The numbers of waiting trials that may go on, and of those that never will.

    `planned` is how many trials there will be. Of `n` trials at a rung, failed ones among them, the best `n // factor`
    go on; once all that can come have come, at least the best one does.
    """
    promoted: list[int] = []
    pruned: list[int] = []
    for rung in sorted({trial.target for trial in trials if trial.waits}):
        order = ranked(trials, rung, higher=higher)
        here = sum(_came(trial, rung) for trial in trials)
        most = planned - sum(_fell_before(trial, rung) for trial in trials)
        complete = here >= most
        for place, trial in enumerate(order, start=1):
            if not trial.waits or trial.target != rung:
                continue
            if place <= max(here // factor, 1 if complete else 0):
                promoted.append(trial.number)
            elif place > max(most // factor, 1):
                pruned.append(trial.number)
    return promoted, pruned


def ranked(trials: Iterable[Trial], rung: int, *, higher: bool) -> list[Trial]:
    """Those that were judged at a rung, the best first; one that failed since then comes last."""
    sign = -1.0 if higher else 1.0
    here = [trial for trial in trials if len(trial.scores) > rung]
    return sorted(here, key=lambda trial: (trial.state == "failed", sign * trial.scores[rung], trial.number))


def best_first(trials: Iterable[Trial], *, higher: bool) -> list[Trial]:
    """By how far they came, then by their score there; failed ones are left out."""
    sign = -1.0 if higher else 1.0
    scored = [trial for trial in trials if trial.scores and trial.state != "failed"]
    return sorted(scored, key=lambda trial: (-len(trial.scores), sign * trial.scores[-1], trial.number))


def rung_steps(*, steps: int, budget: int, rungs: Sequence[int]) -> tuple[int, ...]:
    """Where a trial of `steps` steps that read `budget` tokens is judged, given the rungs in tokens.

    All are multiples of the first, which is how often the trial measures, but the end: that is always measured.
    """
    places = [min(steps, max(1, round(steps * rung / budget))) for rung in rungs]
    first = places[0]
    found = [min(steps, max(1, round(place / first)) * first) for place in places[:-1]]
    return (*found, places[-1])


def rung_tokens(*, budget: int, shares: Sequence[float]) -> list[int]:
    return [math.ceil(budget * share) for share in shares]


def _came(trial: Trial, rung: int) -> bool:
    """Was it judged at this rung, or did it fail on its way there or later?"""
    return len(trial.scores) > rung or (trial.state == "failed" and trial.target >= rung)


def _fell_before(trial: Trial, rung: int) -> bool:
    """Did it end before it was judged at this rung?"""
    if trial.state == "pruned":
        return len(trial.scores) <= rung
    return trial.state == "failed" and trial.target < rung
