"""What `mingshi check` leaves in its folder: findings, a page, and labels in doubt for a person to accept or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mingshi.places import require_own
from mingshi.report.health import write_health

FINDINGS, SUSPECTS, BEFORE = "findings.json", "suspects.jsonl", "suspects-before.jsonl"
NAMES = (FINDINGS, SUSPECTS, BEFORE, "report.html")
SAME = ("source", "line", "label", "suggested")  # of a row that a person has answered for

Answers = Mapping[tuple[Any, ...], bool]


def claim(folder: Path) -> None:
    """RecipeError where the folder cannot be written to, or is somebody else's: before any row is read."""
    require_own(folder, names=NAMES)


def write(folder: Path, told: Mapping[str, Any], suspects: Sequence[Mapping[str, Any]], *, language: str) -> str:
    """Write all; what a person has accepted or refused of the same labels stays. A sentence where some is set aside."""
    folder.mkdir(parents=True, exist_ok=True)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    (folder / FINDINGS).write_bytes(orjson.dumps(told, option=options))
    answers = _answers(folder / SUSPECTS)
    rows = [{**row, "accept": answers.get(_key(row))} for row in suspects]
    lost = len(answers.keys() - {_key(row) for row in suspects})
    if lost:
        (folder / SUSPECTS).replace(folder / BEFORE)
    lines = (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    (folder / SUSPECTS).write_bytes(b"".join(lines))
    write_health(folder, told, language=language)
    return f"{lost} answers in {SUSPECTS} are about labels no longer in doubt: they are in {BEFORE}" if lost else ""


def _answers(path: Path) -> Answers:
    """What a person said of earlier suspects; nothing of lines that are not of our making."""
    found: dict[tuple[Any, ...], bool] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row = orjson.loads(line)
            if isinstance(row["accept"], bool):
                found[_key(row)] = row["accept"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
    return found


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAME)
