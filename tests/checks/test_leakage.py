"""Leaks that were planted are found, and texts that only look alike are not."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence

import orjson
import pytest

from mingshi.checks.leakage import Leakage, LeakageSettings
from mingshi.checks.rows import Row
from mingshi.checks.shingles import words_of
from mingshi.data.similarity import edit_distance
from mingshi.errors import DataError
from mingshi.types import Finding

from .planted import Language, row

TEMPLATES = {
    "zh": "请先仔细阅读下面给出的材料，再用一段话回答后面的问题，并且说明你的理由和依据：",
    "en": "Read the passage that follows with care, then answer the question at its end and say why you think so: ",
}
DAMAGES = ("equal", "normalised", "near", "contained")


def findings(rows: Sequence[Row], settings: LeakageSettings | None = None) -> list[Finding]:
    check = Leakage(settings)
    for each in rows:
        check.add(each)
    if check.needs_again:
        for each in rows:
            check.again(each)
    return check.findings()


def planted(name: str, count: int) -> tuple[list[Row], dict[int, tuple[int, str]]]:
    """Training and test rows, half of them after one template; and for each planted training row its source's line."""
    language = Language(name, 1)
    damage = (str, language.dressed, language.edited, language.embedded)
    template = TEMPLATES[name]
    test = [language.text(language.random.randint(60, 260)) for _ in range(count // 2)]
    train = [language.text(language.random.randint(60, 260)) for _ in range(count - count // 2)]
    train += [template + language.text(40) for _ in range(count // 2)]
    truth = {}
    for place, text in enumerate(test):
        if place % 5 < 4:
            train.append(damage[place % 5](text))
            truth[len(train)] = (place + 1, DAMAGES[place % 5])
    test += [template + language.text(40) for _ in range(count // 2)]
    rows = [row(text, line) for line, text in enumerate(train, start=1)]
    return rows + [row(text, line, "test") for line, text in enumerate(test, start=1)], truth


def recall_and_precision(name: str, count: int) -> tuple[dict[str, float], float]:
    rows, truth = planted(name, count)
    told = Counter[str]()
    right = wrong = 0
    for found in findings(rows):
        for each in found.rows:
            line, kind = truth.get(each["line"], (0, ""))
            if each["source"] == "train.jsonl" and each["with"] == {"source": "test.jsonl", "line": line}:
                right += 1
                told[kind] += 1
            else:
                wrong += 1
    sown = Counter(kind for _, kind in truth.values())
    return {kind: told[kind] / sown[kind] for kind in DAMAGES}, right / (right + wrong)


@pytest.mark.parametrize("name", ["zh", "en"])
def test_planted_leaks_are_found(name: str) -> None:
    recall, precision = recall_and_precision(name, 300)
    assert recall["equal"] == recall["normalised"] == 1
    assert recall["near"] >= 0.96 and recall["contained"] >= 0.96  # one of 30 may be missed
    assert precision >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zh", "en"])
def test_planted_leaks_among_five_thousand_rows_are_found(name: str) -> None:
    recall, precision = recall_and_precision(name, 5000)
    assert recall["equal"] == recall["normalised"] == 1
    assert recall["near"] >= 0.99 and recall["contained"] >= 0.98
    assert precision >= 0.99


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_a_minute_and_two_gigabytes() -> None:
    """200 characters each, half of them Chinese; processor time, without that of making them."""
    languages = [Language("zh", 1), Language("en", 2)]
    check, seconds = Leakage(), 0.0
    for reading in (check.add, check.again):
        for language in languages:
            language.random.seed(5)
        for place in range(100_000):
            made = row(languages[place % 2].text(200)[:200], place, "train" if place < 95_000 else "test")
            before = time.process_time()
            reading(made)
            seconds += time.process_time() - before
    assert check.findings() == []
    assert seconds < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 << 20  # KiB


@pytest.mark.parametrize("name", ["zh", "en"])
def test_templates_make_no_leak(name: str) -> None:
    """Many rows after one of four templates, before it, or around it: their contents differ."""
    language = Language(name, 4)
    ends = {"zh": "。请只用中文回答，不要解释，也不要重复题目。", "en": " Answer in English only, do not explain."}[
        name
    ]
    templates = [language.text(120) for _ in range(4)]
    contents = [language.text(100) for _ in range(200)]
    texts = [templates[place % 4] + language.space + text + ends for place, text in enumerate(contents)]
    rows = [row(text, line, "test" if line % 5 == 0 else "train") for line, text in enumerate(texts, start=1)]
    rows.sort(key=lambda each: each.split != "train")
    assert findings(rows) == []
    copy = row(templates[0] + language.space + language.edited(contents[0]) + ends, 500)
    (found,) = findings([copy, *rows])
    assert (found.kind, found.count, found.evidence["from"]) == ("near", 1, "train")


def test_a_template_of_few_rows_among_many_is_one_too() -> None:
    """Forty of 2,600 rows: each of its pieces is rare, but not as a phrase."""
    language = Language("zh", 14)
    template = language.text(150)
    rows = [row(language.text(22), line) for line in range(2560)]
    rows += [row(template + language.text(50), line) for line in range(3000, 3040)]
    assert findings(rows) == []


def test_severity_rows_and_remedy_say_what_to_do() -> None:
    rows = [
        row("同一个问题出现在训练集里，也出现在测试集里。", 1),
        row("另外一个问题只和验证集的问题相同，请你回答。", 2),
        row("没有任何问题的一行，与其他的行都不相同。", 3),
        row("另外一个问题，只和验证集的问题相同——请你回答！", 1, "validation"),
        row("同一个问题出现在训练集里，也出现在测试集里。", 1, "test"),
    ]
    test, validation = findings(rows)
    assert (test.check, test.kind, test.severity, test.count) == ("leakage", "equal", "error", 1)
    assert test.message == "1 of 1 rows of test (100.0%) are in train, in 1 rows: the same text"
    assert test.remedy == "Drop these rows from the training file, not from the test file."
    assert test.rows == [
        {"source": "train.jsonl", "line": 1, "with": {"source": "test.jsonl", "line": 1}, "cluster": 1}
    ]
    assert (validation.kind, validation.severity) == ("normalised", "warning")
    assert validation.rows[0]["line"] == 2 and validation.rows[0]["cluster"] == 2
    assert validation.evidence["held_out"] == 1 and validation.evidence["of"] == 3
    orjson.dumps([test.evidence, validation.rows])


def test_without_the_listed_rows_nothing_is_found() -> None:
    """One of each cluster stays, whatever its damage, and what was told is enough."""
    language = Language("zh", 6)
    texts = [language.text(80) for _ in range(40)]
    damages = (str, language.dressed, lambda text: language.edited(text, every=60), language.embedded)
    rows = []
    for line in range(1, 201):
        split = "train" if line <= 120 else "validation" if line <= 150 else "test"
        rows.append(row(language.random.choice(damages)(language.random.choice(texts)), line, split))
    found = findings(rows)
    dropped = {(each["source"], each["line"]) for finding in found for each in finding.rows}
    left = [each for each in rows if (each.source, each.line) not in dropped]
    assert {finding.kind for finding in found} >= {"equal", "normalised", "near", "contained"}
    assert [(each.kind, each.message) for each in findings(left)] == []
    assert sum(each.split == "test" for each in left) >= 20


def test_pairs_are_shown_with_what_they_share() -> None:
    language = Language("en", 7)
    question = language.text(120)
    asked = language.text(500)
    rows = [
        row(language.edited(question), 1),
        row(language.embedded(asked[:150]), 2),
        row(question, 1, "test"),
        row(asked[:150], 2, "test"),
    ]
    near, contained = findings(rows)
    (pair,) = near.evidence["pairs"]
    assert 0.45 <= pair["similarity"] < 1
    for (start, end), (begin, stop) in zip(pair["first"]["spans"], pair["second"]["spans"], strict=True):
        assert pair["first"]["text"][start:end].lower() == pair["second"]["text"][begin:stop].lower()
    (pair,) = contained.evidence["pairs"]
    assert len(pair["first"]["text"]) == 300 and pair["second"]["text"] == asked[:150]
    assert pair["share"] == 1 and abs(pair["longest"] - len(words_of(asked[:150]).hashes)) <= 1
    start, end = max(pair["first"]["spans"], key=lambda span: span[1] - span[0])
    assert asked[:150].startswith(pair["first"]["text"][start:end])


def test_numbers_keep_their_signs() -> None:
    rows = [row("请计算 3.5 + 2 的结果，并且写出过程", 1), row("请计算 1,000 - 1 的结果，并写出全部过程", 2)]
    other = [
        row("请计算 35 + 2 的结果，并且写出过程", 1, "test"),
        row("请计算１０００-１的结果，并写出全部过程", 2, "test"),
    ]
    (found,) = findings([*rows, *other])
    assert (found.kind, [each["line"] for each in found.rows]) == ("normalised", [2])


def test_short_texts_leak_if_one_edit_apart() -> None:
    """Against the distance of every pair. Other digits are another question."""
    language = Language("zh", 8)
    texts = [language.text(8)[:15] for _ in range(60)]
    texts = [text for text in texts if 10 <= len(words_of(text).hashes) < 18]
    rows = [row(text, line) for line, text in enumerate(texts, start=1)]
    copies = [language.edited(text, every=len(text)) for text in texts]
    rows += [row(text, line, "test") for line, text in enumerate(copies, start=1)]
    found = {finding.kind: finding for finding in findings(rows)}
    assert found["short"].severity == "warning" and len(texts) > 20
    told = {each["line"] for finding in found.values() for each in finding.rows}  # some are held whole by the other
    bare = [["".join(c for c in text if c not in "，。？！") for text in each] for each in (texts, copies)]
    expected = {
        line
        for line, (text, copy) in enumerate(zip(*bare, strict=True), start=1)
        if edit_distance(text, copy) == 1 and len(copy) >= 10
    }
    assert told == expected
    assert findings([row("第12题的答案是什么呢", 1), row("第13题的答案是什么呢", 1, "test")]) == []


def test_one_prompt_with_two_answers_is_a_leak_across_and_none_inside() -> None:
    question, answers = "月亮为什么会发光？请解释给孩子听。", ["因为它反射太阳光。" * 3, "月亮自己并不发光，" * 3]
    rows = [row(question, line, answer=answers[line - 1]) for line in (1, 2)]
    held = row(question + "？", 1, "test", answer="请看天空中的那个圆圆的东西，它像一面镜子。")
    assert findings(rows) == []
    (found,) = findings([*rows, held])
    assert (found.kind, found.severity, found.count) == ("prompt", "error", 2)
    language = Language("zh", 15)
    template = [row("写一首诗", line, "test", answer=language.text(60)) for line in range(30)]
    assert findings([row("写一首诗", 1, answer=language.text(60)), *template]) == []


def test_a_group_on_both_sides_is_a_leak() -> None:
    language = Language("en", 9)

    def grouped(group: str, line: int, split: str = "train") -> Row:
        made = row(language.text(60), line, split)  # type: ignore[arg-type]
        return Row(split=made.split, source=made.source, line=line, id="", group=group, prompt=made.prompt, answer="")

    (found,) = findings([grouped("ann", 1), grouped("bob", 2), grouped("ann", 1, "test"), grouped("cai", 2, "test")])
    assert (found.kind, found.severity, [each["line"] for each in found.rows]) == ("group", "error", [1])


def test_texts_with_different_labels_are_no_copies() -> None:
    """Which of the two is wrong is another check's business; across splits the text is known all the same."""
    rows = [row("这家酒店非常好，下次还会再来", line, label=label) for line, label in ((1, "好"), (2, "坏"), (3, "好"))]
    (found,) = findings(rows)
    assert [each["line"] for each in found.rows] == [3] and found.rows[0]["with"]["line"] == 1
    (across, _) = findings([*rows, row("这家酒店非常好，下次还会再来", 1, "test", label="坏")])
    assert across.count == 3


def test_rules_of_containment() -> None:
    """Twelve words of a question of thirty: neither half of the runs of eight, nor a run of thirteen."""
    language = Language("en", 10)
    words = language.text(400).split()[:30]

    def kinds(count: int, rule: str) -> list[str]:
        document = f"{language.text(200)} {' '.join(words[:count])} {language.text(200)}"
        rows = [row(document, 1), row(" ".join(words), 1, "test")]
        settings = LeakageSettings(containment=rule, near=1)  # type: ignore[arg-type]
        return [found.kind for found in findings(rows, settings)]

    assert kinds(12, "8-grams") == kinds(12, "13-gram") == []
    assert kinds(14, "8-grams") == [] and kinds(14, "13-gram") == ["contained"]
    assert kinds(22, "8-grams") == kinds(22, "13-gram") == ["contained"]


def test_a_question_in_very_many_rows_is_still_a_leak() -> None:
    """What many rows share is a template, unless it is all that is asked."""
    language = Language("en", 11)
    question = language.text(100)
    rows = [row(f"{language.text(80)} {question} {language.text(80)}", line) for line in range(60)]
    (found,) = findings([*rows, row(question, 1, "test"), row(language.text(100), 2, "test")])
    assert (found.kind, found.count, found.evidence["held_out"]) == ("contained", 60, 1)


def test_long_texts_are_compared_whole_on_the_second_reading() -> None:
    language = Language("zh", 12)
    text = language.text(3000)
    half = text[:1500] + language.text(1500)
    rows = [row(text, 1), row(half, 2), row(language.edited(text), 1, "test")]
    check = Leakage()
    for each in rows:
        check.add(each)
    assert len(check._sketches.pieces) <= 3 * 256
    for each in rows:
        check.again(each)
    found = {found.kind: [each["line"] for each in found.rows] for found in check.findings()}
    assert found["near"] == [1] and found.keys() <= {"near", "contained"}  # the second row has half of the text


def test_production_rows_and_empty_ones_are_passed_over() -> None:
    language = Language("zh", 13)
    text = language.text(60)
    rows = [row(text, 1), row("", 2), row("", 1, "test"), row(text, 1, "production")]
    assert findings(rows) == []
    assert findings([]) == []
    assert [found.kind for found in findings([row("！！！", 1), row("！！！", 1, "test")])] == ["equal"]


def test_one_reading_finds_what_needs_no_other() -> None:
    rows, _ = planted("zh", 60)
    check = Leakage()
    for each in rows:
        check.add(each)
    told = check.findings()
    assert [found.kind for found in told] == ["equal", "normalised", "near"]
    assert all(found.evidence["pairs"] == [] and found.rows for found in told)


def test_rows_that_changed_between_the_readings_are_refused() -> None:
    check = Leakage()
    check.add(row("一行文字", 1))
    with pytest.raises(DataError, match=r"train\.jsonl:1: changed between two readings"):
        check.again(row("另一行文字", 1))
