"""Answers sampled from a tiny model, and the numbers that metrics and judges give them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from tiny import ROWS, tiny_model

from mingshi.data.formats import DataSource, read, read_rows
from mingshi.display import Silent
from mingshi.errors import DataError, RecipeError
from mingshi.evals import rouge
from mingshi.model.load import Model, load
from mingshi.types import Example, Message
from mingshi.workflows.pairs import pairs
from mingshi.workflows.preferences import Pairing
from mingshi.workflows.sampling import QUESTION, Asked, Origin, Sampling, Scoring, ask, check_scoring, scored

DRAWN = Sampling(samples=3, temperature=1.0, top_p=1.0, max_new_tokens=24)
ANSWERS = ("The number is 1.", "one two", "Nothing of the kind.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, precision="float32")


def examples(count: int = 3) -> list[Example]:
    return [example for example in read_rows(ROWS[:count]) if isinstance(example, Example)]


def asked(model: Model) -> list[Asked]:
    found, _ = ask(model, examples(2), Sampling(samples=2, max_new_tokens=2), Silent())
    return [replace(each, texts=ANSWERS) for each in found]


def log_probability(model: Model, messages: tuple[Message, ...]) -> tuple[float, int]:
    """Of the trained tokens of the last turn, one by one through transformers' own forward."""
    rendered = model.template.render(messages, train_on="last")
    tokens = torch.tensor([rendered.tokens])
    with torch.no_grad():
        shares = model.network(input_ids=tokens, position_ids=torch.arange(tokens.shape[1])[None]).logits.log_softmax(
            -1
        )
    places = [place for place, weight in enumerate(rendered.weights) if weight]
    return float(sum(shares[0, place - 1, rendered.tokens[place]] for place in places)), len(places)


def test_a_likelihood_is_nats_a_token_of_answer_and_end(model: Model) -> None:
    rows = asked(model)
    found, unread = scored(rows, Scoring(score="likelihood"), by="m", judge=model, display=Silent())
    assert unread == 0
    for each, row in zip(rows, found, strict=True):
        for text, answer in zip(ANSWERS, row.answers, strict=True):
            total, count = log_probability(model, (*each.prompt, Message(role="assistant", content=text)))
            assert answer.text == text and answer.by == "m"
            assert answer.score == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(
    ("request_text", "language", "replies"),
    [("Say the number 1.", "en", ("Yes", "No")), ("请说出数字一。", "zh", ("是", "否"))],
)
def test_a_judged_score_is_the_log_odds_of_yes(
    model: Model, request_text: str, language: str, replies: tuple[str, str]
) -> None:
    (base, *_) = asked(model)
    each = replace(base, prompt=(Message(role="user", content=request_text),))
    ((found,), unread) = scored([each], Scoring(score="judge"), by="m", judge=model, display=Silent())
    assert unread == 0
    for text, answer in zip(ANSWERS, found.answers, strict=True):
        question = Message(role="user", content=QUESTION[language].format(request=request_text, answer=text))
        yes, no = (log_probability(model, (question, Message(role="assistant", content=word)))[0] for word in replies)
        assert answer.score == pytest.approx(yes - no, abs=1e-4)


def test_what_a_judge_cannot_read_is_counted(model: Model) -> None:
    (each, *_) = asked(model)
    too_long = replace(each, texts=("short", "word " * 600))
    ((found,), unread) = scored([too_long], Scoring(score="likelihood"), by="m", judge=model, display=Silent())
    assert [answer.text for answer in found.answers] == ["short"] and unread == 1


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        (Scoring(score="exact_match"), [1.0, 0.0, 0.0]),
        (Scoring(score="pattern", pattern=r"^The .*\d"), [1.0, 0.0, 0.0]),
        (Scoring(score="length", characters=8), [-8.0, -1.0, -12.0]),
        (Scoring(score="json"), [0.0, 0.0, 0.0]),
    ],
)
def test_metrics_are_what_they_say(model: Model, scoring: Scoring, expected: list[float]) -> None:
    rows = [replace(each, reference="The number is 1.") for each in asked(model)]
    found, _ = scored(rows, scoring, by="m", judge=None, display=Silent())
    assert [answer.score for answer in found[1].answers] == expected


def test_rouge_is_against_the_answer_of_the_row(model: Model) -> None:
    rows = asked(model)
    found, _ = scored(rows, Scoring(), by="m", judge=None, display=Silent())
    for each, row in zip(rows, found, strict=True):
        assert each.reference is not None
        assert [a.score for a in row.answers] == [rouge.rouge(each.reference, text)["rougeL"] for text in ANSWERS]


def test_json_is_parsed(model: Model) -> None:
    rows = [replace(each, texts=('{"a": 1}', "{a: 1}", "3")) for each in asked(model)]
    found, _ = scored(rows, Scoring(score="json"), by="m", judge=None, display=Silent())
    assert [answer.score for answer in found[0].answers] == [1.0, 0.0, 1.0]


def test_a_metric_without_a_reference_is_refused(model: Model) -> None:
    rows = [replace(each, reference=None) for each in asked(model)]
    with pytest.raises(DataError, match="has no answer to compare with"):
        scored(rows, Scoring(), by="m", judge=None, display=Silent())


@pytest.mark.parametrize(
    ("scoring", "has_judge", "says"),
    [
        (Scoring(score="pattern"), False, "needs --pattern"),
        (Scoring(score="pattern", pattern="("), False, "not a regular expression"),
        (Scoring(score="length"), False, "needs --characters"),
        (Scoring(score="judge"), False, "needs --judge"),
        (Scoring(score="rougeL"), True, "does not use --judge"),
        (Scoring(score="rougeL", pattern="x"), False, "does not use --pattern"),
    ],
)
def test_a_score_without_what_it_needs_is_refused(scoring: Scoring, has_judge: bool, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        check_scoring(scoring, has_judge=has_judge)


def test_the_same_seed_draws_the_same_answers_and_another_draws_others(model: Model) -> None:
    one, again, other = (
        ask(model, examples(), DRAWN.model_copy(update={"seed": seed, "max_new_tokens": 300}), Silent())
        for seed in (1, 1, 2)
    )
    assert one == again and one != other


def test_prompts_come_from_rows_of_every_format_that_asks(model: Model) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Why?", "chosen": "so it is", "rejected": "no"},
        {"prompt": "How?", "chosen": "thus", "rejected": "no"},
    ]
    preferences = [example for example in read_rows(rows) if isinstance(example, Example)]
    found, _ = ask(model, preferences, Sampling(samples=2, max_new_tokens=1), Silent())
    assert [each.reference for each in found] == ["so it is", "thus"]
    compared = [{"prompt": "Why?", "answers": ["a", "b"], "ranks": [1, 2]}]
    found, _ = ask(model, list(read_rows(compared)), Sampling(samples=2, max_new_tokens=1), Silent())  # type: ignore[arg-type]
    assert found[0].reference is None and found[0].prompt[0].content == "Why?"
    text = [example for example in read_rows([{"text": "plain text to go on"}]) if isinstance(example, Example)]
    with pytest.raises(DataError, match="asks nothing"):
        ask(model, text, DRAWN, Silent())


def test_a_model_and_a_judge_make_pairs_whose_ledger_adds_up(folder: Path, tmp_path: Path) -> None:
    """An untrained model ends an answer at every fourhundredth token or so."""
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS[:6]))
    origin = Origin(
        model=str(folder),
        judge=str(folder),
        sampling=Sampling(samples=4, temperature=1.3, top_p=1.0, max_new_tokens=400, seed=1),
        scoring=Scoring(score="likelihood"),
    )
    report = pairs(
        DataSource(path=str(rows)), tmp_path / "out", Pairing(take="all", balance=False, test=0.2), origin=origin
    )
    told = report["answers"]
    assert told["read"] == 24 == told["used"] + sum(told["dropped"].values())
    assert told["dropped"]["unfinished"] > 0
    found = report["pairs"]
    assert found["considered"] == found["train"] + found["test"] + sum(found["dropped"].values())
    assert report["sampling"]["temperature"] == 1.3 and report["scoring"] == {"score": "likelihood"}
    assert report["model"]["files"] == report["judge"]["files"] != {}
    made = list(read(DataSource(path=str(tmp_path / "out" / "train.jsonl"))))
    assert len(made) == found["train"] > 0
    assert str(tmp_path) not in (tmp_path / "out" / "pairs.json").read_text()


def test_answers_none_of_which_ends_are_an_error_that_says_so(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(orjson.dumps(ROWS[0]))
    origin = Origin(model=str(folder), sampling=Sampling(max_new_tokens=2))
    with pytest.raises(DataError, match="none of 4 answers was finished within 2 tokens"):
        pairs(DataSource(path=str(rows)), tmp_path / "out", origin=origin)


def test_a_score_of_length_is_not_balanced_away(folder: Path, tmp_path: Path) -> None:
    origin = Origin(model=str(folder), scoring=Scoring(score="length", characters=20))
    with pytest.raises(RecipeError, match="--no-balance"):
        pairs(DataSource(path="none.jsonl"), tmp_path / "out", Pairing(), origin=origin)
