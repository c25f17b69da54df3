"""Texts that say the same in other words are found across a split, and chance is not taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from mingshi.checks import semantic
from mingshi.checks.rows import Row, Split
from mingshi.checks.semantic import Semantic, chances, nearest

from .topics import texts


class Bag:
    """An encoder of a kind: the sum of its words' vectors, whatever their order."""

    name = "bag"

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def add(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def values(self) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(2000, 64))
        sums = np.array([sum(vectors[int(word[1:])] for word in text.split()) for text in self._texts])
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float16)


class Given:
    """States that are known: a text is the number of its row."""

    name = "given"

    def __init__(self, values: np.ndarray):
        self._values = values / np.linalg.norm(values, axis=1, keepdims=True)

    def add(self, text: str) -> int:
        return int(text)

    def values(self) -> np.ndarray:
        return self._values.astype(np.float16)


def row(split: Split, line: int, text: str) -> Row:
    return Row(split=split, source=f"{split}.jsonl", line=line, id=str(line), group="", prompt=text, answer="")


def test_nearest_is_the_largest_cosine_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    one, other = (generator.normal(size=(count, 8)) for count in (23, 57))
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    monkeypatch.setattr(semantic, "ROWS", 5)
    monkeypatch.setattr(semantic, "COLUMNS", 7)
    cosines = one @ other.T
    found, which = nearest(one, other)
    assert found == pytest.approx(cosines.max(axis=1), abs=1e-6) and (which == cosines.argmax(axis=1)).all()
    own = one @ one.T - 2 * np.eye(23)
    found, which = nearest(one, None)
    assert found == pytest.approx(own.max(axis=1), abs=1e-6) and (which == own.argmax(axis=1)).all()


@pytest.mark.parametrize("others", [400, 4000])
def test_a_chance_is_one_however_many_texts_are_on_the_other_side(others: int) -> None:
    """Points of six dimensions on a sphere of forty: of chances below 5 % there are about 5 %."""
    generator = np.random.default_rng(0)
    basis = generator.normal(size=(6, 40))
    held, other = (generator.normal(size=(count, 6)) @ basis for count in (400, others))
    held, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (held, other))
    chance = chances(1 - nearest(held, other)[0], 1 - nearest(held, None)[0], others=others)
    assert 0.01 <= (chance < 0.05).mean() <= 0.12
    assert 0.35 <= (chance < 0.5).mean() <= 0.65


def test_neighbours_that_chance_explains_are_not_told() -> None:
    check = Semantic(Given(np.random.default_rng(1).normal(size=(900, 12))))  # type: ignore[arg-type]
    for place in range(900):
        check.add(row("train" if place < 700 else "test", place + 1, str(place)))
    assert sum(finding.count for finding in check.findings()) <= 3


def test_planted_paraphrases_are_found_and_shown_side_by_side() -> None:
    """The same words in another order, and one of them another: no n-gram of the letters stays long."""
    generator = np.random.default_rng(0)
    train, test = texts(300, generator), texts(100, generator)
    said = {}
    for line in range(10):
        words = generator.permutation(test[line].split()).tolist()
        words[0] = "w1999"
        train[7 * line] = " ".join(words)
        said[line + 1] = 7 * line + 1
    train[299] = test[99]
    check = Semantic(Bag())  # type: ignore[arg-type]
    rows = [row("train", line, text) for line, text in enumerate(train, start=1)]
    rows += [row("test", line, text) for line, text in enumerate(test, start=1)]
    for each in (*rows, row("production", 1, test[0]), row("test", 101, " ")):
        check.add(each)
    for each in rows:
        check.again(each)
    (found,) = check.findings()
    assert (found.check, found.kind, found.severity) == ("semantic", "near", "note")
    pairs = {each["line"]: each["with"]["line"] for each in found.rows}
    assert sum(pairs.get(line) == other for line, other in said.items()) >= 9
    assert len(pairs) <= 14 and 100 not in pairs  # equal texts are told elsewhere
    shown = found.evidence["pairs"][0]
    assert shown["second"]["text"].startswith(test[shown["second"]["line"] - 1][:40])
    assert shown["first"]["text"].startswith(train[shown["first"]["line"] - 1][:40])
    assert [each["chance"] for each in found.rows] == sorted(each["chance"] for each in found.rows)


def test_few_held_out_texts_say_nothing() -> None:
    check = Semantic(Given(np.ones((60, 3))))  # type: ignore[arg-type]
    for place in range(60):
        check.add(row("train" if place < 30 else "test", place + 1, str(place)))
    assert check.findings() == []
