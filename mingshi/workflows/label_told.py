"""A self-training as lines for a person, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both
from mingshi.report.label import about, classes_table, notes, rounds_table, verdict
from mingshi.workflows.score_told import table


def described(told: Mapping[str, Any], *, language: str) -> list[str]:
    """The rounds, the classes, what is labelled at which error, and what is left for a person."""

    def word(both: Both) -> str:
        return both.zh if language == "zh" else both.en

    lines = [word(about(told))]
    for one in (rounds_table(told), classes_table(told)):
        cells = [[word(cell) for cell in row] for row in (one.head, *one.rows)]
        lines += ["", word(one.caption), *table(cells)]
    return [*lines, "", word(verdict(told)), *(word(note) for note in notes(told))]
