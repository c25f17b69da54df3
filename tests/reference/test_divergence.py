"""Distillation's arithmetic against its definition in float64, and what it may never hold in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.largest import Largest

from mingshi.model import divergence as module
from mingshi.model import logprob
from mingshi.model.divergence import Dense, Few, Rule, Sparse, distilled, divergence
from mingshi.model.logprob import Head

M, W, V = 53, 12, 300
WIDTHS = (12, 20)  # of two teachers
SHAPES = ["forward", "reverse", 0.1, 0.5, 0.9]


def definition(
    student: torch.Tensor, teachers: list[torch.Tensor], shares: torch.Tensor, *, rule: Rule, average: str
) -> torch.Tensor:
    """`[M]` from logits in float64: Hinton et al. 2015, Agarwal et al. 2024."""
    common = min(student.shape[1], *(logits.shape[1] for logits in teachers))
    q = (student[:, :common] / rule.temperature).softmax(-1)
    softened = [logits[:, :common] / rule.temperature for logits in teachers]
    if average == "logits":
        p = sum(share[:, None] * logits for share, logits in zip(shares.T, softened, strict=True)).softmax(-1)
    else:
        p = sum(share[:, None] * logits.softmax(-1) for share, logits in zip(shares.T, softened, strict=True))

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum(-1)

    if rule.shape == "forward":
        return kl(p, q)
    if rule.shape == "reverse":
        return kl(q, p)
    m = rule.shape * p + (1 - rule.shape) * q
    return rule.shape * kl(p, m) + (1 - rule.shape) * kl(q, m)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and a rest, as with a real vocabulary."""
    chunk_rows(monkeypatch, 7)


def chunk_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(logprob, "CHUNK_BYTES", rows * 4 * V * module.AT_ONCE)
    monkeypatch.setattr(module, "ROUND", 3)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def student(*, trains: bool = True, bias: bool = False, **rest: Any) -> tuple[torch.Tensor, Head]:
    shift = noise(V, seed=3).requires_grad_(trains) if bias else None
    head = Head(weight=noise(V, W, seed=2).mul(0.5).requires_grad_(trains), bias=shift, **rest)
    return noise(M, W, seed=1).requires_grad_(True), head


def dense(average: str = "probabilities", *, count: int = 2, vocabulary: int = V) -> Dense:
    shares = noise(M, count, seed=9).softmax(-1) if count > 1 else torch.ones(M, 1)
    return Dense(
        hidden=tuple(noise(M, width, seed=4 + width) for width in WIDTHS[:count]),
        heads=tuple(Head(weight=noise(vocabulary, width, seed=5 + width).mul(0.5)) for width in WIDTHS[:count]),
        shares_MK=shares,
        average=average,  # type: ignore[arg-type]
    )


TARGETS = torch.randint(0, V, (M,), generator=torch.Generator().manual_seed(7))
WEIGHTS = torch.rand(M, 2, generator=torch.Generator().manual_seed(8)) * (torch.arange(M)[:, None] % 5 > 0)


def wanted(hidden: torch.Tensor, head: Head, teachers: Dense, rule: Rule) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The sum in float64, and the inputs that its gradients belong to."""
    inputs = [one.detach().double().requires_grad_(True) for one in (hidden, head.weight, head.bias) if one is not None]
    logits = torch.nn.functional.linear(*inputs) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    others = [
        states.double() @ one.weight.double().T for states, one in zip(teachers.hidden, teachers.heads, strict=True)
    ]
    apart = definition(logits, others, teachers.shares_MK.double(), rule=rule, average=teachers.average)
    nats = -logits.log_softmax(-1).gather(1, TARGETS[:, None])[:, 0]
    return (torch.stack([apart, nats], 1) * WEIGHTS.double()).sum(), inputs


def off(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.detach().double() - true).norm() / true.norm())


def agrees(hidden: torch.Tensor, head: Head, teachers: Dense, rule: Rule, *, trains: bool = True) -> None:
    found = distilled(hidden, TARGETS, head, teachers, rule, weights_M2=WEIGHTS)
    (3.0 * found.sum).backward()
    true, inputs = wanted(hidden, head, teachers, rule)
    (3.0 * true).backward()
    assert found.sum.dtype == torch.float32 and off(found.sum, true.detach()) < 1e-6
    for mine, theirs in zip([hidden, head.weight, head.bias], inputs, strict=False):
        if mine is hidden or trains:
            assert mine.grad.dtype == mine.dtype and off(mine.grad, theirs.grad) < 1e-6
        else:
            assert mine.grad is None


@pytest.mark.parametrize("temperature", [1.0, 0.7, 4.0])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_the_definition(shape: Any, average: str, temperature: float) -> None:
    agrees(*student(), dense(average), Rule(shape=shape, temperature=temperature))


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("kind", [{"bias": True}, {"softcap": 2.0}, {"scale": 0.25}], ids=str)
def test_every_kind_of_head(kind: dict[str, Any], trains: bool) -> None:
    agrees(*student(**kind, trains=trains), dense(count=1), Rule(shape="forward", temperature=2.0), trains=trains)


@pytest.mark.parametrize("rows", [1, 10, 53, 1000])
def test_the_chunk_does_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk_rows(monkeypatch, rows)
    agrees(*student(), dense("logits"), Rule(shape=0.5, temperature=2.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_student_that_is_its_teacher_is_at_zero(shape: Any) -> None:
    hidden, head = student()
    same = Dense(hidden=(hidden.detach(),), heads=(head,), shares_MK=torch.ones(M, 1), average="probabilities")
    only_divergence = torch.tensor([1.0, 0.0]).expand(M, 2)
    found = distilled(hidden, TARGETS, head, same, Rule(shape=shape, temperature=2.0), weights_M2=only_divergence)
    found.sum.backward()
    assert float(found.divergence_M.abs().max()) < 1e-6
    assert float(hidden.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_a_teacher_of_share_one_is_alone(average: str) -> None:
    hidden, head = student()
    both = replace(dense(average), shares_MK=torch.tensor([0.0, 1.0]).expand(M, 2))
    alone = Dense(hidden=both.hidden[1:], heads=both.heads[1:], shares_MK=torch.ones(M, 1), average="logits")
    one, other = (
        distilled(hidden, TARGETS, head, teachers, Rule(shape="reverse"), weights_M2=WEIGHTS)
        for teachers in (both, alone)
    )
    torch.testing.assert_close(one.divergence_M, other.divergence_M, rtol=1e-5, atol=1e-6)


def test_vocabularies_padded_to_other_sizes_share_what_they_have() -> None:
    agrees(*student(), dense(vocabulary=V - 20), Rule(shape="forward"))
    agrees(*student(), dense(vocabulary=V + 20), Rule(shape="reverse"))


def test_the_limits_of_jensen_shannon_are_the_two_divergences() -> None:
    p, q = (noise(M, V, seed=seed).double().log_softmax(-1) for seed in (1, 2))
    small = 1e-5
    torch.testing.assert_close(divergence(p, q, small) / small, divergence(p, q, "forward"), rtol=1e-3, atol=0)
    torch.testing.assert_close(divergence(p, q, 1 - small) / small, divergence(p, q, "reverse"), rtol=1e-3, atol=0)
    torch.testing.assert_close(divergence(p, q, 0.5), divergence(q, p, 0.5))
    assert bool((divergence(p, q, 0.5) < math.log(2)).all())


def test_the_square_of_the_temperature_keeps_the_size_of_the_gradient() -> None:
    """Far above the logits' spread T^2 KL tends to half their squared distance, whatever T is (Hinton et al. 2015)."""
    hidden, head = student(trains=False)
    teachers = dense(count=1)
    apart = (hidden.detach() @ head.weight.T - teachers.hidden[0] @ teachers.heads[0].weight.T).double()
    limit = (apart - apart.mean(-1, keepdim=True)).square().sum(-1) / (2 * V)
    for temperature in (40.0, 100.0):
        logits = hidden.detach() @ head.weight.T
        found = teachers.divergence(slice(0, M), logits.double(), Rule(shape="forward", temperature=temperature))
        torch.testing.assert_close(temperature**2 * found, limit, rtol=0.05, atol=0)


def sparse(teachers: Dense, *, keep: int, temperature: float) -> tuple[Sparse, torch.Tensor]:
    """The top tokens and the rest of the first teacher, and its whole distribution."""
    p = teachers.log_probabilities(slice(0, M), V, temperature).exp()
    top = p.topk(keep, dim=1)
    rest = 1 - top.values.sum(1)
    constant = torch.xlogy(top.values, top.values).sum(1) + torch.xlogy(rest, rest)
    few = Few(tokens_MD=top.indices, probabilities_MD=top.values, rest_M=rest, constant_M=constant)
    kept = Sparse(few=(few,), shares_MK=torch.ones(M, 1), vocabulary=V)
    return kept, p


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_tokens_and_a_bucket_are_a_divergence_over_kept_tokens_and_a_bucket(temperature: float) -> None:
    hidden, head = student()
    kept, p = sparse(dense(count=1), keep=9, temperature=temperature)
    rule = Rule(shape="forward", temperature=temperature)
    found = distilled(hidden, TARGETS, head, kept, rule, weights_M2=WEIGHTS)
    found.sum.backward()
    double = hidden.detach().double().requires_grad_(True)
    logits = double @ head.weight.detach().double().T
    q = (logits / temperature).softmax(-1)
    tokens = kept.few[0].tokens_MD
    grouped = [
        torch.cat([one.gather(1, tokens), 1 - one.gather(1, tokens).sum(1, keepdim=True)], 1) for one in (p.double(), q)
    ]
    true = (grouped[0] * (grouped[0] / grouped[1]).log()).sum(1)
    nats = -logits.log_softmax(-1).gather(1, TARGETS[:, None])[:, 0]
    (torch.stack([true, nats], 1) * WEIGHTS.double()).sum().backward()
    assert off(found.divergence_M, true.detach()) < 2e-6 and off(hidden.grad, double.grad) < 2e-6


def test_a_student_that_is_its_teacher_wants_nothing_of_a_bucket() -> None:
    """Renormalised top tokens would pull even a perfect student towards them: it would learn to be too sure."""
    teachers = dense(count=1)
    kept, _ = sparse(teachers, keep=5, temperature=1.0)
    hidden = teachers.hidden[0].clone().requires_grad_(True)
    only_divergence = torch.tensor([1.0, 0.0]).expand(M, 2)

    def pull(target: Sparse) -> float:
        found = distilled(hidden, TARGETS, teachers.heads[0], target, Rule(shape="forward"), weights_M2=only_divergence)
        return float(torch.autograd.grad(found.sum, hidden)[0].norm())

    few = kept.few[0]
    renormalised = few.probabilities_MD / few.probabilities_MD.sum(1, keepdim=True)
    without = replace(kept, few=(replace(few, probabilities_MD=renormalised, rest_M=None),))
    assert pull(kept) < 1e-5 < 1e-1 < pull(without)


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
def test_never_a_tensor_of_predictions_by_vocabulary(trains: bool) -> None:
    hidden, head = student(trains=trains)
    with Largest() as largest:
        found = distilled(hidden, TARGETS, head, dense(), Rule(shape=0.5, temperature=2.0), weights_M2=WEIGHTS)
        found.sum.backward()
    assert largest.elements <= max(7, *WIDTHS, W) * V < M * V


def test_without_gradients_the_values_are_the_same() -> None:
    hidden, head = student()
    trained = distilled(hidden, TARGETS, head, dense(), Rule(shape="forward"), weights_M2=WEIGHTS)
    with torch.no_grad():
        measured = distilled(hidden, TARGETS, head, dense(), Rule(shape="forward"), weights_M2=WEIGHTS)
    assert torch.equal(trained.sum.detach(), measured.sum) and torch.equal(trained.divergence_M, measured.divergence_M)


def test_no_predictions_give_nothing_and_no_nan() -> None:
    hidden, head = student()
    none = Dense(hidden=(torch.empty(0, W),), heads=(head,), shares_MK=torch.ones(0, 1), average="probabilities")
    empty = hidden.detach()[:0].requires_grad_(True)
    found = distilled(empty, TARGETS[:0], head, none, Rule(shape="forward"), weights_M2=WEIGHTS[:0])
    found.sum.backward()
    assert float(found.sum.detach()) == 0.0 and not bool(head.weight.grad.any())
