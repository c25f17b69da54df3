"""Preferences: what becomes of a pair, and what is measured of it before and after the first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import work
from objectives.preferences import ROWS, companion, encoded, row
from tiny import CHATML, tiny_tokenizer

from mingshi.data.plan import pack
from mingshi.data.template import make_template
from mingshi.errors import DataError, RecipeError
from mingshi.loop import train
from mingshi.model.adapters import Full, Lora
from mingshi.model.load import Model
from mingshi.model.logprob import token_log_probabilities
from mingshi.model.reference import Reference, fingerprint
from mingshi.objectives import Dpo, Sft
from mingshi.objectives.dpo import BETAS
from mingshi.recipe import parse
from mingshi.types import Chat, Reject, Rendered, Sample

LOSSES = ("sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "simpo", "orpo")
REFERENCED = LOSSES[:5]
LN2 = math.log(2)


# What becomes of a row


def with_template(name: str) -> Any:
    tokenizer = tiny_tokenizer(CHATML if name == "own" else None)
    if name == "turns":
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]})
    return SimpleNamespace(template=make_template(tokenizer, name=name))


def read_of(rendered: Rendered) -> tuple[int, ...]:
    """What is read of a text: all before its last target, which is only predicted."""
    return tuple(rendered.tokens[: max(place for place, weight in enumerate(rendered.weights) if weight)])


@pytest.mark.parametrize("name", ["own", "turns", "zh-instruction", "alpaca"])
def test_a_prompt_stands_once_and_each_answer_as_it_would_alone(name: str) -> None:
    text = with_template(name)
    for example in ROWS[::2]:  # one turn: not every template has a place for more
        made = Dpo().encode(example, text)
        assert isinstance(made, Sample)
        (_, shared, parent), *answers = made.segments.tolist()
        assert parent == -1 and len(answers) == 2
        for sequence, (start, length, over) in enumerate(answers):
            answer = (example.chosen, example.rejected)[sequence]
            rendered = text.template.render([*example.prompt, *answer])
            assert over == 0
            assert (*made.tokens[:shared], *made.tokens[start : start + length]) == read_of(rendered)
            mine = made.sequence == sequence
            trained = [token for token, weight in zip(rendered.tokens, rendered.weights, strict=True) if weight]
            assert made.target[mine].tolist() == trained
            assert trained[-1] in text.template.stop
            first = made.source[mine][0]
            assert first == (
                shared - 1 if rendered.weights[shared] else start + rendered.weights.index(1.0) - shared - 1
            )
            assert made.tokens[made.source[mine][1:]].tolist() == trained[:-1]


def test_a_pair_is_shorter_than_its_answers_apart() -> None:
    made = Dpo().encode(ROWS[1], with_template("own"))
    apart = sum(
        len(read_of(with_template("own").template.render([*ROWS[1].prompt, *side])))
        for side in (ROWS[1].chosen, ROWS[1].rejected)
    )
    assert isinstance(made, Sample)
    assert len(made.tokens) + int(made.segments[0, 1]) == apart


def test_the_prompts_own_answers_are_not_learnt() -> None:
    text = with_template("own")
    made = Dpo().encode(row(turns=3), text)
    assert isinstance(made, Sample)
    assert int((made.sequence == 0).sum()) == int((encoded(text, [row()])[0].sequence == 0).sum())


def test_answers_that_become_the_same_are_rejected_and_say_why() -> None:
    template = CHATML.replace("message['content']", "message['content'] | trim")
    text = SimpleNamespace(template=make_template(tiny_tokenizer(template)))
    made = Dpo().encode(row(chosen="Yes.", rejected="Yes.  "), text)
    assert isinstance(made, Reject)
    assert (made.reason, made.source, made.line) == ("same_answers", "pairs.jsonl", 1)


def test_a_pair_that_is_too_long_is_dropped_whole_or_stops_the_run() -> None:
    text = with_template("own")
    long = row(rejected="word " * 60)
    made = Dpo(max_length=60).encode(long, text)
    assert isinstance(made, Reject) and made.reason == "too_long" and "max_length 60" in made.detail
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: \d+ tokens of prompt and both answers, over max_length 60"):
        Dpo(max_length=60, too_long="error").encode(long, text)


def test_log_probabilities_of_a_pair_are_those_of_its_answers_apart(model: Model) -> None:
    with torch.no_grad():
        found = token_log_probabilities(model.network, Dpo().collate(encoded(model.text), "cpu"))
        apart = []
        for example in ROWS:
            for answer in (example.chosen, example.rejected):
                prompt = [
                    replace(message, train=False) if message.role == "assistant" else message
                    for message in example.prompt
                ]
                chat = Chat(id="", source="", line=1, group="", messages=(*prompt, *answer))
                alone = Sft().encode(chat, model.text)
                assert isinstance(alone, Sample)
                apart.append(token_log_probabilities(model.network, pack([alone], device="cpu")))
    assert torch.allclose(found, torch.cat(apart), atol=1e-5)


# Settings


def test_each_loss_has_the_beta_that_suits_it_and_the_record_holds_it() -> None:
    for name in LOSSES:
        made = Dpo(loss_type=name)
        assert made.beta == BETAS.get(name, 0.1)
        assert Dpo.model_validate(made.model_dump(mode="json")) == made
    assert Dpo(loss_type="simpo").gamma == 1.0 and Dpo(loss_type="simpo", beta=10).gamma == 5.0
    assert Dpo(loss_type="robust").label_smoothing == 0.1 and Dpo().label_smoothing == 0.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "knows no label smoothing"),
        ({"loss_type": "robust", "label_smoothing": 0.0}, "is sigmoid"),
        ({"gamma": 1.0}, "knows no gamma"),
        ({"loss_type": "simpo", "reference": "smollm2-135m"}, "has no reference"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    objective = {"kind": "dpo"} | settings
    with pytest.raises(RecipeError, match=said):
        parse({"model": "m", "output": "o", "stages": [{"data": [{"path": "p"}], "objective": objective}]})


# The first step


def measured(objective: Dpo, model: Model, samples: Sequence[Sample], beside: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        model.network.eval()
        return dict(objective.measure(model.network, objective.collate(samples, "cpu"), beside))


def attach_lora(model: Model) -> None:
    Lora(rank=4).attach(model, seed=0)


def attach_full(model: Model) -> None:
    Full().attach(model, seed=0)


def merge_what_was_learnt_before(model: Model) -> None:
    """An adapter of plain fine-tuning, folded in before the preferences get one of their own."""
    Lora(rank=4).attach(model, seed=1)
    chats = [Chat(id="", source="", line=1, group="", messages=(*one.prompt, *one.chosen)) for one in ROWS]
    before = fingerprint(model.network)
    samples = [Sft().encode(chat, model.text) for chat in chats]
    list(train(work(model.network, samples, batch=4, steps=6)))
    Lora(rank=4).attach(model, seed=0)
    assert fingerprint(model.network) != before


@pytest.mark.parametrize("attach", [attach_lora, attach_full, merge_what_was_learnt_before])
@pytest.mark.parametrize("name", REFERENCED)
def test_before_the_first_step_nothing_is_preferred(
    name: str, attach: Callable[[Model], None], model: Model, tmp_path: Path
) -> None:
    """Rewards are zero and the loss is ln 2, which is what the loss of an undecided network is."""
    attach(model)
    objective = Dpo(loss_type=name)
    samples = encoded(model.text)
    found = measured(objective, model, samples, companion(objective, model, samples, tmp_path))
    undecided = {"hinge": 1.0, "ipo": (1 / (2 * objective.beta)) ** 2}
    assert float(found["loss"].mean()) == pytest.approx(undecided.get(name, LN2), rel=1e-5)
    assert float(found["reward_chosen"].abs().max()) < 1e-4 * objective.beta
    assert float(found["kl"].abs().max()) < 1e-8


# What is measured


def test_rewards_and_metrics_are_what_they_say(model: Model, tmp_path: Path) -> None:
    attach_full(model)
    objective, samples = Dpo(beta=0.3), encoded(model.text)
    beside = companion(objective, model, samples, tmp_path)
    list(
        train(replace(work(model.network, samples, batch=4, steps=4), objective=objective, companion=beside, peak=1e-2))
    )
    found = measured(objective, model, samples, beside)
    with torch.no_grad():
        logp = token_log_probabilities(model.network, objective.collate(samples, "cpu")).double()
    frozen = torch.from_numpy(np.array(beside.values)).double()
    ends = np.cumsum([0] + [len(sample.target) for sample in samples])
    for place, (start, end) in enumerate(itertools.pairwise(ends)):
        mine, theirs = logp[start:end], frozen[start:end]
        side = torch.from_numpy(samples[place].sequence)
        rewards = [0.3 * float((mine - theirs)[side == answer].sum()) for answer in (0, 1)]
        margin = rewards[0] - rewards[1]
        wanted = {
            "loss": math.log1p(math.exp(-margin)),
            "reward_chosen": rewards[0],
            "reward_rejected": rewards[1],
            "reward_margin": margin,
            "reward_accuracy": float(margin > 0),
            "log_probability_chosen": float(mine[side == 0].sum()),
            "log_probability_rejected": float(mine[side == 1].sum()),
            "kl": float(((mine - theirs) ** 2).mean() / 2),
        }
        assert {name: float(values[place]) for name, values in found.items()} == pytest.approx(wanted, abs=1e-4)


def test_a_tie_is_half_right(model: Model) -> None:
    samples = encoded(model.text)
    values = token_log_probabilities(model.network, Dpo().collate(samples, "cpu")).detach().numpy()
    ends = np.cumsum([0] + [len(sample.target) for sample in samples])
    found = measured(Dpo(), model, samples, Reference(values, ends))
    assert found["reward_accuracy"].tolist() == [0.5] * len(samples)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_moves_the_answers_apart_and_adds_up_over_streams(name: str, model: Model, tmp_path: Path) -> None:
    attach_full(model)
    objective, samples = Dpo(loss_type=name), encoded(model.text)
    beside = companion(objective, model, samples, tmp_path)
    before = measured(objective, model, samples, beside)
    apart = [measured(objective, model, [sample], beside) for sample in samples]
    for metric, values in before.items():
        assert values.tolist() == pytest.approx([float(one[metric]) for one in apart], rel=1e-4, abs=1e-4)
    stage = work(model.network, samples, batch=12, steps=12, schedule="constant", warmup=2)
    steps = list(train(replace(stage, objective=objective, companion=beside, peak=3e-3)))
    after = measured(objective, model, samples, beside)
    assert steps[-1].loss < steps[0].loss
    assert float((after["reward_margin"] - before["reward_margin"]).mean()) > 0
    assert ("kl" in after) == (name in REFERENCED)
