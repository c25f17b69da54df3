"""What a recipe's `generation` measures is what `mingshi score` measures of the same answers, written to a file."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from encoders import tiny_encoder

from mingshi.errors import RecipeError
from mingshi.evals import compare, scoring
from mingshi.evals.generation import Generation, choose
from mingshi.evals.scoring import Scoring
from mingshi.model import generate as generate_module
from mingshi.model.generate import Generated
from mingshi.types import Chat, Message
from mingshi.workflows.score import Predictions, score

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "house", "and", "running", "runs"]
CHINESE = "我爱北京天安门上海很远今天天气好吗"
TEXTS = ("exact_match", "token_f1", "rouge", "bleu", "chrf", "bertscore", "length", "distinct", "repetition")
EVALS_OWN = {"unfinished", "no_room"}


class Characters:
    """A token is a character's code point."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, tokens))


class Lines:
    def prompt(self, messages: Any, tools: Any = ()) -> list[int]:
        return [ord(letter) for message in messages for letter in message.content]


MODEL: Any = SimpleNamespace(tokenizer=Characters(), template=Lines(), context=200)


def chats(count: int = 40, *, chinese: bool = False) -> list[Chat]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        words = generator.choice(list(CHINESE) if chinese else WORDS, generator.integers(3, 14))
        answer = ("" if chinese else " ").join(words)
        turns = (Message(role="user", content=f"question {number}"), Message(role="assistant", content=answer))
        name = f"row-{number}"
        found.append(Chat(id=name, source="a.jsonl", line=number + 1, group=name, messages=turns))
    return found


def answering(monkeypatch: pytest.MonkeyPatch, rows: list[Chat], *, kept: float, seed: int = 0) -> dict[str, str]:
    """Have each question answered with a share of the pieces of its reference; by question."""
    generator = np.random.default_rng(seed)
    said = {}
    for number, row in enumerate(rows):
        text = row.messages[-1].content
        pieces = text.split() if " " in text else list(text)
        chosen = [piece for piece in pieces if generator.random() < kept] if number % 9 else []
        said[row.messages[0].content] = (" " if " " in text else "").join(chosen)

    def generate(model: Any, prompts: Any, **settings: Any) -> list[Generated]:
        return [Generated(tokens=tuple(map(ord, said["".join(map(chr, each))])), finished=True) for each in prompts]

    monkeypatch.setattr(generate_module, "generate", generate)
    return said


def file_of(path: Path, rows: list[Chat], said: dict[str, str]) -> Predictions:
    cases = choose(MODEL, rows, limit=len(rows))
    lines = [{"prediction": said["".join(map(chr, case.prompt))], "reference": case.reference} for case in cases]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return Predictions(paths=(str(path),))


@pytest.mark.parametrize("chinese", [False, True])
def test_eval_and_score_agree_to_the_last_digit(chinese: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu")
    rows = chats(chinese=chinese)
    said = answering(monkeypatch, rows, kept=0.7)
    encoder = str(tiny_encoder(tmp_path / "encoder"))
    states = {"encoder": encoder, "idf": True, "rescale": True}
    ways: dict[str, Any] = {"metrics": TEXTS, "bertscore": states, "stem": True}
    measured = Generation(limit=40, **ways).run(MODEL, rows, seed=3).scores
    scored = score(file_of(tmp_path / "said.jsonl", rows, said), Scoring(seed=3, **ways))["metrics"]
    assert measured.keys() - EVALS_OWN == scored.keys() and measured.keys() >= EVALS_OWN
    for name, other in scored.items():
        mine = measured[name]
        assert (mine.value, mine.low, mine.high, mine.count) == (other.value, other.low, other.high, other.count), name
        assert mine.signature.startswith(f"{other.signature}|greedy|max_new:128|prompts:"), name
    assert ("tok:zh" in measured["bleu"].signature) == chinese


def test_what_a_record_always_had_it_has_still(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = chats()
    answering(monkeypatch, rows, kept=0.7)
    scores = Generation(metrics=("rouge",)).run(MODEL, rows)
    names = {"rouge1", "rouge2", "rougeL", "rougeLsum", "empty", "unfinished", "no_room", "repetition"}
    assert set(scores.scores) == set(scores.items) == set(scores.samples[0]["scores"]) == names
    for name, column in scores.items.items():
        assert scores.scores[name].value == pytest.approx(np.mean(column)), name


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_metric_of_the_whole_file_is_compared_by_the_paired_bootstrap(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu")
    rows, runs = chats(), []
    for kept in (0.6, 0.8):
        answering(monkeypatch, rows, kept=kept)
        runs.append(Generation(metrics=(name,)).run(MODEL, rows))
    before, after = runs
    change = compare(before, after)[name]
    assert change.value == pytest.approx(after.scores[name].value - before.scores[name].value)
    assert change.low < change.value < change.high and change.count == 40

    columns = [
        np.array([run.items[f"{name}.part{part}"] for part in range(sum(name in key for key in run.items))]).T
        for run in runs
    ]
    tally, generator, drawn = scoring.corpus(name), np.random.default_rng(9), []
    for _ in range(500):
        chosen = generator.integers(0, 40, 40)
        first, second = (tally.values(column[chosen].sum(0, keepdims=True))[0, 0] for column in columns)
        drawn.append(second - first)
    assert change.high - change.low == pytest.approx(np.ptp(np.percentile(drawn, [2.5, 97.5])), rel=0.25)
    assert compare(before, before)[name].value == 0.0


def test_sums_over_sums_are_compared_even_where_a_side_has_nothing_to_divide_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, runs = chats(), []
    for kept in (1.0, 0.1):
        answering(monkeypatch, rows, kept=kept)
        runs.append(Generation(metrics=("length", "distinct")).run(MODEL, rows))
    changes = compare(*runs)
    assert {"length", "length_ratio", "distinct_1", "distinct_2", "empty"} <= changes.keys()
    for name in ("length_ratio", "distinct_1"):
        before, after = (run.scores[name].value for run in runs)
        assert changes[name].value == pytest.approx(after - before)
    assert all(math.isfinite(value) for value in runs[1].samples[0]["scores"].values())


def test_what_cannot_be_measured_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(generate_module, "generate", lambda *_, **__: written.append(1))
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(RecipeError, match="sacrebleu is not installed"):
        Generation(metrics=("bleu",)).run(MODEL, chats())
    assert not written
