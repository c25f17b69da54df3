"""Weights that are held: the information against loops over every label, the penalty against its formula, and runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import tiny_encoder
from lesson_streams import answering, classifying, conversations, labelled
from networks import network, sample
from tiny import tiny_model

from mingshi.continual.elastic import Anchors, Elastic, anchors, drawn, evenly, fisher, movements
from mingshi.continual.previous import Anchored, Then, before
from mingshi.continual.settings import Previous
from mingshi.display import Silent
from mingshi.model import heads
from mingshi.model.adapters import Full, Lora
from mingshi.model.attached import PLAIN
from mingshi.model.load import Model, load
from mingshi.model.logprob import head_of
from mingshi.objectives import Classify, Sft
from mingshi.recipe import parse
from mingshi.run import execute
from mingshi.types import Sample

LABELS = ("bad", "fair", "good")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    labelled(tmp_path)
    conversations(tmp_path)
    return tmp_path


def classifier(encoder: Path) -> tuple[Model, Classify]:
    objective = Classify(problem="single_label", labels=LABELS, max_length=64)
    model = load(str(encoder), precision="float32", classes=objective.classes(seed=0))
    model.network.requires_grad_(True)
    return model, objective


def texts(model: Model, objective: Classify, count: int) -> list[Sample]:
    rows = []
    for number in range(count):
        tokens = model.template.plain(f"the quick brown fox, number {number}").tokens
        rows.append(objective.sample(tokens, model.text, labels=np.array([number % 3], np.float32), name=str(number)))
    return rows


def exact(model: Model, objective: Classify, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """The Fisher information itself: over all labels, by their odds, and one row after another."""
    named = dict(model.network.named_parameters())
    found = {name: torch.zeros_like(one) for name, one in named.items()}
    for each in samples:
        batch = objective.collate([each], "cpu")
        logp_K = heads.logits(model.network, heads.features(model.network, batch))[0].log_softmax(0)
        for label in range(len(LABELS)):
            gradients = torch.autograd.grad(logp_K[label], list(named.values()), retain_graph=True, allow_unused=True)
            for total, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    total += logp_K[label].exp().item() * gradient.square()
    return {name: total / len(samples) for name, total in found.items()}


def test_information_comes_to_the_sum_over_all_labels(encoder: Path) -> None:
    model, objective = classifier(encoder)
    model.network.eval()
    rows = texts(model, objective, 3)
    wanted = exact(model, objective, rows)
    named = dict(model.network.named_parameters())
    found = fisher(model.network, named, ((objective, row) for row in rows * 150), seed=1)
    output = heads.head_of(model.network).output
    for name in (f"{output}.weight", "bert.encoder.layer.0.output.dense.weight"):
        assert float((found[name] - wanted[name]).norm() / wanted[name].norm()) < 0.15, name
    given = fisher_of_given(model, objective, rows)
    off = float((given[f"{output}.weight"] - wanted[f"{output}.weight"]).norm() / wanted[f"{output}.weight"].norm())
    assert off > 0.2, "the labels of the data would give something else"


def fisher_of_given(model: Model, objective: Classify, samples: list[Sample]) -> dict[str, torch.Tensor]:
    named = dict(model.network.named_parameters())
    found = {name: torch.zeros_like(one) for name, one in named.items()}
    for each in samples:
        loss = objective.loss(model.network, objective.collate([each], "cpu"), None).sum
        for total, gradient in zip(
            found.values(), torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True
        ):
            if gradient is not None:
                total += gradient.square() / len(samples)
    return found


def test_information_is_of_rows_apart_and_by_trained_tokens(base: Path) -> None:
    net, objective = network("llama"), Sft()
    rows = [sample(9, seed=1, name="a"), sample(14, seed=2, name="b")]
    named = {name: one for name, one in net.named_parameters() if "layers.0.mlp.up" in name}
    found = fisher(net, named, ((objective, row) for row in rows), seed=5)
    generator = torch.Generator().manual_seed(5)
    total = {name: torch.zeros_like(one) for name, one in named.items()}
    for row in rows:
        batch = drawn(net, objective, objective.collate([row], "cpu"), generator)
        logits_MV = net(input_ids=batch.tokens[None]).logits[0][batch.source]
        nats = torch.nn.functional.cross_entropy(logits_MV, batch.target, reduction="sum")
        for name, gradient in zip(named, torch.autograd.grad(nats, list(named.values())), strict=True):
            total[name] += gradient.square()
    count = sum(len(row.target) for row in rows)
    assert all(torch.allclose(found[name], total[name] / count, rtol=1e-3, atol=1e-9) for name in named)
    assert all(one.requires_grad for one in net.parameters()), "as it was"


def test_tokens_are_drawn_by_their_odds() -> None:
    net, row = network("llama"), sample(6, seed=3, answer=1)
    batch = Sft().collate([row], "cpu")
    with torch.no_grad():
        odds_V = net(input_ids=batch.tokens[None]).logits[0][batch.source[0]].softmax(0)
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros_like(odds_V)
    for _ in range(3000):
        seen[drawn(net, Sft(), batch, generator).target[0]] += 1
    assert float((seen / 3000 - odds_V).abs().max()) < 5 * math.sqrt(0.25 / 3000)


def test_rows_are_drawn_from_every_stage_alike() -> None:
    places = evenly([100, 3, 50], 13, seed=0)
    assert [sum(stage == number for stage, _ in places) for number in range(3)] == [5, 3, 5]
    assert places == evenly([100, 3, 50], 13, seed=0) != evenly([100, 3, 50], 13, seed=1)


# The penalty


def moved(model: Model, names: list[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, one in model.network.named_parameters():
            if one.requires_grad and any(part in name for part in names):
                one.add_(0.1 * torch.randn(one.shape, generator=generator))


def test_the_penalty_is_its_formula_and_pulls_back(encoder: Path) -> None:
    model, objective = classifier(encoder)
    rows = [(objective, row) for row in texts(model, objective, 4)]
    held = anchors(model.network, Full(), rows, seed=0)
    attached = Elastic(Full().attach(model, seed=0), held, strength=3.0)
    assert float(attached.penalty(model.network).detach()) == 0.0, "nothing has moved"
    moved(model, ["layer.0", "classifier"])
    named = dict(model.network.named_parameters())
    wanted = sum(1.5 * (held.information[name] * (named[name] - held.weights[name]) ** 2).sum() for name in named)
    penalty = attached.penalty(model.network)
    assert penalty.detach() == pytest.approx(float(wanted.detach()), rel=1e-5) and float(penalty.detach()) > 0
    (gradient,) = torch.autograd.grad(penalty, named["classifier.weight"])
    away = named["classifier.weight"] - held.weights["classifier.weight"]
    assert torch.allclose(gradient, 3.0 * held.information["classifier.weight"] * away, rtol=1e-4)
    assert attached.rate("x") == PLAIN.rate("x") and attached.tensors() == {}


def test_of_a_low_rank_update_its_product_is_held(encoder: Path) -> None:
    model, objective = classifier(encoder)
    lora = Lora(rank=4)
    held = anchors(model.network, lora, [(objective, row) for row in texts(model, objective, 3)], seed=0)
    assert not any(name.endswith("word_embeddings.weight") for name in held.weights)
    attached = Elastic(lora.attach(model, seed=0), held, strength=1.0)
    assert {name for name, _ in movements(model.network, held.weights)} == set(held.weights)
    assert float(attached.penalty(model.network).detach()) == 0.0, "B is zero"
    moved(model, ["lora_A", "lora_B", "classifier"])
    penalty = attached.penalty(model.network)
    assert penalty.requires_grad
    from mingshi.model.adapters import fold

    value = float(penalty.detach())
    fold(model)
    named = dict(model.network.named_parameters())
    wanted = sum(
        0.5 * (held.information[name] * (named[name] - held.weights[name]) ** 2).sum() for name in held.weights
    )
    assert value == pytest.approx(float(wanted.detach()), rel=1e-3) and value > 0


# The network before


@pytest.mark.parametrize("kind", ["classify", "sft"])
def test_what_was_said_before_is_the_teacher(encoder: Path, base: Path, tmp_path: Path, kind: str) -> None:
    hold = Previous(weight=0.7, temperature=2.0)
    if kind == "classify":
        model, objective = classifier(encoder)
        net, rows = model.network, texts(model, objective, 5)
    else:
        net, objective = network("llama"), Sft()  # type: ignore[assignment]
        rows = [sample(9 + n, seed=n, name=str(n)) for n in range(4)]
    from dataclasses import replace

    rows = [replace(row, row=place) for place, row in enumerate(rows)]
    net.eval()
    batch = objective.collate(rows[1:4], "cpu")

    def logits() -> torch.Tensor:
        if kind == "classify":
            return heads.logits(net, heads.features(net, batch))
        from mingshi.model.logprob import prediction_states

        return head_of(net).logits(prediction_states(net, batch))

    then: Then = before(net, objective, rows, inner=None, folder=tmp_path, budget=64, display=Silent())
    again = before(net, objective, rows, inner=None, folder=tmp_path, budget=64, display=Silent())
    assert np.array_equal(then.values, again.values)
    was = logits().detach()
    anchored = Anchored(objective, hold)
    plain = objective.loss(net, batch, None).sum
    assert float(anchored.loss(net, batch, then).sum.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    with torch.no_grad():
        for one in net.parameters():
            one.add_(0.05 * torch.randn(one.shape, generator=torch.Generator().manual_seed(2)))
    p, q = ((each / 2).log_softmax(1) for each in (was, logits()))
    away = ((p.exp() * (p - q)).sum(1) * batch.weights).sum()
    wanted = objective.loss(net, batch, None).sum + 0.7 * 4 * away
    found = anchored.loss(net, batch, then)
    assert float(found.sum.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    assert float(found.metrics["divergence"]) == pytest.approx(float(away.detach()), rel=1e-3) != 0.0
    name, one = next((name, one) for name, one in net.named_parameters() if "layer" in name and one.dim() == 2)
    first, second = (torch.autograd.grad(each, one)[0] for each in (found.sum, wanted))
    assert torch.allclose(first, second, rtol=1e-2, atol=1e-5), name


# Runs


@pytest.mark.parametrize("hold", [{"kind": "ewc", "strength": 1e5, "rows": 40}, {"kind": "previous", "weight": 50.0}])
@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"kind": "lora", "rank": 4}])
def test_a_run_that_holds_forgets_less(
    encoder: Path, place: Path, hold: dict[str, Any], adapter: dict[str, Any]
) -> None:
    ends = []
    for name, change in (("plain", {}), ("held", {"hold": hold})):
        second = {"adapter": adapter, "optim": {"learning_rate": 5e-3}, **change}
        outcome = execute(parse(classifying(encoder, {}, second, output=name)))
        ends.append(outcome.record.run["forgetting"]["matrix"][-1]["first"]["value"])
        if change and hold["kind"] == "ewc":
            steps = [line for line in outcome.record.steps if line["stage"] == 1]
            assert steps[0]["metrics"]["penalty"] == 0.0 < steps[-1]["metrics"]["penalty"]
    assert ends[1] > ends[0], "the second stage calls everything by the other name"


@pytest.mark.parametrize("kind", ["ewc", "previous"])
def test_a_language_model_is_held_and_goes_on_bit_for_bit(
    base: Path, place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = answering(base, {}, {"hold": {"kind": kind}, "epochs": 3})
    whole = execute(parse(made | {"output": "whole"}))
    calls = [0]
    from mingshi.optim import learning_rate

    def killed(*given: Any, **named: Any) -> float:
        calls[0] += 1
        if calls[0] > 11:
            raise RuntimeError("killed")
        return learning_rate(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr("mingshi.loop.learning_rate", killed)
        with pytest.raises(RuntimeError, match="killed"):
            execute(parse(made))
    again = execute(parse(made), resume=True)
    assert [line["loss"] for line in again.record.steps] == [line["loss"] for line in whole.record.steps]
    found, wanted = again.model.network.state_dict(), whole.model.network.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_anchors_stay_where_they_were(encoder: Path) -> None:
    model, objective = classifier(encoder)
    held: Anchors = anchors(model.network, Full(), [(objective, texts(model, objective, 1)[0])], seed=0)
    kept = {name: one.clone() for name, one in held.weights.items()}
    Full().attach(model, seed=0)
    moved(model, ["layer"])
    assert all(torch.equal(kept[name], held.weights[name]) for name in kept)
