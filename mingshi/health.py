"""What a run looks for in its rows before the first step: leaks, contradictions, wording, personal data, balance.

That is what needs no model and few seconds; `mingshi check` looks for all of it and for more. Nothing is stopped or
changed. What was found is kept under a hash of the rows and of the code, so that the next start finds it there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from mingshi import provenance
from mingshi.checks.balance import Balance
from mingshi.checks.contradictions import Contradictions
from mingshi.checks.leakage import Leakage
from mingshi.checks.rows import Check, Row, Split, rows_of
from mingshi.checks.safety import Safety
from mingshi.checks.wording import Wording
from mingshi.data.formats import DataSource, read
from mingshi.display import Display
from mingshi.model.assets import cache_root
from mingshi.prepare import held_out_rows, training_rows
from mingshi.recipe import Recipe
from mingshi.types import Example, Finding, Reject

MOST = 20_000  # rows: of more, looking takes longer than one would wait for a first step
SEVERITIES = ("error", "warning", "note")
FIELDS = {"data": True, "validation": True}  # of a stage: what decides which rows it reads, and for what

Rows = Callable[[], Iterable[Example | Reject]]


def findings(recipe: Recipe, ledger: Sequence[Mapping[str, Any]], display: Display) -> list[Finding]:
    """What is wrong with the rows that a run trains on, chooses by and is tested on, the worst first.

    `ledger` is that of the run's files. Of too many rows a note says how to look.
    """
    files = [entry for entry in ledger if entry["role"] != "task"]
    read_in_all = sum(entry["rows"] for entry in files)
    if read_in_all > MOST:
        return [_unlooked(recipe, read_in_all)]
    parts = {
        "files": sorted([entry["path"], entry["sha256"]] for entry in files),
        "recipe": recipe.model_dump(mode="json", include={"seed": True, "test": True, "stages": {"__all__": FIELDS}}),
        "code": provenance.code_sha256(),
    }
    kept = cache_root() / "health" / f"{sha256(orjson.dumps(parts)).hexdigest()}.json"
    found = _recalled(kept)
    if found is None:
        text = orjson.dumps([asdict(one) for one in _looked(recipe, display)], option=orjson.OPT_SERIALIZE_NUMPY)
        _keep(kept, text)
        found = _read(text)
    return found


def _looked(recipe: Recipe, display: Display) -> list[Finding]:
    leakage = Leakage()
    others: list[Check] = [Contradictions(), Wording(), Safety(), Balance()]
    for row in _rows(recipe, display, "look at"):
        leakage.add(row)
        for each in others:
            each.add(row)
    for row in _rows(recipe, display, "compare"):
        leakage.again(row)
    found = [*leakage.findings(), *(one for each in others for one in each.findings())]
    told = [one for one in found if one.kind != "summary"]
    return sorted(told, key=lambda one: SEVERITIES.index(one.severity))


def _rows(recipe: Recipe, display: Display, what: str) -> Iterator[Row]:
    """Rows that can be used, split by split; a file of several stages is read for the first of them."""
    for split, name, rows in _files(recipe):
        for row in display.track(rows_of(rows(), split), None, f"{what} {name}"):
            if isinstance(row, Row):
                yield row


def _files(recipe: Recipe) -> Iterator[tuple[Split, str, Rows]]:
    taught = {source.path: (source, stage) for stage in reversed(recipe.stages) for source in reversed(stage.data)}
    chosen_by: dict[str, DataSource] = {}
    for stage in recipe.stages:
        given = stage.validation if isinstance(stage.validation, tuple) else ()
        chosen_by |= {source.path: source for source in given if source.path not in chosen_by}
    for path, (source, stage) in reversed(taught.items()):
        yield "train", path, partial(training_rows, source, stage, recipe)
    for path, (source, stage) in reversed(taught.items()):
        if isinstance(stage.validation, float) and stage.validation:
            yield "validation", path, partial(held_out_rows, source, stage, recipe)
    for path, source in chosen_by.items():
        yield "validation", path, partial(read, source)
    for source in recipe.test:
        yield "test", source.path, partial(read, source)


def _unlooked(recipe: Recipe, rows: int) -> Finding:
    stage = recipe.stages[0]
    command = ["mingshi check", *(source.path for source in stage.data)]
    given = stage.validation if isinstance(stage.validation, tuple) else ()
    command += [f"--validation {source.path}" for source in given] + [f"--test {one.path}" for one in recipe.test]
    return Finding(
        check="rows",
        kind="not_looked_at",
        severity="note",
        count=rows,
        message=f"{rows:,} rows are too many to look for leaks and faults in before every run",
        remedy=f"Look once: {' '.join(command)}.",
        evidence={"command": " ".join(command)},
    )


# What was found before


def _recalled(place: Path) -> list[Finding] | None:
    try:
        return _read(place.read_bytes())
    except (OSError, ValueError, TypeError):
        return None


def _read(text: bytes) -> list[Finding]:
    return [Finding(**told) for told in orjson.loads(text)]


def _keep(place: Path, text: bytes) -> None:
    """A full disk only means that the rows are looked at again."""
    draft = place.with_name(f".{place.name}-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text)
        os.replace(draft, place)
    except OSError:
        draft.unlink(missing_ok=True)
