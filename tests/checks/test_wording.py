"""Answers that something is wrong with are found, and ordinary ones are left alone."""

from __future__ import annotations

import pytest

from mingshi.checks import wording_rules
from mingshi.checks.rows import Row, Split
from mingshi.checks.wording import TOLD, Wording
from mingshi.types import Finding

ENGLISH = "The river rises in the hills to the north and reaches the sea after forty miles"
CHINESE = "这条河发源于北边的山里，流过四十多公里的平原，经过三座小城和许多村庄，最后在港口的南面流入大海"


def row(prompt: str, answer: str, line: int = 1, *, label: str | None = None, split: Split = "train") -> Row:
    return Row(
        split=split, source="a.jsonl", line=line, id=str(line), group="", prompt=prompt, answer=answer, label=label
    )


def findings(*rows: Row) -> dict[str, Finding]:
    check = Wording()
    for each in rows:
        check.add(each)
    return {finding.kind: finding for finding in check.findings()}


def test_ordinary_answers_have_no_findings() -> None:
    rows = [
        row("Where does the river rise?", f"{ENGLISH}."),
        row("这条河在哪里？", f"{CHINESE}。"),
        row("Name a colour", "Red"),
        row("", "A text to continue, without a prompt: it may be anything (really)."),
        row("a labelled text", "", label="good"),
    ]
    assert findings(*rows) == {}


def test_rows_without_text_are_found_and_production_is_not_looked_at() -> None:
    found = findings(
        row("Say it", " \n", 1), row("", "", 2, label="a"), row("x", "y", 3), row("Say it", "", 4, split="production")
    )
    assert found["empty"].message == "2 of 3 rows have no text"
    assert [place["line"] for place in found["empty"].rows] == [1, 2]
    assert found["empty"].severity == "error"


@pytest.mark.parametrize(
    "text",
    [
        "her fiancé".encode().decode("cp1252"),
        "it’s".encode().decode("cp1252"),
        "中文的文本".encode().decode("latin-1"),
        "привет, мир".encode().decode("latin-1"),
        "今天天气很好，我们去公园散步".encode().decode("gbk", "ignore"),
        "锟斤拷锟斤拷",
        "创造\ufffd\ufffd路易吉",
    ],
)
def test_wrong_encodings_are_found(text: str) -> None:
    assert wording_rules.mojibake(text)


@pytest.mark.parametrize(
    "text",
    [
        "Élan vital, naïve façade — “déjà vu”… «Où?» señor Ñandú, Übergröße, ÀÉÎÕÜ, ÅÄÖ, São João",
        "Привет, мир! Γειά σου, 世界。",
        "±5 µm, 20 °C, ×2, £3, ½, §4, ©2020 ® ™",
        "联通公司今天发布了新的套餐，欢迎大家前往营业厅办理。",
        "plain",
        "Â propos; LA FÊTE À PÂQUES",
    ],
)
def test_letters_of_other_languages_are_no_wrong_encodings(text: str) -> None:
    assert not wording_rules.mojibake(text)


def test_cut_answers_are_known_by_the_others() -> None:
    whole = [row("Where?", f"{ENGLISH}, number {line}.", line) for line in range(98)]
    cut = [row("Where?", ENGLISH, 200), row("Where?", ENGLISH[:60], 201)]
    found = findings(*whole, *cut)
    assert found["cut"].count == 2 and [place["line"] for place in found["cut"].rows] == [200, 201]
    assert "cut" not in findings(*whole[:60], *cut * 10)  # many have none: it is their way
    assert "cut" not in findings(*whole[:20], cut[0])  # too few to know


def test_each_script_has_its_own_way_to_end() -> None:
    chinese = [row("哪里？", f"{CHINESE}{line}。", line) for line in range(60)]
    english = [row("Where?", ENGLISH, 100 + line) for line in range(60)]
    found = findings(*chinese, *english, row("哪里？", CHINESE, 300))
    assert [place["line"] for place in found["cut"].rows] == [300]


@pytest.mark.parametrize(
    "answer",
    [
        "Red",
        f"{ENGLISH}:\n- the first of the many things\n- the second of the many things",
        f"{ENGLISH}.\n\nBest regards,\nAnn",
        f"```python\n{ENGLISH}\n```",
        f"{ENGLISH} https://a.example/b",
        f'"{ENGLISH}"',
    ],
)
def test_no_final_sign_is_asked_of_lists_code_titles_and_signatures(answer: str) -> None:
    assert wording_rules.ends(answer) is None


@pytest.mark.parametrize("end", [".", "!", "。", "？”", '."', "**.**", "…", " 😀", "⭐⭐", ".)"])
def test_final_signs(end: str) -> None:
    assert wording_rules.ends(ENGLISH + end)


def test_another_script_than_the_prompt_is_found_unless_it_is_asked_for() -> None:
    found = findings(
        row("请介绍一下这条河流的历史", f"{ENGLISH}, and it has always done so.", 1),
        row("Where does this river rise, and where does it end?", f"{CHINESE}。", 2),
        row("请把这句话翻译出来", f"{ENGLISH}.", 3),
        row("How do I say this in Chinese?", f"{CHINESE}。", 4),
        row("请介绍一下这条河流", f"{CHINESE}，又叫 River Wey。", 5),
        row("请介绍一下这条河流", "OK", 6),
        row("この川について教えてください", f"{CHINESE}。", 7),
    )
    assert [place["line"] for place in found["language"].rows] == [1, 2, 7]


def test_a_set_in_which_the_languages_differ_by_design_has_a_note() -> None:
    found = findings(*(row("请继续写下去吧", f"{ENGLISH}, {line}.", line) for line in range(60)))
    assert found["language"].severity == "note" and "meant" in found["language"].message


def test_an_answer_that_repeats_its_prompt_is_found() -> None:
    prompt = "Please write about the river that rises in the hills"
    found = findings(row(prompt, f"{prompt.upper()}! It is long.", 1), row("Say hello", "Say hello to her", 2))
    assert [place["line"] for place in found["copied"].rows] == [1]


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot provide this.",
        "As an AI language model, I do not have access to the internet.",
        "Unfortunately, I am unable to open files.",
        "I cannot assist with that request.",
        "很抱歉，我无法回答这个问题。",
        "作为一个人工智能助手，我没有个人的感受。",
        "对不起，作为AI语言模型，我不能提供医疗建议。",
    ],
)
def test_refusals_are_found(answer: str) -> None:
    assert wording_rules.refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI assistant, I'd be happy to help you plan it.",
        "I can't wait to see you!",
        "Sorry to hear that you are ill.",
        "作为人工智能助手，让我为您介绍几道菜。",
        "很抱歉给您带来不便，我们马上处理。",
        "He said that he was sorry, but that he could not come.",
        "The bank cannot help.",
    ],
)
def test_other_answers_are_no_refusals(answer: str) -> None:
    assert not wording_rules.refuses(answer)


def test_loops_are_found_and_long_texts_are_not() -> None:
    assert wording_rules.repeats("I am sure of it. " * 15)
    assert wording_rules.repeats("非常好吃，" * 15)
    assert not wording_rules.repeats(f"{ENGLISH}. {CHINESE}。 " * 1)
    assert not wording_rules.repeats("very very good")
    table = " ".join(f"row {number} has {number * 7} of {number * 3}," for number in range(100))
    assert not wording_rules.repeats(table)


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("broken_json", '{"a": 1, "b": [2, 3}', '{"a": 1, "b": [2, 3]}'),
        ("broken_json", 'So:\n```json\n{"a": 1,}\n```', 'So:\n```json\n{"a": 1}\n```'),
        ("broken_json", '["a", "b"', "[a] is the first, {b} the second"),
        ("open_fence", "Code:\n```python\nprint(1)\n", "Code:\n```python\nprint(1)\n```\n"),
        ("open_bracket", "the river (which rises in the hills", "the river (which rises)"),
        ("open_bracket", "他说：“这条河很长", "他说：“这条河很长”（真的)"),
        ("open_bracket", "a [list", "sad :( 1) first b) second, in [0, 1) and '(' or ```f(```"),
    ],
)
def test_what_is_opened_is_closed(kind: str, wrong: str, right: str) -> None:
    assert wording_rules.ALONE[kind](wrong)
    assert not wording_rules.ALONE[kind](right)


def test_severity_goes_by_the_share_and_rows_are_bounded() -> None:
    few = [row("Who?", f"{ENGLISH}, {line}.", line) for line in range(300)]
    refused = row("Who?", "I'm sorry, but I cannot say.", 999)
    assert findings(*few, refused)["refusal"].severity == "note"
    many = findings(*few, *[refused] * 200)["refusal"]
    assert (many.severity, many.count, len(many.rows)) == ("warning", 200, 200)
    assert many.evidence["share"] == 0.4 and many.evidence["examples"][0]["text"] == refused.answer


def test_every_rule_can_be_told() -> None:
    assert set(wording_rules.ALONE) < set(TOLD)
