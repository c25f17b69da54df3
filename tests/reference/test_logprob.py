"""Chunked log-probabilities against log_softmax and gather in float64, and what they may never hold in memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import network
from reference.largest import Largest

from mingshi.model import logprob
from mingshi.model.logprob import Head, head_of, log_probabilities

M, W, V = 53, 12, 300
CHUNK = 7  # rows

HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 2.0},
    "scale": {"scale": 0.25},
    "softcap and bias": {"softcap": 2.0, "bias": True},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and a rest, as with a real vocabulary."""
    monkeypatch.setattr(logprob, "CHUNK_BYTES", CHUNK * 4 * V)


def head(*, bias: bool = False, softcap: float | None = None, scale: float = 1.0, trains: bool = False) -> Head:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, W, generator=generator).requires_grad_(trains)
    shift = torch.randn(V, generator=generator).requires_grad_(trains) if bias else None
    return Head(weight=weight, bias=shift, softcap=softcap, scale=scale)


def rows(*, count: int = M) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, targets, and an uneven gradient from above."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(count, W, generator=generator).requires_grad_(True)
    targets = torch.randint(0, V, (count,), generator=generator)
    return hidden, targets, torch.randn(count, generator=generator)


def definition(hidden: torch.Tensor, targets: torch.Tensor, one: Head) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """In float64, with the inputs that its gradients belong to."""
    inputs = [hidden, one.weight] + ([one.bias] if one.bias is not None else [])
    inputs = [value.detach().double().requires_grad_(True) for value in inputs]
    logits = torch.nn.functional.linear(*inputs) * one.scale
    if one.softcap is not None:
        logits = torch.tanh(logits / one.softcap) * one.softcap
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], inputs


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("kind", HEADS)
def test_values_and_gradients_equal_the_definition(kind: str, trains: bool) -> None:
    one = head(**HEADS[kind], trains=trains)
    hidden, targets, above = rows()
    found = log_probabilities(hidden, targets, one)
    found.backward(above)
    wanted, inputs = definition(hidden, targets, one)
    wanted.backward(above.double())
    assert found.dtype == torch.float32
    assert off(found.detach(), wanted.detach()) < 1e-6
    for mine, theirs in zip([hidden, one.weight, one.bias], inputs, strict=False):
        if mine is hidden or trains:
            assert off(mine.grad, theirs.grad) < 2e-6
        else:
            assert mine.grad is None


def test_tied_weights_get_both_gradients() -> None:
    weight = head().weight.requires_grad_(True)
    _, targets, above = rows()
    sources = torch.randint(0, V, (M,), generator=torch.Generator().manual_seed(2))
    log_probabilities(weight[sources], targets, Head(weight)).backward(above)
    double = weight.detach().double().requires_grad_(True)
    logp = (double[sources] @ double.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    logp.backward(above.double())
    assert off(weight.grad, double.grad) < 1e-6


@pytest.mark.parametrize("margin", [2.0, 8.0, 14.0, 20.0, 40.0])
def test_a_confident_token_keeps_its_gradient(margin: float) -> None:
    """At a margin of 20 nats `1 - p` is 1e-8: as a difference of float32 numbers nothing of it would be left."""
    weight = torch.eye(W)
    targets = torch.arange(5)
    hidden = (margin * weight[targets]).requires_grad_(True)
    logp = log_probabilities(hidden, targets, Head(weight))
    logp.sum().backward()
    others = (W - 1) * math.exp(-margin)
    own = others / (1 + others)
    wanted = torch.full((5, W), -own / (W - 1), dtype=torch.float64)
    wanted[targets, targets] = own
    assert off(hidden.grad, wanted) < 1e-5
    assert off(logp.detach(), torch.full((5,), -math.log1p(others), dtype=torch.float64)) < 1e-5


def test_far_apart_logits_stay_finite() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0]])
    hidden = torch.ones(3, 1, requires_grad=True)
    logp = log_probabilities(hidden, torch.arange(3), Head(weight))
    logp.sum().backward()
    assert logp.tolist() == [0.0, -2e4, -1e4]
    assert bool(torch.isfinite(hidden.grad).all())


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
def test_no_predictions_give_nothing_and_no_nan(kind: str, trains: bool) -> None:
    one = head(**HEADS[kind], trains=trains)
    hidden, targets, _ = rows(count=0)
    found = log_probabilities(hidden, targets, one)
    assert found.shape == (0,) and found.dtype == torch.float32
    found.sum().backward()
    assert float(found.detach().sum()) == 0.0
    assert hidden.grad is not None and hidden.grad.shape == (0, W)
    if trains and one.weight.grad is not None:
        assert not bool(one.weight.grad.any())


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("kind", HEADS)
def test_never_a_tensor_of_predictions_by_vocabulary(kind: str, trains: bool) -> None:
    one = head(**HEADS[kind], trains=trains)
    hidden, targets, above = rows()
    with Largest() as largest:
        log_probabilities(hidden, targets, one).backward(above)
    assert CHUNK * V <= largest.elements <= max(CHUNK, W) * V < M * V


def test_the_counter_sees_the_definition() -> None:
    hidden, targets, _ = rows()
    with Largest() as largest:
        definition(hidden, targets, head())
    assert largest.elements == M * V


def test_bfloat16_is_the_float32_of_its_own_logits() -> None:
    one = Head(head().weight.bfloat16())
    hidden, targets, _ = rows()
    narrow = hidden.detach().bfloat16()
    wanted = torch.nn.functional.linear(narrow, one.weight).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    found = log_probabilities(narrow, targets, one)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt2"])
@torch.no_grad()
def test_the_head_of_a_network_gives_its_logits(family: str) -> None:
    net = network(family)
    tokens = torch.arange(20)[None]
    hidden = net.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(head_of(net).logits(hidden), net(input_ids=tokens).logits[0], rtol=1e-5, atol=1e-6)
