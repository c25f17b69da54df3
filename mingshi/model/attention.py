"""Attention over a packed stream: every segment sees its parents' tokens and its own, causally, and nothing else.

Encoders do the same without causality: a segment's tokens see all of each other.

Stock model code runs unpatched: the function is registered with transformers' `AttentionInterface`, and the layout of
the stream travels as a keyword argument of the model's forward. Without a layout the same name behaves as `sdpa`, so
generation and plain calls need no switch.

Segments are cut into blocks of queries and grouped by shape, so that one matrix product, one softmax and one matrix
product serve each group (`attended.py`). Nothing wider than a block's own keys is ever computed. On CUDA in half
precision torch's kernel for texts of various lengths takes causal streams instead (`varlen.py`).

Letters: `T` tokens, `N` items in a group, `Q` queries and `K` keys of an item, `H` heads, `G` key-value heads,
`R = H / G` queries that share one, `D` head width.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mingshi.data.prefixes import share_prefixes
from mingshi.model import varlen
from mingshi.model.attended import Mask, Places, Rule, attended
from mingshi.types import Network

if TYPE_CHECKING:
    from mingshi.model.cache import Cache

NAME = "mingshi"
BLOCKS = (64, 256)  # fewest and most queries in one item: nothing above the diagonal counts, but keys are copied
PADDED_ROWS = 8  # of the fallback, in one call
ROUND = 32  # lengths are rounded up to this, so that segments of like length share a product


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Items of one shape. Padding queries and keys point at a real row; `valid` and the mask keep them out."""

    queries_NQ: torch.Tensor  # rows of the stream, int64
    keys_NK: torch.Tensor
    valid: torch.Tensor  # which of the N * Q queries are real, as flat indices
    rows: torch.Tensor  # the stream row of each real query
    hidden_keys_N: torch.Tensor | None  # keys left of this column are padding; None: no item has any
    offset: int  # the column of the first query's own key
    ends_N: torch.Tensor | None = None  # keys from this column on are padding, all others are seen; None: causal


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which rows attend to which, for every layer of one batch."""

    groups: tuple[Group, ...]
    tokens: int  # of the stream


def chains(segments: np.ndarray) -> list[np.ndarray]:
    """For each segment the rows of its ancestors, oldest first, as int64 arrays."""
    before: list[np.ndarray] = []
    for start, length, parent in segments.tolist():
        del start, length
        if parent < 0:
            before.append(np.empty(0, dtype=np.int64))
        else:
            parent_start, parent_length, _ = segments[parent].tolist()
            own = np.arange(parent_start, parent_start + parent_length, dtype=np.int64)
            before.append(np.concatenate([before[parent], own]))
    return before


def positions(segments: np.ndarray) -> np.ndarray:
    """Each token's position in its own text, `[T]` int64: a segment counts on from its parent's end."""
    starts = [len(chain) for chain in chains(segments)]
    pieces = [np.arange(first, first + length) for first, length in zip(starts, segments[:, 1].tolist(), strict=True)]
    return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, dtype=np.int64)


def _round_up(value: int) -> int:
    return -(-value // ROUND) * ROUND


def layout(segments: np.ndarray, *, device: str | torch.device = "cpu", causal: bool = True) -> Layout:
    """Plan the products of a stream: `segments` is `[S, 3]` start, length, parent (parents stand before children)."""
    shapes: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for (start, length, _), chain in zip(segments.tolist(), chains(segments), strict=True):
        block = min(max(_round_up(length // 4), BLOCKS[0]), BLOCKS[1]) if causal else length
        for first in range(0, length, block):
            last = min(first + block, length)
            prefix = np.concatenate([chain, np.arange(start, start + first)])
            own = np.arange(start + first, start + last)
            # A prefix of exact blocks needs no padding; one that follows a parent is rounded, and hidden on the left.
            shapes[_round_up(len(prefix)), _round_up(len(own))].append((prefix, own))
    groups = [_group(width, height, items, device, causal) for (width, height), items in sorted(shapes.items())]
    return Layout(groups=tuple(groups), tokens=int(segments[:, 1].sum()))


def _places(layout: Layout, heads: int, key_heads: int) -> Places:
    """Where `attended` finds the rows of every head, and where it leaves them."""
    queries, keys, padding = [], [], []
    order_TH = torch.empty(layout.tokens, heads, dtype=torch.int64, device=layout.groups[0].rows.device)
    before = 0
    for group in layout.groups:
        queries.append(_by_head(group.queries_NQ, heads))
        keys.append(_by_head(group.keys_NK, key_heads))
        standing_MH = before + torch.arange(queries[-1].numel(), device=order_TH.device).view(
            len(group.queries_NQ), heads, -1
        ).transpose(1, 2).reshape(-1, heads)
        order_TH[group.rows] = standing_MH[group.valid]
        unreal = torch.ones(len(standing_MH), dtype=torch.bool, device=order_TH.device)
        unreal[group.valid] = False
        padding.append(standing_MH[unreal].flatten())
        before += queries[-1].numel()
    return Places(
        shapes=tuple((*group.queries_NQ.shape, group.keys_NK.shape[1]) for group in layout.groups),
        heads=heads,
        key_heads=key_heads,
        queries=torch.cat(queries),
        keys=torch.cat(keys),
        key_rows=torch.cat([group.keys_NK.flatten() for group in layout.groups]),
        order=order_TH.flatten(),
        padding=torch.cat(padding),
    )


def _by_head(rows_NK: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows `[N K]` of the stream as rows of its heads, each item's one head after another."""
    return (rows_NK[:, None] * heads + torch.arange(heads, device=rows_NK.device)[:, None]).flatten()


def _group(
    width: int, height: int, items: list[tuple[np.ndarray, np.ndarray]], device: str | torch.device, causal: bool
) -> Group:
    queries = np.empty((len(items), height), dtype=np.int64)
    keys = np.empty((len(items), width + height), dtype=np.int64)
    hidden = np.zeros(len(items), dtype=np.int64)
    for item, (prefix, own) in enumerate(items):
        padding = width - len(prefix)
        hidden[item] = padding
        queries[item, : len(own)] = own
        queries[item, len(own) :] = own[-1]
        keys[item, :padding] = own[0]
        keys[item, padding:width] = prefix
        keys[item, width:] = queries[item]
    lengths = np.array([len(own) for _, own in items])
    valid = np.flatnonzero(np.arange(height)[None, :] < lengths[:, None])
    return Group(
        queries_NQ=torch.from_numpy(queries).to(device),
        keys_NK=torch.from_numpy(keys).to(device),
        valid=torch.from_numpy(valid).to(device),
        rows=torch.from_numpy(queries.ravel()[valid]).to(device),
        hidden_keys_N=torch.from_numpy(hidden).to(device) if hidden.any() else None,
        offset=width,
        ends_N=None if causal else torch.from_numpy(width + lengths).to(device),
    )


def _mask(group: Group, window: int | None, dtype: torch.dtype) -> Mask:
    """The keys of a causal prefix without padding are seen by all: only the last, square part needs a mask."""
    device = group.queries_NQ.device
    query_Q1 = torch.arange(group.queries_NQ.shape[1], device=device)[:, None] + group.offset
    key_1K = torch.arange(group.keys_NK.shape[1], device=device)[None, :]
    seen_QK = key_1K <= query_Q1 if group.ends_N is None else (key_1K >= 0).expand(len(query_Q1), -1)
    if window is not None:
        seen_QK = seen_QK & ((query_Q1 - key_1K).abs() < window)
    seen = seen_QK[None, None]
    if group.ends_N is not None:
        seen = seen & (key_1K < group.ends_N[:, None])[:, None, None, :]
    if group.hidden_keys_N is not None:
        seen = seen & (key_1K >= group.hidden_keys_N[:, None])[:, None, None, :]
    bare = window is None and group.ends_N is None and group.hidden_keys_N is None
    first = group.offset if bare else 0
    seen = seen[..., first:]
    return Mask(torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -math.inf), first)


class Stream(NamedTuple):
    """What a layout is made from."""

    segments: np.ndarray  # [S, 3] start, length, parent
    device: str | torch.device
    causal: bool


@dataclass(slots=True, eq=False)
class Packed:
    """What travels through the model: the layout, and what every layer makes of it, made once."""

    plan: Layout | Stream  # a stream until somebody asks for its layout: the kernel on CUDA never does
    masks: dict[tuple[int | None, torch.dtype], list[Mask]] = field(default_factory=dict)
    heads: dict[tuple[int, int], Places] = field(default_factory=dict)
    wanted: torch.Tensor | None = None  # rows whose last hidden state is asked for; None: all
    narrowed: bool = False  # has the last layer left out the rows that are not wanted
    cache: Cache | None = None  # keeps the keys and values of every layer
    lengths: varlen.Lengths | None = None  # for the kernel on CUDA; None: the products of `attended.py`

    @property
    def layout(self) -> Layout:
        if isinstance(self.plan, Stream):
            self.plan = layout(self.plan.segments, device=self.plan.device, causal=self.plan.causal)
        return self.plan

    def masks_for(self, window: int | None, dtype: torch.dtype) -> list[Mask]:
        if (window, dtype) not in self.masks:
            self.masks[window, dtype] = [_mask(group, window, dtype) for group in self.layout.groups]
        return self.masks[window, dtype]

    def places_for(self, heads: int, key_heads: int) -> Places:
        if (heads, key_heads) not in self.heads:
            self.heads[heads, key_heads] = _places(self.layout, heads, key_heads)
        return self.heads[heads, key_heads]


def packed(segments: np.ndarray, *, device: str | torch.device = "cpu", causal: bool = True) -> Packed:
    """A stream that is ready to travel; `segments` as `layout` takes them."""
    kernel = causal and varlen.offered(device)
    lengths = varlen.lengths(segments, chains(segments), device=device) if kernel else None
    return Packed(Stream(segments, device, causal), lengths=lengths)


def is_causal(network: Network) -> bool:
    """Whether no token of a network sees the ones after it: its attention says so of itself."""
    return all(vars(module).get("is_causal", True) for module in network.base_model.modules())


def packed_attention(
    query_THD: torch.Tensor,
    key_TGD: torch.Tensor,
    value_TGD: torch.Tensor,
    packed: Packed,
    *,
    scaling: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Outputs `[T, H, D]` of every query over its own text's keys.

    Softmax of scaled dot products (Vaswani et al. 2017, equation 1), grouped-query (Ainslie et al. 2023); `softcap` is
    Gemma 2's `cap * tanh(score / cap)`.
    """
    if packed.cache is not None:
        packed.cache.write(key_TGD, value_TGD)
    if packed.lengths is not None and varlen.takes(query_THD, dropout=dropout, softcap=softcap):
        return varlen.attended(query_THD, key_TGD, value_TGD, packed.lengths, scaling=scaling, window=window)
    return attended(
        query_THD,
        key_TGD,
        value_TGD,
        packed.places_for(query_THD.shape[1], key_TGD.shape[1]),
        packed.masks_for(window, query_THD.dtype),
        Rule(scaling, dropout, softcap),
    )


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Packed | None = None,
    cache: Cache | None = None,
    **rest: Any,  # transformers hands every attention whatever the model's forward was given
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The signature that transformers' `AttentionInterface` calls: `[1, H, T, D]` in, `[1, T, H, D]` out."""
    if cache is not None:
        return cache.attend(query, key, value, rest.get("scaling") or query.shape[-1] ** -0.5), None
    if packed is None:
        if rest.get("softcap") is not None:
            return _capped(query, key, value, attention_mask, scaling=rest["scaling"], softcap=rest["softcap"]), None
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **rest)
        return plain
    output = packed_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packed,
        scaling=rest.get("scaling") or query.shape[-1] ** -0.5,
        dropout=rest.get("dropout") or 0.0,
        window=rest.get("sliding_window"),
        softcap=rest.get("softcap"),
    )
    return output[None], None


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """Plain attention with capped scores, which `sdpa` does not know: `[B, H, T, D]` in, `[B, T, H, D]` out."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = torch.tanh(query @ key.transpose(2, 3) * (scaling / softcap)) * softcap
    if mask is None:  # transformers leaves out a mask that is only causal
        offset = key.shape[2] - query.shape[2]
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=query.device).tril(offset)
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2)


def register() -> None:
    """Make `attn_implementation="mingshi"` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_hidden(
    network: Network,
    tokens_T: torch.Tensor,
    positions_T: torch.Tensor,
    segments: np.ndarray,
    *,
    rows_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """The last hidden states of a stream, `[T, W]`, or `[M, W]` at some of its rows; no language-model head.

    What its texts begin with in common, a causal network reads once. A mask of four dimensions is transformers' own
    sign that no mask is to be made.
    """
    causal = is_causal(network)
    shared = share_prefixes(tokens_T.cpu().numpy(), segments) if causal else None
    if shared is not None:
        read_T, places_T = (torch.from_numpy(one).to(tokens_T.device) for one in (shared.rows, shared.places))
        tokens_T, positions_T, segments = tokens_T[read_T], positions_T[read_T], shared.segments
        rows_M = places_T if rows_M is None else places_T[rows_M]
    travelling = packed(segments, device=tokens_T.device, causal=causal)
    if rows_M is not None:
        travelling.wanted, place_M = rows_M.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    output = network.base_model(
        input_ids=tokens_T[None],
        position_ids=positions_T[None],
        attention_mask=torch.zeros(1, 1, 1, 1, device=tokens_T.device),
        use_cache=False,
        packed=travelling,
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    if rows_M is None:
        return hidden
    return hidden.index_select(0, place_M if travelling.narrowed else rows_M)


def padded_hidden(
    network: Network, tokens_T: torch.Tensor, positions_T: torch.Tensor, segments: np.ndarray
) -> torch.Tensor:
    """The same `[T, W]` for a network whose attention cannot be packed: one padded row per segment, prefix repeated.

    Rows of like length share a call; padding stands on the right, where no causal query looks.
    """
    rows = [
        np.concatenate([chain, np.arange(start, start + length)])
        for (start, length, _), chain in zip(segments.tolist(), chains(segments), strict=True)
    ]
    pieces: list[torch.Tensor] = []
    written: list[np.ndarray] = []
    by_length = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    for first in range(0, len(rows), PADDED_ROWS):
        chosen = [rows[row] for row in by_length[first : first + PADDED_ROWS]]
        grid = np.stack([np.pad(row, (0, len(chosen[0]) - len(row)), mode="edge") for row in chosen])
        real = np.arange(grid.shape[1])[None, :] < np.array([len(row) for row in chosen])[:, None]
        index = torch.from_numpy(grid).to(tokens_T.device)
        output = network.base_model(
            input_ids=tokens_T[index],
            position_ids=positions_T[index],
            attention_mask=torch.from_numpy(real).to(tokens_T.device),
            use_cache=False,
        ).last_hidden_state
        for place, row in enumerate(by_length[first : first + PADDED_ROWS]):
            length = int(segments[row, 1])
            pieces.append(output[place, len(rows[row]) - length : len(rows[row])])
            written.append(rows[row][-length:])
    order = np.empty(len(tokens_T), dtype=np.int64)
    order[np.concatenate(written)] = np.arange(len(tokens_T))
    return torch.cat(pieces).index_select(0, torch.from_numpy(order).to(tokens_T.device))
