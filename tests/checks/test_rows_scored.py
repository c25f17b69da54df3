"""Answers that belong to other prompts come first, by a model that has learnt which belongs to which."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny import tiny_model
from transformers import AutoModelForCausalLM

from mingshi.checks import rows_scored
from mingshi.checks.rows import Row
from mingshi.checks.rows_scored import RowsScored, within_bins
from mingshi.data.plan import pack
from mingshi.model.load import load
from mingshi.model.logprob import token_log_probabilities

LETTERS = "BCDGHJKMPQVXZ0123456789"
TOPICS = 6
STEPS = 200


def row(line: int, prompt: str, answer: str) -> Row:
    return Row(split="train", source="a.jsonl", line=line, id=str(line), group="", prompt=prompt, answer=answer)


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """A prompt names a topic, an answer of 8 to 24 letters is drawn from the topic's three."""
    generator = random.Random(seed)
    found = []
    for _ in range(count):
        topic = generator.randrange(TOPICS)
        own = LETTERS[3 * topic : 3 * topic + 3]
        found.append((f"{LETTERS[18 + topic % 5]}{topic % 2}" * 2, "".join(generator.choices(own, k=8 + count % 17))))
    return found


def mixed(count: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Pairs of which one in twenty has the answer of another topic, and which."""
    rows = pairs(count, 1)
    wrong = np.arange(count) % 20 == 7
    others = {prompt: next(answer for other, answer in rows if other != prompt) for prompt, _ in rows}
    return [
        (prompt, others[prompt] if odd else answer) for (prompt, answer), odd in zip(rows, wrong, strict=True)
    ], wrong


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that has learnt the relation."""
    folder = tmp_path_factory.mktemp("scorer")
    check = RowsScored(tiny_model(folder / "new"), folder=folder / "kept")
    model = load(folder / "new", precision="float32")
    samples = [sample for prompt, answer in pairs(600, 0) for sample in check._samples(prompt, answer)]
    model.network.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.network.parameters(), lr=5e-3)
    generator = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = pack([samples[place] for place in generator.integers(0, len(samples), 32)], device="cpu")
        loss = -token_log_probabilities(model.network, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.network.save_pretrained(folder / "learnt")
    model.tokenizer.save_pretrained(folder / "learnt")
    return folder / "learnt"


def test_answers_of_other_prompts_come_first(scorer: Path, tmp_path: Path) -> None:
    rows, wrong = mixed(400)
    check = RowsScored(scorer, folder=tmp_path)
    for line, (prompt, answer) in enumerate(rows, start=1):
        check.add(row(line, prompt, answer))
    scored = check.scored()
    away, _ = within_bins(np.log(scored.difficulty), scored.tokens)
    assert average_precision_score(wrong, away) >= 0.9
    found = {finding.kind: finding for finding in check.findings()}["unhelped"]
    lines = [each["line"] for each in found.rows]
    assert (found.check, found.severity, found.count) == ("scored", "warning", len(lines))
    assert np.mean(wrong[np.array(lines[:20]) - 1]) >= 0.8
    assert all(each["difficulty"] > 0 and 0 <= each["rank"] <= 1 for each in found.rows)


def test_the_numbers_are_those_of_single_readings(scorer: Path, tmp_path: Path) -> None:
    """To the precision in which the processor computes."""
    check = RowsScored(scorer, folder=tmp_path)
    rows = [("Say hello to the world", "yes"), ("处处", "闻啼鸟"), *pairs(4, 3)]
    for line, (prompt, answer) in enumerate(rows, start=1):
        check.add(row(line, prompt, answer))
    scored = check.scored()
    network = AutoModelForCausalLM.from_pretrained(scorer, dtype=torch.float32)
    for at, (prompt, answer) in enumerate(rows):
        for sample, told in zip(check._samples(prompt, answer), (scored.nats, scored.alone), strict=True):
            ids = torch.tensor([[*sample.tokens.tolist(), int(sample.target[-1])]])
            with torch.inference_mode():
                logits = network(input_ids=ids).logits[0].log_softmax(-1)
            logs = logits[sample.source, torch.from_numpy(sample.target).long()]
            assert told[at] == pytest.approx(-float(logs.mean()), rel=0.02)
        assert scored.tokens[at] == len(sample.target)
    assert np.ptp(scored.nats) > 1


def test_a_model_that_makes_nothing_of_prompts_says_so(tmp_path: Path) -> None:
    check = RowsScored(tiny_model(tmp_path / "model"), folder=tmp_path / "kept")
    for line, (prompt, answer) in enumerate(pairs(60, 0), start=1):
        check.add(row(line, prompt, answer))
    (found,) = check.findings()
    assert (found.kind, found.severity, len(found.rows)) == ("not_helped", "note", 0)


def test_scores_are_kept_and_other_rows_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model(tmp_path / "model")
    first = RowsScored(folder, folder=tmp_path / "kept")
    first.add(row(1, "One", "two"))
    first.add(row(2, "One", " "))
    first.add(Row(split="production", source="b", line=1, id="1", group="", prompt="One", answer="two"))
    first.add(Row(split="train", source="b", line=1, id="1", group="", prompt="One", answer="", label="two"))
    before = first.scored()
    assert len(before.tokens) == 1
    monkeypatch.setattr(rows_scored, "scores", lambda *_: pytest.fail("computed again"))
    second = RowsScored(folder, folder=tmp_path / "kept")
    second.add(row(1, "One", "two"))
    assert (second.scored().nats == before.nats).all()


def test_length_does_not_decide() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 300, 2000)
    values = -0.5 + lengths / 1000 + generator.normal(size=2000) / np.sqrt(lengths)
    away, rank = within_bins(values, lengths)
    assert abs(np.corrcoef(rank, lengths)[0, 1]) < 0.1 < abs(np.corrcoef(values, lengths)[0, 1])
    assert 0.8 < away.std() < 1.4 and np.median(away) == pytest.approx(0, abs=0.02)
