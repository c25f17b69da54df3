"""Generation: which conversations are asked, with what prompt, and how the answers are scored."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from mingshi.errors import DataError
from mingshi.evals import generation as module
from mingshi.evals.generation import Generation, choose, question_of
from mingshi.model import generate as generate_module
from mingshi.model.generate import Generated
from mingshi.types import Chat, Message


def chat(number: int, *turns: tuple[str, str], plain: bool = False) -> Chat:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    name = f"row-{number}"
    return Chat(id=name, source="a.jsonl", line=number + 1, group=name, messages=messages, plain=plain)


def asked(number: int, answer: str = "blue") -> Chat:
    return chat(number, ("user", f"question {number}"), ("assistant", answer))


class Characters:
    """A token is a character's code point."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, tokens)).replace("\x00", "" if skip_special_tokens else "<end>")


class Lines:
    """A template of one line a turn, each closed with the stop token 0."""

    stop = (0,)

    def prompt(self, messages: Any, tools: Any = ()) -> list[int]:
        return [ord(letter) for message in messages for letter in f"{message.role}: {message.content}\x00"]


@pytest.fixture
def model() -> Any:
    return SimpleNamespace(tokenizer=Characters(), template=Lines(), context=200)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the model will write: `answer[prompt text]`, or "blue" and a stop."""
    written: dict[str, Generated] = {}

    def generate(model: Any, prompts: Any, **settings: Any) -> list[Generated]:
        written["settings"] = settings  # type: ignore[assignment]  # for the one test that looks
        default = Generated(tokens=tuple(map(ord, "blue")), finished=True)
        texts = [model.tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts]
        return [next((value for key, value in written.items() if key in text), default) for text in texts]

    monkeypatch.setattr(generate_module, "generate", generate)
    return written


def test_the_prompt_is_all_before_the_last_answer_which_is_the_reference(model: Any) -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    (case,) = choose(model, [chat(0, *turns)], limit=5)
    text = model.tokenizer.decode(case.prompt, skip_special_tokens=True)
    assert (text, case.reference) == ("system: suser: aassistant: buser: c", "d")


@pytest.mark.parametrize(
    "example",
    [
        chat(0, ("user", "a")),
        chat(0, ("assistant", "a")),
        chat(0, ("user", "a"), ("assistant", " \n")),
        chat(0, ("assistant", "a text"), plain=True),
    ],
)
def test_a_conversation_with_nothing_to_write_is_not_asked(model: Any, example: Chat) -> None:
    assert question_of(example) is None
    with pytest.raises(DataError, match="none of 1 conversations"):
        choose(model, [example], limit=5)


def test_the_choice_depends_on_ids_and_not_on_the_order_of_the_file(model: Any) -> None:
    rows = [asked(number) for number in range(50)]
    chosen = [case.id for case in choose(model, rows, limit=10)]
    random.Random(0).shuffle(rows)
    assert [case.id for case in choose(model, rows, limit=10)] == chosen
    assert chosen != [f"row-{number}" for number in range(10)]
    assert [case.id for case in choose(model, rows, limit=20)][:10] == chosen


def test_scores_have_values_intervals_and_items(model: Any, answer: Any) -> None:
    answer["question 3"] = Generated(tokens=(), finished=True)
    answer["question 5"] = Generated(tokens=tuple(map(ord, "la la la la la ")), finished=False)
    scores = Generation().run(model, [asked(number) for number in range(10)])
    values = {name: score.value for name, score in scores.scores.items()}
    assert values["exact_match"] == values["rouge1"] == values["rougeLsum"] == 0.8
    assert (values["empty"], values["unfinished"], values["no_room"]) == (0.1, 0.1, 0.0)
    assert values["rouge2"] == 0.0  # "blue" has no pair of words
    assert values["repetition"] == pytest.approx((1 - 1 / 3) / 10)  # "la la la" three times, of words
    assert all(score.count == 10 for score in scores.scores.values())
    assert scores.scores["exact_match"].low == pytest.approx(0.4901625)  # Wilson, 8 of 10
    assert sorted(scores.items["exact_match"]) == [0.0] * 2 + [1.0] * 8
    assert set(scores.items) == set(scores.scores)


def test_a_prompt_that_fills_the_context_is_counted(model: Any, answer: Any) -> None:
    answer["x" * 200] = Generated(tokens=(), finished=False)
    scores = Generation().run(model, [asked(0), chat(1, ("user", "x" * 200), ("assistant", "blue"))]).scores
    assert (scores["no_room"].value, scores["empty"].value, scores["exact_match"].value) == (0.5, 0.5, 0.5)


def test_the_first_samples_are_kept_for_people_with_their_scores(model: Any, answer: Any) -> None:
    scores = Generation(limit=30).run(model, [asked(number) for number in range(40)])
    assert len(scores.samples) == module.SHOWN and len(scores.items["empty"]) == 30
    first = scores.samples[0]
    assert first["prompt"].startswith("user: question") and first["prompt"].endswith("<end>")
    assert (first["prediction"], first["reference"], first["scores"]["exact_match"]) == ("blue", "blue", 1.0)


def test_only_the_metrics_that_were_asked_for_are_scored(model: Any, answer: Any) -> None:
    scores = Generation(metrics=("exact_match",)).run(model, [asked(0)]).scores
    assert "exact_match" in scores and "rouge1" not in scores


def test_settings_reach_the_decoder_and_the_signature(model: Any, answer: Any) -> None:
    settings = Generation(max_new_tokens=7, temperature=0.5)
    signature = settings.run(model, [asked(0)], seed=3).scores["rougeL"].signature
    assert {"max_new_tokens": 7, "temperature": 0.5, "seed": 3}.items() <= answer["settings"].items()
    assert "sampled:0.5:seed3|max_new:7" in signature and "tok:cjk-char" in signature
    greedy = Generation(max_new_tokens=7).run(model, [asked(0)], seed=3).scores["rougeL"].signature
    assert "greedy|max_new:7" in greedy and "seed" not in greedy


def test_other_references_or_prompts_give_another_signature(model: Any, answer: Any) -> None:
    one, other = (Generation().run(model, [asked(0, text)]).scores["empty"].signature for text in ("blue", "red"))
    assert one != other


WRONG = [
    {"limit": 0},
    {"limit": 20_000},
    {"temperature": -1},
    {"metrics": ["accuracy"]},
    {"metrics": ["bertscore"]},
    {"encoder": "bert-base-chinese"},
    {"tokens": 3},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Generation(**wrong)


def test_an_interval_of_a_single_item_is_absent(model: Any, answer: Any) -> None:
    assert math.isnan(Generation().run(model, [asked(0)]).scores["rougeL"].low)
