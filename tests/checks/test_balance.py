"""Counts and lengths of small sets that can be counted by hand, and what is told of them."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import orjson
import pytest

from mingshi.checks.balance import (
    Balance,
    are_numbers,
    effective_classes,
    histogram,
    language,
    lengths,
    scripts,
)
from mingshi.checks.rows import Row, Split, row_of
from mingshi.types import Chat, Choices, Finding, Message, Preference


def row(text: str, label: str | None = None, line: int = 1, *, split: Split = "train", answer: str = "") -> Row:
    return Row(
        split=split, source=f"{split}.jsonl", line=line, id=str(line), group="", prompt=text, answer=answer, label=label
    )


def findings(*rows: Row) -> dict[str, Finding]:
    check = Balance()
    for each in rows:
        check.add(each)
    told = check.findings()
    orjson.dumps([asdict(finding) for finding in told])  # findings can be written as JSON
    found = {finding.kind: finding for finding in told}
    assert all(finding.check == "balance" for finding in found.values())
    return found


def rows(counts: dict[str, int], *, split: Split = "train") -> list[Row]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [row("twelve chars", label, line, split=split) for line, label in enumerate(labels, start=1)]


def test_turns_are_messages_without_the_systems() -> None:
    place = {"id": "1", "source": "s", "line": 1, "group": ""}
    asked = (Message(role="system", content="s"), Message(role="user", content="q"))
    answer = (Message(role="assistant", content="a"),)
    chat = Chat(**place, messages=asked + answer + asked[1:] + answer)  # type: ignore[arg-type]
    pair = Preference(**place, prompt=asked, chosen=answer, rejected=answer)  # type: ignore[arg-type]
    choice = Choices(**place, prompt=asked, choices=("a", "b"), answer=0)  # type: ignore[arg-type]
    assert [row_of(each, "train").turns for each in (chat, pair, choice)] == [4, 2, 2]
    check = Balance()
    for each in (chat, pair, choice):
        check.add(row_of(each, "train"))
    (summary,) = check.findings()
    assert summary.evidence["splits"]["train"]["turns"] == {"2": 2, "4": 1}


def test_no_rows_have_no_findings() -> None:
    assert Balance().findings() == []


def test_balanced_classes_are_only_counted() -> None:
    found = findings(*rows({"good": 30, "bad": 20}))
    assert found.keys() == {"summary"}
    tables = found["summary"].evidence["splits"]["train"]
    assert tables["rows"] == 50 and tables["classes"] == {"good": 30, "bad": 20}
    assert tables["imbalance"] == 1.5
    assert tables["effective_classes"] == pytest.approx(math.exp(-(0.6 * math.log(0.6) + 0.4 * math.log(0.4))))
    assert tables["sources"] == {"train.jsonl": 50} and tables["languages"] == {"Latin": 50}
    assert tables["characters"]["prompt"]["50"] == 12 and tables["characters"]["answer"] == {}
    assert tables["turns"] == {"1": 50}


def test_a_class_of_nine_rows_is_few_and_one_of_ten_is_not() -> None:
    assert "few" not in findings(*rows({"a": 50, "b": 10}))
    found = findings(*rows({"a": 50, "b": 9}))["few"]
    assert found.severity == "warning" and found.count == 1 and found.evidence["classes"] == {"b": 9}
    assert "b (9)" in found.message


def test_a_class_above_nine_tenths_dominates() -> None:
    assert "dominant" not in findings(*rows({"a": 90, "b": 10}))
    found = findings(*rows({"a": 91, "b": 9}))["dominant"]
    assert found.evidence["label"] == "a" and found.evidence["share"] == pytest.approx(0.91)
    assert "91.0%" in found.message


def test_a_single_class_is_an_error() -> None:
    found = findings(*rows({"a": 40}))
    assert found["one_class"].severity == "error" and "dominant" not in found


def test_classes_that_were_never_taught_are_an_error() -> None:
    found = findings(*rows({"a": 40, "b": 40}), *rows({"a": 3, "B": 2}, split="test"))["unknown_class"]
    assert found.count == 2 and found.evidence == {"split": "test", "classes": {"B": 2}}


def test_few_rows_of_a_class_matter_in_train_alone() -> None:
    assert findings(*rows({"a": 40, "b": 40}), *rows({"a": 3, "b": 2}, split="test")).keys() == {"summary"}


def test_numbers_are_no_classes() -> None:
    labels = [f"{value / 10}" for value in range(60)]
    found = findings(*(row("text", label, line) for line, label in enumerate(labels)))
    assert found.keys() == {"summary"}
    tables = found["summary"].evidence["splits"]["train"]
    assert "classes" not in tables and tables["numbers"]["50"] == pytest.approx(2.95)
    assert not are_numbers([str(value) for value in range(77)])  # names of classes that look like numbers
    assert not are_numbers(["1.0", "2.0", "3.0"])  # so few are classes too
    assert are_numbers([f"{value}e-05" for value in range(30)])


def test_rows_twenty_times_as_long_as_the_median_are_named() -> None:
    usual = [row("x" * 50, line=line) for line in range(1, 100)]
    assert "long" not in findings(*usual, row("x" * 1000, line=100))
    found = findings(*usual, row("x" * 700, line=100, answer="y" * 400))["long"]
    assert found.severity == "note" and found.count == 1
    assert found.rows == [{"source": "train.jsonl", "line": 100, "characters": 1101}]
    several = findings(*usual, *(row("x" * (2000 + line), line=line) for line in range(100, 140)))["long"]
    assert several.severity == "warning" and several.count == 40
    assert [each["line"] for each in several.rows] == list(range(139, 119, -1))


def test_short_texts_are_never_too_long() -> None:
    assert "long" not in findings(*(row("x", line=line) for line in range(50)), row("x" * 200, line=51))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain words", "Latin"),
        ("déjà vu ô naïve", "Latin"),
        ("今天天气很好", "Chinese"),
        ("用 API 调用", "Chinese"),
        ("日本語を話します", "Japanese"),
        ("한국어 문장", "Hangul"),
        ("русский текст", "Cyrillic"),
        ("123 !?", "none"),
        ("", "none"),
    ],
)
def test_languages_are_told_by_script(text: str, told: str) -> None:
    assert language(scripts(text)) == told


def test_letters_of_each_script_are_counted() -> None:
    assert scripts("用 API 调用。") == {"Latin": 3, "Chinese": 3}
    assert scripts("a1b2") == {"Latin": 2}


def test_the_effective_number_of_equal_classes_is_their_number() -> None:
    assert effective_classes([7] * 5) == pytest.approx(5)
    assert effective_classes([100, 0]) == pytest.approx(1)
    assert effective_classes([]) == 0


def test_quantiles_are_numpys() -> None:
    drawn = np.random.default_rng(0).integers(0, 500, 101).tolist()
    told = lengths(drawn)
    assert told["95"] == pytest.approx(np.quantile(drawn, 0.95)) and told["mean"] == pytest.approx(np.mean(drawn))
    assert lengths([]) == {}


def test_a_histogram_counts_every_row_once_at_or_above_its_edge() -> None:
    drawn = np.random.default_rng(0).integers(1, 3000, 400).tolist()
    told = histogram(drawn)
    assert sum(count for _, count in told) == 400
    edges = [edge for edge, _ in told] + [10**9]
    for place, (edge, count) in enumerate(told):
        assert sum(edge <= length < edges[place + 1] for length in drawn) == count
    assert histogram([]) == []
