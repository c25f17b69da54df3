"""How far a student's next-token distributions are from its teachers', a few rows of logits at a time.

The gradient of a chunk of rows is made while its logits exist (as in Liger kernels, Hsu et al. 2024): the weight of
each row is known beforehand, so the sum's own gradient is all that a backward pass can ask for, up to one factor.

Letters: `M` predictions, `C` of them in a chunk, `W` hidden width, `V` vocabulary, `K` teachers, `D` kept tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch

from mingshi.model.logprob import ROUND, Head, chunks

AT_ONCE = 2  # chunks are this much smaller than for one log-probability: about ten tensors of their size live at once

Shape = Literal["forward", "reverse"] | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which divergence, at which temperature."""

    shape: Shape  # a number: the generalised Jensen-Shannon divergence with this beta
    temperature: float = 1.0


class Target(Protocol):
    """What the student is drawn to: teachers' distributions at the predictions' rows."""

    def divergence(self, rows: slice, logits_CV: torch.Tensor, rule: Rule) -> torch.Tensor:
        """`[C]`: nats from the student's distribution at these rows, without temperature's square."""


def divergence(log_p_CV: torch.Tensor, log_q_CV: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Nats `[C]` between a teacher's `p` and a student's `q`, both given as log-probabilities.

    forward: `KL(p || q)`; reverse: `KL(q || p)`; a number beta: `beta KL(p || m) + (1 - beta) KL(q || m)` with
    `m = beta p + (1 - beta) q` (Agarwal et al. 2024, On-Policy Distillation of Language Models, equation 1).
    """
    if shape == "forward":
        return _kl(log_p_CV, log_q_CV)
    if shape == "reverse":
        return _kl(log_q_CV, log_p_CV)
    assert not isinstance(shape, str)
    log_m_CV = torch.logaddexp(log_p_CV + math.log(shape), log_q_CV + math.log1p(-shape))
    return shape * _kl(log_p_CV, log_m_CV) + (1 - shape) * _kl(log_q_CV, log_m_CV)


def logits(head: Head, hidden_CW: torch.Tensor) -> torch.Tensor:
    """`[C, V]` float32, from a product of a rounded number of rows."""
    return head.logits(_filled(hidden_CW))[: len(hidden_CW)]


def _filled(rows: torch.Tensor) -> torch.Tensor:
    """With rows of zeros up to a multiple of `ROUND`: oneDNN keeps memory for each shape of a product."""
    missing = -len(rows) % ROUND
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def _kl(log_a_CV: torch.Tensor, log_b_CV: torch.Tensor) -> torch.Tensor:
    return (log_a_CV.exp() * (log_a_CV - log_b_CV)).sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dense:
    """Teachers' hidden states, to be put through their own heads: the whole distribution, exactly."""

    hidden: tuple[torch.Tensor, ...]  # K of [M, W of that teacher]
    heads: tuple[Head, ...]
    shares_MK: torch.Tensor  # what each teacher counts for in a row's mixture; a row's shares sum to 1
    average: Literal["logits", "probabilities"]

    def divergence(self, rows: slice, logits_CV: torch.Tensor, rule: Rule) -> torch.Tensor:
        """Over the tokens that student and teachers all have: rows that only pad a vocabulary are left out."""
        common = min(logits_CV.shape[1], *(len(head.weight) for head in self.heads))
        log_q_CV = (logits_CV[:, :common] / rule.temperature).log_softmax(dim=1)
        with torch.no_grad():
            log_p_CV = self.log_probabilities(rows, common, rule.temperature)
        return divergence(log_p_CV, log_q_CV, rule.shape)

    def log_probabilities(self, rows: slice, common: int, temperature: float) -> torch.Tensor:
        """`[C, V]` of the mixture: `sum_k share_k softmax(z_k / T)`, or `softmax(sum_k share_k z_k / T)`."""
        total_CV: torch.Tensor | None = None
        for hidden_MW, head, share_M in zip(self.hidden, self.heads, self.shares_MK.T, strict=True):
            term_CV = logits(head, hidden_MW[rows])[:, :common] / temperature
            share_C1 = share_M[rows, None]
            if self.average == "logits":
                total_CV = term_CV * share_C1 if total_CV is None else total_CV.addcmul_(term_CV, share_C1)
            else:
                term_CV = term_CV.log_softmax(dim=1)
                term_CV = term_CV + share_C1.log() if len(self.heads) > 1 else term_CV
                total_CV = term_CV if total_CV is None else torch.logaddexp(total_CV, term_CV)
        assert total_CV is not None
        return total_CV.log_softmax(dim=1) if self.average == "logits" else total_CV


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Few:
    """A few tokens of one teacher's distributions, and what is left as one bucket."""

    tokens_MD: torch.Tensor  # int64
    probabilities_MD: torch.Tensor  # what they are to have
    rest_M: torch.Tensor | None  # what all other tokens are to have together; None: that is not asked
    constant_M: torch.Tensor  # the part of the divergence that the student does not enter


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sparse:
    """`sum_k share_k KL(p_k || q)` over tokens and bucket: its gradient is that of the divergence from the mixture."""

    few: tuple[Few, ...]  # K of them
    shares_MK: torch.Tensor
    vocabulary: int  # tokens that student and teachers all have

    def divergence(self, rows: slice, logits_CV: torch.Tensor, rule: Rule) -> torch.Tensor:
        """Forward only, and at the temperature that the tokens were kept at."""
        assert rule.shape == "forward"
        log_q_CV = (logits_CV[:, : self.vocabulary] / rule.temperature).log_softmax(dim=1)
        total_C = torch.zeros_like(logits_CV[:, 0])
        for few, share_M in zip(self.few, self.shares_MK.T, strict=True):
            tokens_CD = few.tokens_MD[rows]
            drawn_C = (few.probabilities_MD[rows] * log_q_CV.gather(1, tokens_CD)).sum(dim=1)
            if few.rest_M is not None:
                others_C = log_q_CV.scatter(1, tokens_CD, -math.inf).logsumexp(dim=1)
                drawn_C = drawn_C + few.rest_M[rows] * others_C
            total_C = total_C + share_M[rows] * (few.constant_M[rows] - drawn_C)
        return total_C


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Distilled:
    """A weighed sum to train by, and what it was summed from."""

    sum: torch.Tensor  # scalar, float32, with its gradient
    divergence_M: torch.Tensor  # nats, without temperature's square; no gradient
    nats_M: torch.Tensor  # the student's surprise at the data's own tokens; no gradient


@dataclass(frozen=True, slots=True, eq=False)
class _Score:
    """What is summed over rows: everything but the student."""

    target_M: torch.Tensor
    teachers: Target
    rule: Rule
    weights_M2: torch.Tensor  # of a row's divergence and of its nats

    def __call__(self, rows: slice, logits_CV: torch.Tensor) -> torch.Tensor:
        """`[C, 2]`: divergence and nats."""
        own_C = logits_CV.gather(1, self.target_M[rows, None])[:, 0]
        nats_C = logits_CV.logsumexp(dim=1) - own_C
        return torch.stack([self.teachers.divergence(rows, logits_CV, self.rule), nats_C], dim=1)

    def has_slope(self, head: Head) -> bool:
        """Whether `slope` knows the gradient: of the forward divergence from whole distributions, with a plain head."""
        whole = isinstance(self.teachers, Dense) and all(
            len(head.weight) <= len(other.weight) for other in self.teachers.heads
        )
        return whole and self.rule.shape == "forward" and head.softcap is None

    def slope(self, rows: slice, logits_CV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[C, 2]`, and the gradient `[C, V]` of their weighed sum at the logits `z`.

        `a / T (softmax(z / T) - p) + b (softmax(z) - onehot)`, of which autograd would make thrice as many tensors.
        """
        assert isinstance(self.teachers, Dense)
        temperature, target_C1 = self.rule.temperature, self.target_M[rows, None]
        even = temperature == 1.0
        log_p_CV = self.teachers.log_probabilities(rows, logits_CV.shape[1], temperature)
        p_CV = log_p_CV.exp()
        log_q_CV = (logits_CV if even else logits_CV / temperature).log_softmax(dim=1)
        apart_C = log_p_CV.sub_(log_q_CV).mul_(p_CV).sum(dim=1)
        nats_C1 = -(log_q_CV if even else logits_CV.log_softmax(dim=1)).gather(1, target_C1)
        q_CV = log_q_CV.exp_()
        weights_C2 = self.weights_M2[rows]
        apart_weight_C1, nats_weight_C1 = weights_C2[:, :1], weights_C2[:, 1:]
        delta_CV = torch.sub(q_CV, p_CV, out=log_p_CV).mul_(apart_weight_C1 / temperature)
        delta_CV.addcmul_(q_CV if even else logits_CV.softmax(dim=1), nats_weight_C1)
        delta_CV.scatter_add_(1, target_C1, -nats_weight_C1)
        return torch.stack([apart_C, nats_C1[:, 0]], dim=1), delta_CV


def distilled(
    hidden_MW: torch.Tensor,
    target_M: torch.Tensor,
    head: Head,
    teachers: Target,
    rule: Rule,
    *,
    weights_M2: torch.Tensor,
) -> Distilled:
    """`sum_i a_i divergence_i + b_i nats_i`, with a row's `a` and `b` in `weights_M2`; no `[M, V]` is ever made."""
    score = _Score(target_M, teachers, rule, weights_M2.float())
    if torch.is_grad_enabled():
        total, values_M2 = _Summed.apply(hidden_MW, head.weight, head.bias, head, score)  # type: ignore[no-untyped-call]
    else:
        values_M2, _ = _in_chunks(hidden_MW, head, score, trains=(False, False, False))
        total = (values_M2 * score.weights_M2).sum()
    return Distilled(sum=total, divergence_M=values_M2[:, 0], nats_M=values_M2[:, 1])


class _Summed(torch.autograd.Function):
    """The weighed sum, whose gradients are made on the way: each chunk's logits exist once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MW: torch.Tensor,
        weight_VW: torch.Tensor,
        bias_V: torch.Tensor | None,
        head: Head,
        score: _Score,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = replace(head, weight=weight_VW, bias=bias_V)
        values_M2, gradients = _in_chunks(hidden_MW, own, score, trains=ctx.needs_input_grad[:3])
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(values_M2)
        return (values_M2 * score.weights_M2).sum(), values_M2

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = (None if gradient is None else gradient * upstream for gradient in ctx.saved_tensors)
        return (*gradients, None, None)


def _in_chunks(
    hidden_MW: torch.Tensor, head: Head, score: _Score, *, trains: tuple[bool, bool, bool]
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """`[M, 2]` divergences and nats, and the gradients of hidden states, weight and bias, where they train."""
    values_M2 = torch.empty_like(score.weights_M2)
    inputs = (hidden_MW, head.weight, head.bias)
    sums = [
        torch.zeros_like(one, dtype=torch.float32) if one is not None and trained else None
        for one, trained in zip(inputs, trains, strict=True)
    ]
    found = _slopes if score.has_slope(head) else _differentiated
    for rows, values_C2, gradients in found(hidden_MW, head, score, trains):
        values_M2[rows] = values_C2
        for number, (held, gradient) in enumerate(zip(sums, gradients, strict=True)):
            if held is not None and gradient is not None:
                (held if number else held[rows]).add_(gradient)
    return values_M2, [
        None if one is None or held is None else held.to(one.dtype) for one, held in zip(inputs, sums, strict=True)
    ]


Piece = tuple[slice, torch.Tensor, Sequence[torch.Tensor | None]]  # rows, `[C, 2]`, gradients of the three inputs


def _slopes(hidden_MW: torch.Tensor, head: Head, score: _Score, trains: tuple[bool, bool, bool]) -> Iterator[Piece]:
    """Chunk by chunk, with the gradient that is known."""
    with torch.no_grad():
        for rows in chunks(len(hidden_MW), len(head.weight)):
            hidden_CW = _filled(hidden_MW[rows])
            count = rows.stop - rows.start
            values_C2, delta_CV = score.slope(rows, head.logits(hidden_CW)[:count])
            delta_CV = delta_CV.mul_(head.scale) if head.scale != 1.0 else delta_CV
            shift_V = delta_CV.sum(dim=0) if trains[2] else None
            delta_CV = _filled(delta_CV.to(hidden_CW.dtype))
            slope_CW = (delta_CV @ head.weight)[:count] if trains[0] else None
            yield rows, values_C2, (slope_CW, delta_CV.T @ hidden_CW if trains[1] else None, shift_V)


def _differentiated(
    hidden_MW: torch.Tensor, head: Head, score: _Score, trains: tuple[bool, bool, bool]
) -> Iterator[Piece]:
    """Chunk by chunk, through autograd."""
    inputs = (hidden_MW, head.weight, head.bias)
    for rows in chunks(len(hidden_MW), AT_ONCE * len(head.weight)):
        leaves = [
            None if one is None else one.detach().requires_grad_(trained)
            for one, trained in zip((hidden_MW[rows], *inputs[1:]), trains, strict=True)
        ]
        with torch.set_grad_enabled(any(trains)):
            hidden_CW, weight_VW, bias_V = leaves
            assert hidden_CW is not None and weight_VW is not None
            values_C2 = score(rows, logits(replace(head, weight=weight_VW, bias=bias_V), hidden_CW))
            total = (values_C2 * score.weights_M2[rows]).sum()
        asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        found = iter(torch.autograd.grad(total, asked) if asked else ())
        gradients = [next(found) if leaf is not None and leaf.requires_grad else None for leaf in leaves]
        yield rows, values_C2.detach(), gradients
