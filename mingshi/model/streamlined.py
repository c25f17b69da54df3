"""Attention and last layer of Llama-like networks, shaped for a packed stream.

Stock modules serve batches of rows: heads in front of tokens, rotations made of six operations, every row to the end.
Here heads stay where the projections leave them, a rotation is two passes, and the last layer goes on only with the
rows that something is predicted from. A network gets these only if its own first layers compute the same with them,
and only where a packed layout travels through it; anything else goes through the stock forward.

Letters: `T` tokens, `H` heads, `D` head width, `U` rows that are wanted.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from mingshi.model import attention
from mingshi.model.probe import SEGMENTS, VOCABULARY, small_copy
from mingshi.types import Network

TOLERANCE = 1e-5  # of the largest hidden state: float32 rounding is below it
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


class _Rotation(torch.autograd.Function):
    """Rotary positions (Su et al. 2021, equation 34) with a head's halves as pairs: `x cos + (-x2, x1) sin`."""

    @staticmethod
    def forward(ctx: Any, x_THD: torch.Tensor, cos_T1D: torch.Tensor, sin_T1D: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos_T1D, sin_T1D)
        return _rotated(x_THD, cos_T1D, sin_T1D, 1.0)

    @staticmethod
    def backward(ctx: Any, upstream_THD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos_T1D, sin_T1D = ctx.saved_tensors
        swapped_T1D = sin_T1D.roll(sin_T1D.shape[-1] // 2, -1)  # what turned one half came from the other
        return _rotated(upstream_THD, cos_T1D, swapped_T1D, -1.0), None, None


def _rotated(x_THD: torch.Tensor, cos_T1D: torch.Tensor, sin_T1D: torch.Tensor, sign: float) -> torch.Tensor:
    half = x_THD.shape[-1] // 2
    rotated_THD = x_THD * cos_T1D
    rotated_THD[..., :half].addcmul_(x_THD[..., half:], sin_T1D[..., :half], value=-sign)
    rotated_THD[..., half:].addcmul_(x_THD[..., :half], sin_T1D[..., half:], value=sign)
    return rotated_THD


def _switch(module: Any, stock: Any, reshaped: Any, hidden_states: torch.Tensor, **named: Any) -> Any:
    """A module's forward: the reshaped one where a packed layout travels through it."""
    if named.get("packed") is None:
        return stock(hidden_states, **named)
    return reshaped(module, hidden_states, named["position_embeddings"], named["packed"])


def _attention(
    module: Any, hidden_1TW: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], packed: attention.Packed
) -> tuple[torch.Tensor, None]:
    """What a decoder layer's `self_attn` gives: `[1, T, W]`, or the wanted rows of it, and no weights."""
    cos_T1D, sin_T1D = (part[0, :, None] for part in turns)
    query, key, value = (
        projection(hidden_1TW).view(hidden_1TW.shape[1], -1, module.head_dim)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    output_THD = attention.packed_attention(
        _Rotation.apply(query, cos_T1D, sin_T1D),  # type: ignore[no-untyped-call]
        _Rotation.apply(key, cos_T1D, sin_T1D),  # type: ignore[no-untyped-call]
        value,
        packed,
        scaling=module.scaling,
        dropout=module.attention_dropout if module.training else 0.0,
    )
    if packed.narrowed and packed.wanted is not None:
        output_THD = output_THD.index_select(0, packed.wanted)
    return module.o_proj(output_THD.flatten(1)[None]), None


def _last_layer(
    module: Any, hidden_1TW: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], packed: attention.Packed
) -> torch.Tensor:
    """What a decoder layer gives: `[1, T, W]`, or `[1, U, W]` where some rows are wanted."""
    packed.narrowed = packed.wanted is not None
    normal = module.input_layernorm(hidden_1TW)
    attended, _ = module.self_attn(normal, position_embeddings=turns, packed=packed)
    if packed.wanted is not None:
        hidden_1TW = hidden_1TW.index_select(1, packed.wanted)
    hidden = hidden_1TW + attended
    output: torch.Tensor = hidden + module.mlp(module.post_attention_layernorm(hidden))
    return output


def streamline(network: Network) -> bool:
    """Reshape a network's attention and last layer, if its own first layers then compute what they did before."""
    if not fits(network):
        return False
    small = small_copy(network)
    before = _outcome(small)
    reshape(small)
    try:
        same = torch.allclose(_outcome(small), before, rtol=0, atol=TOLERANCE * float(before.abs().max()))
    except (RuntimeError, KeyError, TypeError, ValueError):  # it hands its layers something else
        return False
    if same:
        reshape(network)
    return same


def fits(network: Network) -> bool:
    layers = vars(network.base_model)["_modules"].get("layers")
    if layers is None or network.config.get_text_config().to_dict().get("sliding_window") is not None:
        return False
    return all(
        {name for name, _ in layer.named_children()} == LAYER
        and {name for name, _ in layer.self_attn.named_children()} == ATTENTION
        and {"head_dim", "scaling", "attention_dropout"} <= set(vars(layer.self_attn))
        for layer in layers
    )


@torch.no_grad()
def _outcome(small: Network) -> torch.Tensor:
    """Hidden states of a few rows of a small stream, as they come."""
    count = int(SEGMENTS[:, 1].sum())
    tokens = torch.arange(count, device=small.device) * 37 % VOCABULARY
    places = torch.from_numpy(attention.positions(SEGMENTS)).to(tokens.device)
    wanted = torch.arange(1, count, 3, device=tokens.device)
    return attention.packed_hidden(small, tokens, places, SEGMENTS, rows_M=wanted)


def reshape(network: Network) -> None:
    layers = network.base_model.layers
    forwards = [(layer.self_attn, _attention) for layer in layers] + [(layers[-1], _last_layer)]
    for module, reshaped in forwards:
        module.forward = functools.partial(_switch, module, module.forward, reshaped)
