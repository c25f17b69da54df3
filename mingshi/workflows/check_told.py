"""What `mingshi check` says in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mingshi.report.words_health import message, remedy, said, split_name, title

MARKS = {"error": "✗", "warning": "!", "note": "·"}


def described(told: Mapping[str, Any], *, language: str = "en") -> Iterator[str]:
    """Lines for a person: the rows, then the findings, the worst first."""
    at = 1 if language == "zh" else 0
    for split, one in told["splits"].items():
        yield said("rows", {"split": split_name(split), "used": f"{one['used']:,}"})[at]
    for finding in told["findings"]:
        if finding["kind"] == "summary":
            continue
        yield f"{MARKS[finding['severity']]} {title(finding['check'], finding['kind'])[at]}: {message(finding)[at]}"
        if finding["severity"] != "note" and remedy(finding)[at]:
            yield f"  → {remedy(finding)[at]}"
    if all(finding["severity"] == "note" for finding in told["findings"]):
        yield said("sound")[at]
