"""Preparing holds a few rows at a time, however many a file has."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import tiny_tokenizer

from mingshi import prepare as module
from mingshi.data.formats import DataSource, read
from mingshi.data.split import split
from mingshi.data.template import make_template
from mingshi.display import Silent
from mingshi.model.load import Text
from mingshi.recipe import Recipe

ROWS, SIZE = 5000, 2000


@pytest.fixture
def large(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    row = {"text": "x" * SIZE, "label": "yes"}
    lines = (orjson.dumps(row | {"group": str(number), "label": f"{number % 3}"}) for number in range(ROWS))
    path.write_bytes(b"\n".join(lines))
    return str(path)


def recipe(path: str, **stage: Any) -> Recipe:
    return Recipe.model_validate({"model": "m", "output": "o", "stages": [{"data": [{"path": path}], **stage}]})


def peak(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("held_out", [True, False])
def test_one_side_of_a_file_is_not_held_in_memory(held_out: bool, large: str) -> None:
    source = DataSource(path=large, format="labelled")
    rows = module._side(source, 0.2, held_out=held_out, seed=0)
    assert peak(lambda: deque(rows, maxlen=0)) < ROWS * SIZE / 5
    again = module._side(source, 0.2, held_out=held_out, seed=0)
    assert list(again) == split(read(source), fraction=0.2, seed=0)[held_out]


def test_classes_are_decided_without_the_texts(large: str) -> None:
    stage = {"objective": {"kind": "classify"}, "validation": 0.2}
    found: list[Recipe] = []
    assert peak(lambda: found.append(module.settled(recipe(large, **stage)))) < ROWS * SIZE / 2
    assert found[0].stages[0].objective.labels == ("0", "1", "2")


class Bars(Silent):
    """What progress was shown of."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []

    def track(self, items: Any, total: int | None, label: str) -> Any:
        self.totals.append(total)
        return iter(items)


def test_progress_is_shown_of_a_known_number_and_of_nothing_that_is_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"text": f"text {number}"}) + b"\n" for number in range(40)))
    tokenizer = tiny_tokenizer()
    text = Text("tiny", tokenizer, make_template(tokenizer), ())
    made = recipe(str(path), objective={"kind": "sft"}, validation=0.25)
    first, second = Bars(), Bars()
    prepared = module.prepare(made.stages[0], made, text, first)
    assert first.totals == [30, 10]
    assert len(prepared.samples) + len(prepared.validation) == 40 and len(prepared.validation)
    again = module.prepare(made.stages[0], made, text, second)
    assert second.totals == [] and again.ledger == prepared.ledger
