"""Preferences: what becomes of a pair, what it is compared with, and that nothing is computed twice."""

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
from tiny import CHATML, tiny_model, tiny_tokenizer

from mingshi.data.plan import pack
from mingshi.data.template import make_template
from mingshi.display import Silent
from mingshi.errors import DataError, ModelError, RecipeError
from mingshi.loop import train
from mingshi.model import reference as module
from mingshi.model.adapters import Full, Lora
from mingshi.model.load import Model, load
from mingshi.model.logprob import token_log_probabilities
from mingshi.model.reference import Reference, fingerprint, reference_log_probabilities
from mingshi.objectives import Dpo, Sft
from mingshi.objectives.dpo import BETAS
from mingshi.recipe import parse
from mingshi.types import Chat, Message, Preference, Reject, Sample

LOSSES = ("sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "simpo", "orpo")
REFERENCED = LOSSES[:5]
LN2 = math.log(2)


def row(number: int = 0, *, chosen: str = "Yes, it is.", rejected: str = "No.", turns: int = 1) -> Preference:
    prompt = [Message(role="system", content="Be brief.")]
    for turn in range(turns):
        prompt += [Message(role="user", content=f"第{number}问: is it {turn}?" + " Really?" * (number % 3))]
        prompt += [Message(role="assistant", content="Which?")] if turn < turns - 1 else []
    answers = [(Message(role="assistant", content=text),) for text in (chosen, rejected)]
    return Preference(
        id=f"pair-{number}",
        source="pairs.jsonl",
        line=number + 1,
        group=str(number),
        prompt=tuple(prompt),
        chosen=answers[0],
        rejected=answers[1],
    )


ROWS = [
    row(
        number,
        chosen="yes " * (1 + number % 4) + f"{number}",
        rejected="没有 " * (1 + number % 3),
        turns=1 + number % 2,
    )
    for number in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("preferences"))


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, precision="float32")


def encoded(model: Any, rows: Sequence[Preference] = ROWS, **settings: Any) -> list[Sample]:
    samples = [Dpo(**settings).encode(one, model) for one in rows]
    assert all(isinstance(sample, Sample) for sample in samples)
    return [replace(sample, row=place) for place, sample in enumerate(samples)]


# What becomes of a row


def with_template(name: str) -> Any:
    tokenizer = tiny_tokenizer(CHATML if name == "own" else None)
    if name == "turns":
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]})
    return SimpleNamespace(template=make_template(tokenizer, name=name))


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
            assert (*made.tokens[:shared], *made.tokens[start : start + length]) == rendered.tokens
            mine = made.sequence == sequence
            trained = [token for token, weight in zip(rendered.tokens, rendered.weights, strict=True) if weight]
            assert made.target[mine].tolist() == trained
            assert trained[-1] in text.template.stop
            first = made.source[mine][0]
            assert first == (
                shared - 1 if rendered.weights[shared] else start + rendered.weights.index(1.0) - shared - 1
            )
            inside = made.source[mine][1:]
            assert made.tokens[inside + 1].tolist() == trained[1:]


def test_a_pair_is_shorter_than_its_answers_apart() -> None:
    made = Dpo().encode(ROWS[1], with_template("own"))
    apart = sum(
        len(with_template("own").template.render([*ROWS[1].prompt, *side]).tokens)
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


def companion(objective: Dpo, model: Model, samples: Sequence[Sample], folder: Path) -> Any:
    return objective.companion(model, samples, folder=folder, budget=256, display=Silent())


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


def test_in_a_run_too_after_a_stage_of_plain_fine_tuning(folder: Path, place: Path) -> None:
    plain = {"data": [{"path": "chats.jsonl", "format": "chat"}], "adapter": {"kind": "lora", "rank": 4}}
    plain |= {"optim": {"learning_rate": 1e-2}, "batch": 4, "epochs": 2, "validation": 0.0}
    outcome = carried_out(folder, plain, stage(optim={"learning_rate": 1e-3}))
    first = next(step for step in outcome.record.steps if step["stage"] == 1)
    assert first["loss"] == pytest.approx(LN2, abs=1e-5)
    assert abs(first["metrics"]["reward_margin"]) < 1e-5 and first["metrics"]["kl"] < 1e-8
    last = outcome.record.steps[-1]
    assert last["loss"] < LN2 and last["metrics"]["reward_accuracy"] > 0.5 and last["metrics"]["kl"] > 0


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


# The reference


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Predictions of every reference pass, one entry a stream."""
    seen: list[int] = []

    def counted(network: Any, batch: Any) -> torch.Tensor:
        seen.append(len(batch.target))
        return token_log_probabilities(network, batch)

    monkeypatch.setattr(module, "token_log_probabilities", counted)
    return seen


def test_what_is_kept_is_what_the_network_says_and_is_computed_once(
    model: Model, folder: Path, tmp_path: Path, passes: list[int]
) -> None:
    samples = encoded(model.text)
    first = companion(Dpo(), model, samples, tmp_path)
    assert sum(passes) == sum(len(sample.target) for sample in samples) and len(passes) > 1
    with torch.no_grad():
        online = token_log_probabilities(model.network, Dpo().collate(samples, "cpu"))
    passes.clear()
    other = load(folder, precision="float32")
    Lora(rank=8).attach(other, seed=3)  # computes the same as the bare network: another beta or rank costs no pass
    again = companion(Dpo(beta=0.5, loss_type="ipo"), other, samples, tmp_path)
    assert passes == []
    rows = range(len(samples))
    assert torch.equal(again.of(rows, "cpu"), first.of(rows, "cpu"))
    assert torch.allclose(again.of(rows, "cpu"), online, atol=1e-5)
    backwards = again.of([3, 0], "cpu")
    assert torch.equal(backwards, torch.cat([again.of([3], "cpu"), again.of([0], "cpu")]))


def test_other_weights_and_other_samples_are_asked_anew(model: Model, tmp_path: Path, passes: list[int]) -> None:
    samples = encoded(model.text)
    companion(Dpo(), model, samples, tmp_path)
    passes.clear()
    companion(Dpo(), model, samples[1:], tmp_path)
    assert len(passes) > 0
    passes.clear()
    with torch.no_grad():
        model.network.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    companion(Dpo(), model, samples, tmp_path)
    assert len(passes) > 0


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_file_is_made_again(
    damage: Callable[[Path], None], model: Model, tmp_path: Path, passes: list[int]
) -> None:
    samples = encoded(model.text)
    first = companion(Dpo(), model, samples, tmp_path)
    (kept,) = (tmp_path / "reference").iterdir()
    damage(kept)
    passes.clear()
    again = companion(Dpo(), model, samples, tmp_path)
    assert len(passes) > 0
    assert torch.equal(again.of([0, 5], "cpu"), first.of([0, 5], "cpu"))


def test_the_reference_knows_no_dropout_and_leaves_the_mode_as_it_was(model: Model, tmp_path: Path) -> None:
    samples = encoded(model.text)
    plain = companion(Dpo(), model, samples, tmp_path / "plain")
    Lora(rank=4, dropout=0.5).attach(model, seed=0)
    with torch.no_grad():
        for name, one in model.network.named_parameters():
            one.add_(0.1 if "lora_B" in name else 0.0)
    model.network.train()
    model.network.config.attention_dropout = 0.5
    first, second = (companion(Dpo(), model, samples, tmp_path / name) for name in ("one", "two"))
    assert torch.equal(first.of([0, 1], "cpu"), second.of([0, 1], "cpu"))
    assert not torch.equal(first.of([0, 1], "cpu"), plain.of([0, 1], "cpu"))
    assert model.network.training


def test_a_named_model_is_the_reference_where_one_is_named(
    model: Model, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tiny_model(tmp_path_factory.mktemp("other"), seed=5)
    samples = encoded(model.text)
    found = companion(Dpo(reference=str(place)), model, samples, tmp_path)
    other = load(place, precision="float32")
    with torch.no_grad():
        online = token_log_probabilities(other.network, Dpo().collate(samples, "cpu"))
    assert torch.allclose(found.of(range(len(samples)), "cpu"), online, atol=1e-5)


def test_a_reference_that_reads_otherwise_is_refused(model: Model, tmp_path: Path) -> None:
    place = tiny_model(tmp_path / "other")
    tokenizer = load(place).tokenizer
    tokenizer.add_tokens(["extraordinary"])
    tokenizer.save_pretrained(place)
    with pytest.raises(ModelError, match="another tokenizer"):
        companion(Dpo(reference=str(place)), model, encoded(model.text), tmp_path)


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_losses_without_a_reference_ask_none(name: str, model: Model, tmp_path: Path, passes: list[int]) -> None:
    assert companion(Dpo(loss_type=name), model, encoded(model.text), tmp_path) is None
    assert passes == [] and list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_a_pass_and_no_run(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    samples = encoded(model.text)
    found = reference_log_probabilities(model.network, samples, folder=tmp_path, budget=99, display=Silent())
    assert len(found.of([0], "cpu")) == len(samples[0].target)
    assert list(tmp_path.iterdir()) == []


# Runs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import orjson

    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    told = [
        {
            "prompt": [{"role": one.role, "content": one.content} for one in example.prompt],
            "chosen": example.chosen[0].content,
            "rejected": example.rejected[0].content,
        }
        for example in ROWS
    ]
    chats = [{"messages": [*one["prompt"], {"role": "assistant", "content": one["chosen"]}]} for one in told]
    for name, rows in (("pairs", told[:8]), ("held", told[8:10]), ("test", told[10:]), ("chats", chats)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return tmp_path


def stage(**fields: Any) -> dict[str, Any]:
    plain = {
        "data": [{"path": "pairs.jsonl", "format": "preference"}],
        "validation": [{"path": "held.jsonl", "format": "preference"}],
        "objective": {"kind": "dpo"},
        "adapter": {"kind": "lora", "rank": 4},
        "optim": {"learning_rate": 1e-2},
        "batch": 4,
        "epochs": 3,
    }
    return plain | fields


def carried_out(base: Path, *stages: dict[str, Any], **fields: Any) -> Any:
    from mingshi.run import execute

    values = {"model": str(base), "output": "run", "precision": "float32", "stages": list(stages or [stage()])}
    return execute(parse(values | fields))


def test_later_epochs_and_later_runs_make_no_pass(folder: Path, place: Path, passes: list[int]) -> None:
    first = carried_out(folder)
    whole = sum(passes)
    passes.clear()
    second = carried_out(folder, stage(adapter={"kind": "full"}, optim={"learning_rate": 1e-4}), output="second")
    assert passes == []
    assert first.record.run["status"] == second.record.run["status"] == "done"
    assert first.record.steps[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    model = load(folder, precision="float32")
    assert whole == sum(len(sample.target) for sample in encoded(model.text, ROWS[:10]))


def test_validation_follows_the_loss_with_intervals_and_keeps_the_best(folder: Path, place: Path) -> None:
    outcome = carried_out(folder, stage(early_stopping={"patience": 2}))
    told = [line for line in outcome.record.evals if line["data"] == "validation"]
    assert {line["kind"] for line in told} == {"dpo"} and len(told) >= 2
    assert next(iter(told[0]["scores"])) == "loss" and "reward_accuracy" in told[0]["scores"]
    assert all(line["scores"]["loss"]["count"] == 2 for line in told)
    (summary,) = outcome.record.run["summary"]["stages"]
    losses = {line["step"]: line["scores"]["loss"]["value"] for line in told}
    assert summary["best_value"] == min(losses.values()) == losses[summary["best_step"]]


def test_a_resumed_run_is_the_run_that_was_never_stopped(folder: Path, place: Path) -> None:
    """Its reference is the network before any step, not the one that was restored."""
    from mingshi import run
    from mingshi.errors import Preempted
    from mingshi.run import execute

    whole = carried_out(folder, output="whole")
    values = whole.record.run["recipe"] | {"output": "run", "model": str(folder)}
    values["stages"] = [values["stages"][0] | {"checkpoint": 1}]
    recipe = parse(values)
    honest = run.train

    def cut_short(stage: Any, *, start: int = 0) -> Any:
        for step in honest(stage, start=start):
            yield step
            if step.number == 3:
                raise Preempted("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", cut_short)
        with pytest.raises(Preempted):
            execute(recipe)
    again = execute(recipe, resume=True)
    assert [line["loss"] for line in again.record.steps] == [line["loss"] for line in whole.record.steps]
