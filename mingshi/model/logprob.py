"""Token log-probabilities: the one place where logits exist, and only for a few rows at a time.

Letters: `M` predictions, `W` hidden width, `V` vocabulary, `C` rows of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from mingshi.model import attention
from mingshi.types import Batch, Network

CHUNK_BYTES = 64 << 20  # of float32 logits; enough rows for a full-speed product, little against the activations
ROUND = 64  # what a chunk's rows are a multiple of where there are more: products of other shapes are slower


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A language-model head: `logits = scale * cap(hidden @ weight.T + bias)`."""

    weight: torch.Tensor  # [V, W]
    bias: torch.Tensor | None = None
    softcap: float | None = None  # Gemma 2: cap * tanh(logits / cap)
    scale: float = 1.0  # Cohere multiplies, Granite divides

    def logits(self, hidden_CW: torch.Tensor) -> torch.Tensor:
        """`[C, V]` float32: the product in the model's own precision, all that follows in full."""
        logits = torch.nn.functional.linear(hidden_CW, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def head_of(network: Network) -> Head:
    """The head of a transformers causal language model, with what its configuration does to logits."""
    settings = network.config.get_text_config().to_dict()
    linear = network.get_output_embeddings()
    # peft wraps a head whose new rows train: the wrapper knows the weight with them in it, and only that
    plain = linear if isinstance(linear, torch.nn.Linear) else linear.original_module
    scale = settings.get("logit_scale") or 1.0
    return Head(
        weight=linear.weight,
        bias=plain.bias,
        softcap=settings.get("final_logit_softcapping"),
        scale=scale / (settings.get("logits_scaling") or 1.0),
    )


def token_log_probabilities(network: Network, batch: Batch) -> torch.Tensor:
    """Natural-log probability of every prediction of a batch, `[M]` float32, the head run on their rows alone."""
    return log_probabilities(prediction_states(network, batch), batch.target, head_of(network))


def prediction_states(network: Network, batch: Batch) -> torch.Tensor:
    """The last hidden state that each prediction is made from, `[M, W]`."""
    if network.config._attn_implementation != attention.NAME:
        hidden_TW = attention.padded_hidden(network, batch.tokens, batch.positions, batch.segments)
        return hidden_TW.index_select(0, batch.source)
    return attention.packed_hidden(network, batch.tokens, batch.positions, batch.segments, rows_M=batch.source)


def chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose logits fit into `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    size -= size % ROUND if size > ROUND else 0
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def log_probabilities(hidden_MW: torch.Tensor, target_M: torch.Tensor, head: Head) -> torch.Tensor:
    """Natural-log probability of each target, `[M]` float32."""
    if head.softcap is not None or head.scale != 1.0:
        return _plain(hidden_MW, target_M, head)
    bias = head.bias if head.bias is not None else hidden_MW.new_empty(0)
    logp_M: torch.Tensor = _ChunkedLogProbabilities.apply(hidden_MW, target_M, head.weight, bias)  # type: ignore[no-untyped-call]
    return logp_M


def compared(network: Network, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every prediction of a batch, its natural-log probability, `[M]` float32, and whether no other token is
    likelier, `[M]` bool; without gradients."""
    hidden_MW, head = prediction_states(network, batch), head_of(network)
    logp_M = torch.empty(len(batch.target), dtype=torch.float32, device=hidden_MW.device)
    likeliest_M = torch.empty(len(batch.target), dtype=torch.bool, device=hidden_MW.device)
    for rows in chunks(len(batch.target), len(head.weight)):
        logits_CV = head.logits(hidden_MW[rows])
        own_C = logits_CV.gather(1, batch.target[rows, None])[:, 0]
        logp_M[rows] = own_C - logits_CV.logsumexp(dim=1)
        likeliest_M[rows] = own_C >= logits_CV.amax(dim=1)
    return logp_M, likeliest_M


def _plain(hidden_MW: torch.Tensor, target_M: torch.Tensor, head: Head) -> torch.Tensor:
    """Through autograd, each chunk's logits made again for its gradient."""
    pieces = []
    for rows in chunks(len(target_M), len(head.weight)):
        hidden, target = hidden_MW[rows], target_M[rows]
        pieces.append(torch.utils.checkpoint.checkpoint(_chunk, hidden, target, head, use_reentrant=False))
    return torch.cat(pieces) if pieces else hidden_MW.sum(-1).float()


def _chunk(hidden_CW: torch.Tensor, target_C: torch.Tensor, head: Head) -> torch.Tensor:
    logits = head.logits(hidden_CW)
    return logits.gather(1, target_C[:, None])[:, 0] - logits.logsumexp(dim=1)


class _ChunkedLogProbabilities(torch.autograd.Function):
    """The gradient of a row's log-probability, `(onehot - softmax) @ weight`, is made while its logits exist.

    Whatever the loss does with the log-probabilities afterwards only scales that row, so a frozen head costs two
    products in all instead of three. A head that trains needs the scale before its own gradient can be summed, and
    pays the third.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_MW: torch.Tensor, target_M: torch.Tensor, weight_VW: torch.Tensor, bias_V: torch.Tensor
    ) -> torch.Tensor:
        trains_hidden, _, trains_weight, trains_bias = ctx.needs_input_grad
        logp_M = torch.empty(len(target_M), dtype=torch.float32, device=hidden_MW.device)
        keep_gradient = trains_hidden and not (trains_weight or trains_bias)
        gradient_MW = torch.empty_like(hidden_MW) if keep_gradient else None
        for rows in chunks(len(target_M), len(weight_VW)):
            odds = _odds(_logits(hidden_MW[rows], weight_VW, bias_V), target_M[rows])
            logp_M[rows] = odds.log_probability()
            if gradient_MW is not None:
                gradient_MW[rows] = odds.onehot_minus_softmax(target_M[rows]).to(hidden_MW.dtype) @ weight_VW
        ctx.keep_gradient = keep_gradient
        ctx.save_for_backward(*((gradient_MW,) if keep_gradient else (hidden_MW, target_M, weight_VW, bias_V)))
        return logp_M

    @staticmethod
    def backward(ctx: Any, upstream_M: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.keep_gradient:
            (gradient_MW,) = ctx.saved_tensors
            return (gradient_MW * upstream_M[:, None]).to(gradient_MW.dtype), None, None, None
        hidden_MW, target_M, weight_VW, bias_V = ctx.saved_tensors
        trains_hidden, _, trains_weight, trains_bias = ctx.needs_input_grad
        gradient_MW = torch.empty_like(hidden_MW) if trains_hidden else None
        weight_gradient = torch.zeros_like(weight_VW, dtype=torch.float32) if trains_weight else None
        bias_gradient = torch.zeros_like(bias_V, dtype=torch.float32) if trains_bias else None
        for rows in chunks(len(target_M), len(weight_VW)):
            odds = _odds(_logits(hidden_MW[rows], weight_VW, bias_V), target_M[rows])
            delta_CV = odds.onehot_minus_softmax(target_M[rows]).mul_(upstream_M[rows, None])
            if bias_gradient is not None:
                bias_gradient += delta_CV.sum(dim=0)
            delta_CV = delta_CV.to(hidden_MW.dtype)
            if gradient_MW is not None:
                gradient_MW[rows] = delta_CV @ weight_VW
            if weight_gradient is not None:
                weight_gradient += delta_CV.T @ hidden_MW[rows]
        weight_gradient = None if weight_gradient is None else weight_gradient.to(weight_VW.dtype)
        bias_gradient = None if bias_gradient is None else bias_gradient.to(bias_V.dtype)
        return gradient_MW, None, weight_gradient, bias_gradient


def _logits(hidden_CW: torch.Tensor, weight_VW: torch.Tensor, bias_V: torch.Tensor) -> torch.Tensor:
    bias = bias_V if bias_V.numel() else None
    return torch.nn.functional.linear(hidden_CW, weight_VW, bias).float()


class _Odds(NamedTuple):
    """A softmax before its division, with the target kept apart.

    A confident row's `1 - p` is the others' share: taken as a difference it would be lost to rounding, and with it the
    whole gradient of the row.
    """

    powers_CV: torch.Tensor  # exp(logit - the row's largest), and 0 at the target
    others_C: torch.Tensor  # their sum
    own_C: torch.Tensor  # the target's logit - the row's largest

    def log_probability(self) -> torch.Tensor:
        return self.own_C - torch.logaddexp(self.own_C, self.others_C.log())

    def onehot_minus_softmax(self, target_C: torch.Tensor) -> torch.Tensor:
        """`[C, V]`, in place of the powers."""
        total_C = self.own_C.exp() + self.others_C
        delta_CV = self.powers_CV.div_(-total_C[:, None])
        return delta_CV.scatter_(1, target_C[:, None], (self.others_C / total_C)[:, None])


def _odds(logits_CV: torch.Tensor, target_C: torch.Tensor) -> _Odds:
    """In place of the logits."""
    peak_C = logits_CV.amax(dim=1)
    own_C = logits_CV.gather(1, target_C[:, None])[:, 0] - peak_C
    powers_CV = logits_CV.sub_(peak_C[:, None]).exp_().scatter_(1, target_C[:, None], 0.0)
    return _Odds(powers_CV, powers_CV.sum(dim=1), own_C)
