"""Rows as token ids and masks, on disk and as a fingerprint. Standard library alone: the peer reads them too."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example. `mask[i]` is 1 where token `i` is a target of the loss."""

    tokens: tuple[int, ...]
    mask: tuple[int, ...]

    def labels(self) -> list[int]:
        """The same as labels: -100 where a token is no target."""
        return [token if kept else -100 for token, kept in zip(self.tokens, self.mask, strict=True)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write JSON lines of `input_ids` and `completion_mask`."""
    lines = (json.dumps({"input_ids": row.tokens, "completion_mask": row.mask}) for row in rows)
    path.write_text("\n".join(lines) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [Row(tokens=tuple(record["input_ids"]), mask=tuple(record["completion_mask"])) for record in records]


def fingerprint(rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Hash of (tokens, mask) pairs, whatever their order.

    The order is left out because a side may group rows by length; the first mask bit is, because no position
    predicts a row's first token.
    """
    digests = sorted(_digest(tokens, mask) for tokens, mask in rows)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def _digest(tokens: Sequence[int], mask: Sequence[int]) -> bytes:
    bits = bytes([0, *(1 if bit else 0 for bit in mask[1:])])
    return hashlib.sha256(array("q", tokens).tobytes() + bits).digest()


def trained_share(rows: Iterable[Row]) -> float:
    """Trained tokens over all tokens."""
    rows = list(rows)
    return sum(sum(row.mask[1:]) for row in rows) / sum(len(row.tokens) for row in rows)
