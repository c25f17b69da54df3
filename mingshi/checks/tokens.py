"""What the chosen length does to the data, and rows that cannot teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mingshi.types import Finding

LOST = 0.01  # share of the rows that may be lost to one reason before it is a warning

REMEDIES = {
    "no_trained_tokens": "Give these rows an assistant turn that is trained.",
    "mask_unverified": "Look at these rows with `mingshi preview`.",
}


def check_tokens(lengths: np.ndarray, ledger: Sequence[Mapping[str, Any]], *, max_length: int) -> list[Finding]:
    """Findings on samples of `lengths` tokens and on the rows that the ledger says were lost."""
    return [*_lost_rows(ledger), *_wasted_length(lengths, max_length)]


def _lost_rows(ledger: Sequence[Mapping[str, Any]]) -> list[Finding]:
    findings = []
    for entry in ledger:
        for reason, count in entry["rejected"].items():
            share = count / max(1, entry["rows"])
            first = [row for row in entry["examples"] if row["reason"] == reason]
            findings.append(
                Finding(
                    check="tokens",
                    kind=reason,
                    severity="warning" if share > LOST else "note",
                    count=count,
                    message=f"{count} of {entry['rows']} rows of {entry['path']} are not used ({share:.1%}): {reason}",
                    rows=[{"source": row["source"], "line": row["line"]} for row in first],
                    remedy=REMEDIES.get(reason) or _mend(first) or "Mend these rows; `mingshi preview` shows them.",
                )
            )
    return findings


def _mend(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the first row's own rejection advises: objectives differ in what they can do about it."""
    return str(rows[0].get("detail", "")).partition(". ")[2] if rows else ""


def _wasted_length(lengths: np.ndarray, max_length: int) -> list[Finding]:
    """Only said where it matters: nothing is padded, so a large limit by itself costs nothing."""
    at_limit = int((lengths >= max_length).sum())
    if not at_limit:
        return []
    longer = ", ".join(f"{int((lengths >= limit).sum())} at {limit}" for limit in (max_length // 2, max_length))
    return [
        Finding(
            check="tokens",
            kind="truncated",
            severity="warning" if at_limit > LOST * len(lengths) else "note",
            count=at_limit,
            message=f"{at_limit} of {len(lengths)} samples reach max_length {max_length} and may be cut ({longer})",
            remedy="Raise objective.max_length, or drop them with objective.too_long: drop.",
        )
    ]
