"""Rows as a padded batch, for programs on transformers alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.rows import Row


def padded(rows: Sequence[Row], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, attention mask and target mask, `[N, T]` each, padded on the right or on the left."""
    width = max(len(row.tokens) for row in rows)
    tokens_NT, kept_NT, targets_NT = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(3))
    for place, row in enumerate(rows):
        stretch = slice(width - len(row.tokens), width) if left else slice(0, len(row.tokens))
        tokens_NT[place, stretch] = torch.tensor(row.tokens)
        kept_NT[place, stretch] = 1
        targets_NT[place, stretch] = torch.tensor(row.mask)
    return tokens_NT, kept_NT, targets_NT.bool()
