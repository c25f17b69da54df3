"""Rows of earlier stages among a stage's own, and the file that says which and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import orjson

from mingshi.data.mix import mix
from mingshi.data.plan import Plan, make_plan, shuffled
from mingshi.errors import DataError, Problem
from mingshi.provenance import recordable
from mingshi.types import Sample

MEMORY = "memory.jsonl"
SHOWN = 200  # characters of a remembered text that the file holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """One row of the memory of a stage: a line of `memory.jsonl`."""

    stage: int  # that rehearses it
    taught: int  # the stage that it is a row of
    task: str  # what that stage teaches, by the recipe's tasks
    row: int  # its place among that stage's samples
    id: str
    source: str
    line: int
    why: str
    text: str  # its beginning, for people
    answer: str | None = None  # the model's own, which is trained in the place of the given one
    kept: str = ""  # why the given answer stands where the model's own was asked for


@final
class Memory(Sequence[Sample]):
    """Remembered samples, held whole: a part of a stage's samples like an encoded file."""

    def __init__(self, samples: Sequence[Sample]):
        self._samples = tuple(_held(sample) for sample in samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        return self._samples[index]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, `[samples] int64`."""
        return np.array([len(sample.tokens) for sample in self._samples], dtype=np.int64)

    @property
    def trained(self) -> np.ndarray:
        """Predictions of each sample, `[samples] int64`."""
        return np.array([len(sample.target) for sample in self._samples], dtype=np.int64)


def _held(sample: Sample) -> Sample:
    """Without the file that its columns are views of."""
    return replace(
        sample,
        tokens=np.array(sample.tokens),
        segments=np.array(sample.segments),
        source=np.array(sample.source),
        target=np.array(sample.target),
        weight=np.array(sample.weight),
        sequence=np.array(sample.sequence),
        labels=np.array(sample.labels),
    )


# Order


def interleaved(
    plan: Plan, memory: Memory, *, own: np.ndarray, ratio: float | None, steps: int | None, epochs: float | None
) -> Plan:
    """A stage's plan with its memory in it, the memory's rows counted on from its own.

    The rows of an epoch lie at even distances, so every batch has its share of both to within one row; which come when
    depends on the seed and the epoch alone. `own` is how much each of the stage's own samples trains, `[samples]`; by
    `ratio` the remembered rows are drawn as often as makes that share of what an epoch trains.
    """
    weight = 1.0
    if ratio is not None:
        wanted = ratio / (1 - ratio) * float(own[plan.mixture(0)].sum())
        weight = max(wanted / float(memory.trained.sum()), 1 / len(memory))  # one row at least
    counted_on, count, seed = len(own), len(memory), plan.seed

    def mixture(epoch: int) -> np.ndarray:
        mine = shuffled(plan.mixture(epoch), seed=seed, epoch=epoch)
        theirs = mix([count], [weight], seed=seed, epoch=epoch)
        theirs = counted_on + shuffled(theirs, seed=seed + 1, epoch=epoch)
        places = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in (mine, theirs)])
        order: np.ndarray = np.concatenate([mine, theirs])[np.argsort(places, kind="stable")]
        return order

    rows = len(mixture(0))
    made = make_plan(rows=rows, mixture=mixture, batch=plan.batch, seed=seed, epochs=epochs, steps=steps)
    return replace(made, ordered=True)


# The file


def read_memory(folder: Path, stage: int) -> list[Remembered]:
    """What a stage rehearses, as it was chosen; none where nothing was chosen yet. DataError for a damaged file."""
    path = folder / MEMORY
    if not path.is_file():
        return []
    try:
        lines = [Remembered(**orjson.loads(line)) for line in path.read_bytes().splitlines()]
    except (ValueError, TypeError) as error:
        mend = "Restore it: the run cannot go on without it."
        raise DataError(Problem(file=str(path), what="is damaged and cannot be read", mend=mend)) from error
    return [line for line in lines if line.stage == stage]


def write_memory(folder: Path, stage: int, rows: Sequence[Remembered]) -> None:
    """Put a stage's memory beside those of stages before it, whole or not at all."""
    before = [line for earlier in range(stage) for line in read_memory(folder, earlier)]
    draft = folder / f".{MEMORY}.new"
    with draft.open("wb") as file:
        file.write(b"".join(orjson.dumps(_told(row)) + b"\n" for row in (*before, *rows)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / MEMORY)


def _told(row: Remembered) -> Mapping[str, Any]:
    """Redacted, as everything that a record holds; what is trained is what was read back."""
    values: Mapping[str, Any] = recordable(row)
    return values


def refuse_others(rows: Sequence[Remembered], ids: Mapping[tuple[int, int], str], folder: Path) -> None:
    """DataError where a row of the memory is no longer the row that it was; `ids` by stage and row."""
    for row in rows:
        if ids.get((row.taught, row.row)) != row.id:
            what = f"row {row.row} of stage {row.taught + 1} is no longer {row.id!r}"
            raise DataError(Problem(file=str(folder / MEMORY), what=what, mend="Start a new run with the new data."))
