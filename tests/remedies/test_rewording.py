"""Rewording by a model, here a table of answers: what it is asked, and which answers become rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mingshi.remedies.augment import augmented
from mingshi.remedies.rewording import Ask, back_translation, fault, paraphrase
from mingshi.types import Labelled

ENGLISH, CHINESE = "The soup was cold and the waiter rude.", "汤是凉的，服务员也很没有礼貌。"


def answering(answers: Mapping[str, str | None], asked: list[str]) -> Ask:
    """The answer whose key is in the prompt."""

    def ask(prompts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        assert len(prompts) == len(seeds) == len(set(map(tuple, seeds)))
        asked.extend(prompts)
        return [next(answer for key, answer in answers.items() if key in prompt) for prompt in prompts]

    return ask


def test_each_text_is_asked_for_in_its_language() -> None:
    asked: list[str] = []
    method = paraphrase(
        answering({ENGLISH: ' "A cold soup, an impolite waiter." ', CHINESE: "“菜凉了，而且态度差。”"}, asked)
    )
    assert method.rewrite([ENGLISH, CHINESE], [(1,), (2,)]) == [
        "A cold soup, an impolite waiter.",
        "菜凉了，而且态度差。",
    ]
    assert asked[0].startswith("Say the following") and asked[1].startswith("用不同的说法")


def test_a_text_goes_through_the_other_language_and_back() -> None:
    asked: list[str] = []
    answers = {
        CHINESE: "A cold soup.",
        ENGLISH: "凉了的汤。",
        "A cold soup.": "一碗凉汤。",
        "凉了的汤。": "Soup, gone cold.",
    }
    method = back_translation(answering(answers | {"lost": None}, asked))
    found = method.rewrite([ENGLISH, "lost", CHINESE], [(1,), (2,), (3,)])
    assert found == ["Soup, gone cold.", None, "一碗凉汤。"]
    assert [prompt.startswith("把下面的文本翻译成英文") for prompt in asked] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (ENGLISH, "Neither the temperature of the soup nor our waiter pleased us.", ""),
        (ENGLISH, "the soup was cold, and the waiter RUDE", "near"),
        (ENGLISH, "The soup was cold and the waiters rude!", "near"),
        (ENGLISH, "Bad.", "length"),
        (ENGLISH, CHINESE, "language"),
        (CHINESE, ENGLISH, "language"),
        (CHINESE, "服务态度差，汤也早就凉透了。", ""),
        (CHINESE, CHINESE * 4, "length"),
    ],
)
def test_what_is_wrong_with_an_outcome(old: str, new: str, wrong: str) -> None:
    assert fault(old, new) == wrong


def test_only_answers_that_say_something_else_become_rows() -> None:
    answers = {
        "Number one": "The first of them arrived late on a rainy evening in March.",
        "Number two": None,
        "Number three": "Number three came home in the morning, before the others.",
        "Number four": "  ",
    }
    texts = [f"{name} came home in the morning, before the others." for name in answers]
    examples = [
        Labelled(id=text, source="s", line=line, group=text, content=text, label="x")
        for line, text in enumerate(texts, start=1)
    ]
    method = paraphrase(answering(answers, []))
    made, record = augmented(examples, {"paraphrase": method}, {("", "x"): 4}, most=1)
    assert [(one.origin, one.example.content) for one in made] == [(0, answers["Number one"])]
    assert record.dropped.keys() == {"paraphrase.same", "paraphrase.unable"} and record.lacking == {("", "x"): 3}
