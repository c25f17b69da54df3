"""What becomes of a row: which tokens are predicted, and what is done with one that is too long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_tokenizer

from mingshi.data.template import make_template
from mingshi.errors import DataError
from mingshi.objectives import Sft
from mingshi.types import Chat, Message, Reject, Rendered, Sample


@pytest.fixture(scope="module")
def text() -> Any:
    return SimpleNamespace(template=make_template(tiny_tokenizer()))


def chat(*answers: str, plain: bool = False, train: bool | None = None) -> Chat:
    turns: list[Message] = []
    for answer in answers:
        turns += [] if plain else [Message(role="user", content="Why?")]
        turns.append(Message(role="assistant", content=answer, train=train))
    return Chat(id="a", source="rows.jsonl", line=7, group="a", messages=tuple(turns), plain=plain)


def sample(text: Any, row: Chat, **fields: Any) -> Sample:
    made = Sft(**fields).encode(row, text)
    assert isinstance(made, Sample)
    return made


def test_each_trained_token_is_predicted_from_the_one_before_it(text: Any) -> None:
    made = sample(text, chat("One.", "Two."))
    rendered = text.template.render(chat("One.", "Two.").messages)
    assert [rendered.tokens[place + 1] for place in made.source.tolist()] == made.target.tolist()
    assert len(made.target) == sum(weight > 0 for weight in rendered.weights)


def test_tokens_that_no_prediction_needs_are_not_read(text: Any) -> None:
    row = chat("One.", "Two.")
    made = sample(text, row)
    tokens = list(text.template.render(row.messages).tokens)
    assert made.tokens.tolist() == tokens[: made.source[-1] + 1] and tokens[len(made.tokens)] == made.target[-1]
    first, last = row.messages[:2], row.messages[2:]
    untrained = Message(role="assistant", content=last[1].content, train=False)
    shorter = sample(text, Chat(id="a", source="f", line=1, group="a", messages=(*first, last[0], untrained)))
    assert len(shorter.tokens) < len(made.tokens) and shorter.source[-1] + 1 == len(shorter.tokens)


def test_the_stop_token_of_every_trained_turn_is_trained(text: Any) -> None:
    stop = text.template.stop[0]
    assert sample(text, chat("One.", "Two.")).target.tolist().count(stop) == 2
    assert sample(text, chat("One.", "Two."), train_on="last").target.tolist().count(stop) == 1


def test_a_first_token_has_nothing_to_be_predicted_from() -> None:
    rendered = Rendered(tokens=(5, 6, 7), weights=(1.0, 1.0, 1.0), reasons=("content",) * 3)
    made = sample(SimpleNamespace(template=SimpleNamespace(plain=lambda words: rendered)), chat("words", plain=True))
    assert (made.source.tolist(), made.target.tolist()) == ([0, 1], [6, 7])


def test_a_row_that_is_too_long_is_dropped_and_says_why(text: Any) -> None:
    made = Sft(max_length=20).encode(chat("word " * 40), text)
    assert isinstance(made, Reject)
    assert (made.reason, made.source, made.line) == ("too_long", "rows.jsonl", 7) and "max_length 20" in made.detail


def test_a_truncated_answer_does_not_look_finished(text: Any) -> None:
    whole = sample(text, chat("word " * 40))
    made = sample(text, chat("word " * 40), max_length=30, too_long="truncate")
    assert made.tokens.tolist() == whole.tokens[:29].tolist() and made.target[-1] == whole.tokens[29]
    assert text.template.stop[0] in whole.target and text.template.stop[0] not in made.target


def test_a_truncation_that_leaves_nothing_to_train_is_a_reject(text: Any) -> None:
    made = Sft(max_length=5, too_long="truncate").encode(chat("word " * 40), text)
    assert isinstance(made, Reject) and made.reason == "no_trained_tokens"


def test_a_row_that_is_too_long_stops_the_run_where_that_was_asked_for(text: Any) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:7: \d+ tokens, over max_length 20"):
        Sft(max_length=20, too_long="error").encode(chat("word " * 40), text)
    assert isinstance(Sft(max_length=2048, too_long="error").encode(chat("fine"), text), Sample)
