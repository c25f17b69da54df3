"""Losses that bring a picture and its texts together: of each row, from similarities in the space of both.

A row's own picture and text are alike. So are rows that share a picture or a text, which a batch holds by chance: taken
as unlike, they would teach that a text is not what it says.

Letters: `N` rows of a batch, `B` those of a block, `E` width of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

Same = Literal["positive", "mask", "negative"]  # what rows that share a picture or a text are to each other

LARGEST = math.log(100)  # of a scale's logarithm (Radford et al. 2021, section 2.5)
BLOCK = 4096  # rows whose similarities to all others are held at a time


def alike(*names_N: torch.Tensor) -> Callable[[slice], torch.Tensor]:
    """Which rows share any of these numbers with which: of a block of rows, `[B, N]`."""

    def of(block: slice) -> torch.Tensor:
        found = [numbers[block, None] == numbers[None] for numbers in names_N]
        return torch.stack(found).any(0)

    return of


def blocks(count: int, size: int = BLOCK) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def infonce(
    image_NE: torch.Tensor,
    text_NE: torch.Tensor,
    log_scale: torch.Tensor,
    same: Callable[[slice], torch.Tensor],
    *,
    shared: Same,
) -> torch.Tensor:
    """`[N]`: the mean of both directions of `-log softmax_j(s <image_i, text_j>)[i]` (Radford et al. 2021, figure 3).

    Positive: cross-entropy to a uniform share of all alike (Yang et al. 2022, UniCL, equations 3 and 4), less that
    share's own entropy, so that a row which comes twice changes nothing. Mask: those alike are passed over.
    """
    scale = log_scale.exp()
    return (_one_way(image_NE * scale, text_NE, same, shared) + _one_way(text_NE * scale, image_NE, same, shared)) / 2


def _one_way(
    query_NE: torch.Tensor, key_NE: torch.Tensor, same: Callable[[slice], torch.Tensor], shared: Same
) -> torch.Tensor:
    def of_block(query_BE: torch.Tensor, key_NE: torch.Tensor, block: slice) -> torch.Tensor:
        logits_BN = query_BE @ key_NE.T
        own_BN = _own(block, logits_BN)
        if shared == "negative":
            return -logits_BN.log_softmax(1)[own_BN]
        same_BN = same(block)
        if shared == "mask":
            return -logits_BN.masked_fill(same_BN & ~own_BN, -math.inf).log_softmax(1)[own_BN]
        count_B = same_BN.sum(1)
        log_shares_BN = logits_BN.log_softmax(1).masked_fill(~same_BN, 0)
        return -log_shares_BN.sum(1) / count_B - count_B.log()

    return _over_blocks(of_block, query_NE, key_NE)


def siglip(
    image_NE: torch.Tensor,
    text_NE: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    same: Callable[[slice], torch.Tensor],
    *,
    shared: Same,
) -> torch.Tensor:
    """`[N]`: `-sum_j log sigmoid(z_ij (s <image_i, text_j> + b))`, `z` 1 for alike, else -1 (Zhai et al. 2023)."""

    def of_block(query_BE: torch.Tensor, key_NE: torch.Tensor, block: slice) -> torch.Tensor:
        logits_BN = query_BE @ key_NE.T + bias
        own_BN = _own(block, logits_BN)
        like_BN = own_BN if shared == "negative" else same(block)
        losses_BN = -torch.nn.functional.logsigmoid(torch.where(like_BN, logits_BN, -logits_BN))
        if shared == "mask":
            losses_BN = losses_BN.masked_fill(like_BN & ~own_BN, 0)
        return losses_BN.sum(1)

    return _over_blocks(of_block, image_NE * log_scale.exp(), text_NE)


def cosine(
    image_NE: torch.Tensor,
    text_NE: torch.Tensor,
    other_N: torch.Tensor,
    same: Callable[[slice], torch.Tensor],
    *,
    shared: Same,
    margin: float,
) -> torch.Tensor:
    """`[N]`: the mean of `1 - cos(image_i, text_i)` and `max(0, cos(image_i, text_other(i)) - margin)`.

    That is `torch.nn.CosineEmbeddingLoss` with one text of another row for each picture, as many tutorials have it: no
    scale, and one row that is unlike instead of all of them. It is here to be compared with.
    """
    apart_N = ((image_NE * text_NE[other_N]).sum(1) - margin).clamp(min=0)
    unlike_N = other_N != torch.arange(len(other_N), device=other_N.device)
    if shared != "negative":
        unlike_N = unlike_N & ~same(slice(0, len(other_N))).gather(1, other_N[:, None])[:, 0]
    return ((1 - (image_NE * text_NE).sum(1)) + apart_N * unlike_N) / 2


def shuffled(count: int, device: torch.device) -> torch.Tensor:
    """For each row another one, `[N]`: one cycle through all rows, so that none keeps its place."""
    order_N = torch.randperm(count, device=device)
    other_N = torch.empty_like(order_N)
    other_N[order_N] = order_N.roll(1)
    return other_N


def _own(block: slice, logits_BN: torch.Tensor) -> torch.Tensor:
    """Each row's own place, `[B, N]`."""
    rows_B = torch.arange(block.start, block.stop, device=logits_BN.device)
    return rows_B[:, None] == torch.arange(logits_BN.shape[1], device=logits_BN.device)


def _over_blocks(
    of_block: Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor], query_NE: torch.Tensor, key_NE: torch.Tensor
) -> torch.Tensor:
    """`[N]` from blocks of rows: with several, the similarities of each are made again for its backward."""
    parts = blocks(len(query_NE))
    if len(parts) == 1:
        return of_block(query_NE, key_NE, parts[0])
    return torch.cat([checkpoint(of_block, query_NE[part], key_NE, part, use_reentrant=False) for part in parts])
