"""The arithmetic of packed attention: two products and a softmax for each group of items, with a backward of its own.

Rows are gathered straight into the order that the products want, heads in front of tokens, and results straight out of
it. Left to autograd each would be copied twice more, and the gradients of queries summed though each occurs only once.

Letters: `T` tokens, `N` items in a group, `Q` queries and `K` keys of an item, `H` heads, `G` key-value heads,
`R = H / G` queries that share one, `P = N G` pairs of item and key-value head, `D` head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Mask(NamedTuple):
    """What is added to a group's scores: zero where a query may look and minus infinity elsewhere."""

    values: torch.Tensor  # [1 or N, 1, Q, columns]
    first: int  # where its columns begin: all queries see all keys before


class Rule(NamedTuple):
    """How scores become shares."""

    scaling: float
    dropout: float = 0.0
    softcap: float | None = None  # Gemma 2: cap * tanh(score / cap)


class Part(NamedTuple):
    """One group: its shape, and which of all groups' queries, keys and key rows are its own."""

    items: int
    height: int  # queries of an item
    width: int  # keys of an item
    queries: slice
    keys: slice
    rows: slice


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the rows of all groups lie, one group after another, for one number of heads."""

    shapes: tuple[tuple[int, int, int], ...]  # items, height and width of each group
    heads: int
    key_heads: int
    queries: torch.Tensor  # rows of `[T H, D]`, by group, item, head and query
    keys: torch.Tensor  # rows of `[T G, D]`, by group, item, head and key
    key_rows: torch.Tensor  # rows of the stream, by group, item and key
    order: torch.Tensor  # `[T H]`: where each row of `[T H, D]` stands among the queries
    padding: torch.Tensor  # queries that only fill up a shape, by where they stand

    def parts(self) -> Iterator[Part]:
        query = row = 0
        for items, height, width in self.shapes:
            next_query, next_row = query + items * height * self.heads, row + items * width
            keys = slice(row * self.key_heads, next_row * self.key_heads)
            yield Part(items, height, width, slice(query, next_query), keys, slice(row, next_row))
            query, row = next_query, next_row


def attended(
    query_THD: torch.Tensor,
    key_TGD: torch.Tensor,
    value_TGD: torch.Tensor,
    places: Places,
    masks: Sequence[Mask],
    rule: Rule,
) -> torch.Tensor:
    """`softmax(scaling q k^T + mask) v`, `[T, H, D]` (Vaswani et al. 2017, equation 1)."""
    output_THD: torch.Tensor = _Attended.apply(  # type: ignore[no-untyped-call]
        query_THD, key_TGD, value_TGD, places, masks, rule
    )
    return output_THD


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_THD: torch.Tensor,
        key_TGD: torch.Tensor,
        value_TGD: torch.Tensor,
        places: Places,
        masks: Sequence[Mask],
        rule: Rule,
    ) -> torch.Tensor:
        queries = query_THD.flatten(0, 1).index_select(0, places.queries)
        keys, values = (rows.flatten(0, 1).index_select(0, places.keys) for rows in (key_TGD, value_TGD))
        outputs = values.new_empty(len(queries), values.shape[1])
        scored = []
        for part, mask in zip(places.parts(), masks, strict=True):
            query, key, value = pairs(places, part, queries, keys, values)
            scores = _product(query, key.transpose(1, 2), rule.scaling)
            capped = None
            if rule.softcap is not None:
                capped = torch.tanh(scores / rule.softcap) * rule.softcap
                scores = capped.clone()
            shown = scores.view(part.items, places.heads, part.height, part.width)
            shown[..., mask.first :].add_(mask.values)
            shares = torch.softmax(scores, dim=-1)
            used, kept = _dropped(shares, rule.dropout)
            torch.bmm(used, value, out=outputs[part.queries].view(len(value), -1, values.shape[1]))
            scored.append((shares, kept, capped))
        ctx.save_for_backward(queries, keys, values, *(one for three in scored for one in three))
        ctx.places, ctx.rule = places, rule
        return outputs.index_select(0, places.order).view(len(query_THD), places.heads, -1)

    @staticmethod
    def backward(ctx: Any, upstream_THD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values, *scored = ctx.saved_tensors
        places: Places = ctx.places
        rule: Rule = ctx.rule
        upstream = upstream_THD.flatten(0, 1).index_select(0, places.queries).index_fill_(0, places.padding, 0)
        query_gradients = torch.empty_like(queries)
        key_gradients, value_gradients = (
            rows.new_empty(len(places.key_rows), places.key_heads, rows.shape[1]) for rows in (keys, values)
        )
        for number, part in enumerate(places.parts()):
            shares, kept, capped = scored[3 * number : 3 * number + 3]
            query, key, value = pairs(places, part, queries, keys, values)
            pulled = upstream[part.queries].view(len(value), -1, values.shape[1])
            share_gradients = torch.bmm(pulled, value.transpose(1, 2))
            used = shares
            if kept is not None:
                used, share_gradients = shares * kept, share_gradients * kept
            slopes = torch._softmax_backward_data(share_gradients, shares, -1, shares.dtype)
            if capped is not None:
                slopes = slopes * (1 - (capped / rule.softcap).square())
            found = query_gradients[part.queries].view_as(query)
            torch.baddbmm(found, slopes, key, beta=0, alpha=rule.scaling, out=found)
            for gradients, product in (
                (key_gradients, _product(slopes.transpose(1, 2), query, rule.scaling)),
                (value_gradients, torch.bmm(used.transpose(1, 2), pulled)),
            ):
                each = product.view(part.items, places.key_heads, part.width, -1).transpose(1, 2)
                gradients[part.rows].view(each.shape).copy_(each)
        query_gradient = query_gradients.index_select(0, places.order).view(len(upstream_THD), places.heads, -1)
        summed = (_summed(rows, places.key_rows, len(upstream_THD)) for rows in (key_gradients, value_gradients))
        return query_gradient, *summed, None, None, None


def pairs(places: Places, part: Part, *rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A group's own queries, keys and values: queries that share a key-value head stand below one another."""
    count = part.items * places.key_heads
    return tuple(
        one[own].view(count, -1, one.shape[1])
        for one, own in zip(rows, (part.queries, part.keys, part.keys), strict=True)
    )


def _dropped(shares: torch.Tensor, dropout: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Shares after dropout, and what each was multiplied with."""
    if not dropout:
        return shares, None
    kept = torch.rand_like(shares, dtype=torch.float32).ge_(dropout).div_(1 - dropout).to(shares.dtype)
    return shares * kept, kept


def _product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """`scaling * left @ right` for each pair."""
    product = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    return torch.baddbmm(product, left, right, beta=0, alpha=scaling, out=product)


def _summed(rows: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """`[count, ...]`: each row added to its place."""
    flat = rows.flatten(1)
    return (
        rows.new_zeros(count, flat.shape[1])
        .scatter_add_(0, places[:, None].expand_as(flat), flat)
        .view(count, *rows.shape[1:])
    )
