"""Rows of preferences, as samples and beside what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mingshi.display import Silent
from mingshi.model.load import Model
from mingshi.objectives import Dpo
from mingshi.types import Message, Preference, Sample


def row(number: int = 0, *, chosen: str = "Yes, it is.", rejected: str = "No.", turns: int = 1) -> Preference:
    prompt = [Message(role="system", content="Be brief.")]
    for turn in range(turns):
        prompt += [Message(role="user", content=f"第{number}问: is it {turn}?" + " Really?" * (number % 3))]
        prompt += [Message(role="assistant", content="Which?")] if turn < turns - 1 else []
    answers = [(Message(role="assistant", content=text),) for text in (chosen, rejected)]
    return Preference(
        id=f"pair-{number}",
        source="pairs.jsonl",
        line=number + 1,
        group=str(number),
        prompt=tuple(prompt),
        chosen=answers[0],
        rejected=answers[1],
    )


ROWS = [
    row(
        number,
        chosen="yes " * (1 + number % 4) + f"{number}",
        rejected="没有 " * (1 + number % 3),
        turns=1 + number % 2,
    )
    for number in range(12)
]


def encoded(model: Any, rows: Sequence[Preference] = ROWS, **settings: Any) -> list[Sample]:
    """Samples that know their place among the rows."""
    samples = [Dpo(**settings).encode(one, model) for one in rows]
    assert all(isinstance(sample, Sample) for sample in samples)
    return [replace(sample, row=place) for place, sample in enumerate(samples)]


def companion(objective: Dpo, model: Model, samples: Sequence[Sample], folder: Path) -> Any:
    return objective.companion(model, samples, folder=folder, budget=256, display=Silent())
