"""The trials of a search on disk, for several threads, processes and terminals at once.

An Optuna study in a journal, a file that is only appended to, is what everybody reads and writes, one at a time: a
lock is held from reading to writing. Who trains a trial holds that trial's claim, and so does the process that it has
started: the kernel lets go of a lock with the last process that holds it, however that ends, so a trial whose worker
was killed is open again once its own process has saved and left, and never trained twice at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from mingshi.errors import DataError, Problem
from mingshi.workflows.search_rungs import State, Trial
from mingshi.workflows.search_sampler import distributions, params, read_point
from mingshi.workflows.search_space import Point, Space

JOURNAL, LOCK, ATTENDED, CLAIM = "study.journal", ".lock", ".attended", ".claim"
NAME = "search"  # of the study in the journal
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_ENDS = {state: known for known, state in _STATES.items()}


@final
class Study:
    """What is known of the trials. Every method is called with the study held: `with study.held(): …`."""

    def __init__(self, folder: Path, space: Space, *, higher: bool):
        self.folder, self.space = folder, space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.held():
            try:
                self._storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
                optuna.create_study(
                    storage=self._storage,
                    study_name=NAME,
                    direction="maximize" if higher else "minimize",
                    load_if_exists=True,
                )
            except ValueError as error:  # of a line that is no JSON
                what, mend = f"is damaged: {error}", "Restore it, or begin a new search in another `output`."
                raise DataError(Problem(file=str(folder / JOURNAL), what=what, mend=mend)) from None
            self._id = self._storage.get_study_id_from_name(NAME)
        self._ids: dict[int, int] = {}  # a trial's number -> its key in the storage

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile. It is not held twice by one thread."""
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _mend(self.folder / JOURNAL)
            yield
        finally:
            os.close(lock)

    def facts(self) -> dict[str, Any]:
        """What holds for all trials."""
        return dict(self._storage.get_study_user_attrs(self._id))

    def note(self, name: str, value: Any) -> None:
        self._storage.set_study_user_attr(self._id, name, value)

    def trials(self) -> list[Trial]:
        """All of them, by number."""
        frozen = self._storage.get_all_trials(self._id, deepcopy=False)
        self._ids = {one.number: one._trial_id for one in frozen}
        return [_trial(one, self.space) for one in sorted(frozen, key=lambda one: one.number)]

    def begin(self, point: Point) -> Trial:
        known = create_trial(
            state=TrialState.RUNNING, params=params(point, self.space), distributions=distributions(self.space)
        )
        number = self._storage.get_trial_number_from_id(self._storage.create_new_trial(self._id, known))
        return self.trial(number)

    def trial(self, number: int) -> Trial:
        return next(trial for trial in self.trials() if trial.number == number)

    def tell(self, number: int, facts: Mapping[str, Any]) -> None:
        """Of a trial: `target`, `steps`, `budget`, `reason`, `code`, `killed`."""
        for name, value in facts.items():
            self._storage.set_trial_user_attr(self._ids[number], name, value)

    def judge(self, number: int, *, tokens: int, score: float) -> None:
        """The score of a trial at a rung."""
        self._storage.set_trial_intermediate_value(self._ids[number], tokens, score)

    def end(self, number: int, state: State, score: float | None = None) -> None:
        self._storage.set_trial_state_values(self._ids[number], _ENDS[state], None if score is None else [score])


def _trial(told: FrozenTrial, space: Space) -> Trial:
    facts = told.user_attrs
    return Trial(
        number=told.number,
        point=read_point(told.params, space),
        state=_STATES[told.state],
        scores=tuple(value for _, value in sorted(told.intermediate_values.items())),
        target=facts.get("target", 0),
        steps=tuple(facts.get("steps", ())),
        budget=facts.get("budget", 0),
        reason=facts.get("reason", ""),
        code=facts.get("code", 0),
        killed=facts.get("killed", 0),
    )


def _mend(journal: Path) -> None:
    """With the lock held: put right what a process that was killed in the middle of a line left behind."""
    with suppress(FileNotFoundError):
        os.unlink(f"{journal}.lock")  # Optuna's own lock, of a process that is gone
    with suppress(FileNotFoundError), journal.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size and _last_byte(stream.fileno(), size) != b"\n":
            whole = journal.read_bytes().rfind(b"\n") + 1
            stream.truncate(whole)


def _last_byte(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, 1, size - 1)


def take(folder: Path, name: str = CLAIM) -> int | None:
    """The claim of a folder, held until it is closed or the process is gone; None if somebody else has it."""
    folder.mkdir(parents=True, exist_ok=True)
    claim = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return None
    return claim


def attend(folder: Path) -> tuple[int, bool]:
    """Be one of those who work on a search, as long as the descriptor is open; and is anybody else?"""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ATTENDED, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        others = False
    except BlockingIOError:
        others = True
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor, others


def changes(kept: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """The places in which two trees of plain values differ."""
    before, after = dict(_leaves(kept)), dict(_leaves(now))
    places = dict.fromkeys([*before, *after])
    return [place for place in places if before.get(place, "") != after.get(place, "")]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if pairs is None or not value:
        yield place, value
        return
    for key, inner in pairs:
        yield from _leaves(inner, f"{place}.{key}" if place else str(key))
