"""The rows of three small skills can be read, are right by what checks them, and no part has a question of another."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from mingshi.data.formats import DataSource, read
from mingshi.evals.constraints import verdicts
from mingshi.types import Chat, Constrained
from scripts.skills import KINDS, PARTS, SKILLS, in_words, lists, main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rows")
    assert main(["--output", str(place), "--held", "50"]) == 0
    return place


@pytest.mark.parametrize("name", list(SKILLS))
def test_parts_share_no_question_and_repeat_themselves(name: str, folder: Path, tmp_path: Path) -> None:
    asked = {}
    for part in PARTS:
        examples = list(read(DataSource(path=str(folder / name / f"{part}.jsonl"))))
        asked[part] = {one.messages[0].content for one in examples if isinstance(one, Chat | Constrained)}
        assert len(examples) >= 50 and len(asked[part]) == len(examples)
    assert not asked["train"] & asked["test"] and not asked["train"] & asked["validation"]
    assert not asked["validation"] & asked["test"]
    main(["--output", str(tmp_path), "--held", "50"])
    for part in PARTS:
        assert (tmp_path / name / f"{part}.jsonl").read_bytes() == (folder / name / f"{part}.jsonl").read_bytes()


def test_the_answers_to_train_on_follow_their_own_constraints() -> None:
    import random

    rows = [group[0] for group in lists(random.Random(0))]
    assert len(rows) == len(KINDS) * 4 * 2 * 3 * 4
    for row in rows:
        (example,) = _constrained({"id": row["id"], "prompt": row["instruction"], "constraints": row["constraints"]})
        assert all(verdicts(example.constraints, row["output"]).strict), row


def _constrained(row: dict[str, object]) -> list[Constrained]:
    from mingshi.data.formats import read_rows

    return [one for one in read_rows([row], format="constrained") if isinstance(one, Constrained)]


def test_sums_are_right_and_fields_are_json(folder: Path) -> None:
    words = {in_words(number): number for number in range(100)}
    assert len(words) == 100 and words["twenty-one"] == 21 and words["forty"] == 40
    for line in (folder / "sums/test.jsonl").read_text().splitlines():
        assert orjson.loads(line)["output"] in words
    for line in (folder / "records/test.jsonl").read_text().splitlines():
        row = orjson.loads(line)
        told = orjson.loads(row["output"])
        assert all(str(value) in row["instruction"] for value in told.values())
        assert list(told) == ["name", "city", "item", "count"]
