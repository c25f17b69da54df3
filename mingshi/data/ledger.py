"""What became of every row that was read: used, or rejected for a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mingshi.errors import DataError, Problem
from mingshi.types import Reject

PURPOSES = {"train": "train on", "validation": "validate on", "test": "be scored", "task": "be scored"}
LINES_SHOWN = 5  # example lines for each reason


@dataclass(slots=True)
class Account:
    """One source: rows, and what became of them."""

    rows: int = 0
    used: int = 0
    samples: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON, with the first lines of each reason."""
        reasons = {
            reason: {"count": count, "lines": self.lines[reason]} for reason, count in sorted(self.rejected.items())
        }
        return {"rows": self.rows, "used": self.used, "samples": self.samples, "rejected": reasons}


@dataclass(slots=True)
class Ledger:
    """All sources; it grows with them and with the reasons, not with rows."""

    sources: dict[str, Account] = field(default_factory=dict)

    def use(self, source: str, samples: int) -> None:
        """A row that gave so many samples."""
        account = self.sources.setdefault(source, Account())
        account.rows += 1
        account.used += 1
        account.samples += samples

    def reject(self, reject: Reject) -> None:
        """A row that cannot be used."""
        account = self.sources.setdefault(reject.source, Account())
        account.rows += 1
        account.rejected[reject.reason] += 1
        lines = account.lines.setdefault(reject.reason, [])
        if len(lines) < LINES_SHOWN:
            lines.append(reject.line)

    def told(self) -> dict[str, Any]:
        """As JSON, in all and for each source: `rows = used + sum of rejected`."""
        accounts = self.sources.values()
        rejected: Counter[str] = Counter()
        for account in accounts:
            rejected.update(account.rejected)
        return {
            "rows": sum(account.rows for account in accounts),
            "used": sum(account.used for account in accounts),
            "samples": sum(account.samples for account in accounts),
            "rejected": dict(sorted(rejected.items())),
            "sources": {source: account.told() for source, account in self.sources.items()},
        }


def nothing_left(path: str, ledger: Sequence[Mapping[str, Any]], *, role: str) -> DataError:
    """No row of these files is left: how many went for which reason, and what was wrong with the first."""
    entries = [entry for entry in ledger if entry["role"] == role]
    reasons: Counter[str] = Counter()
    for entry in entries:
        reasons.update(entry["rejected"])
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "all of them are held out"
    first = next((example for entry in entries for example in entry["examples"]), None)
    mend = "Lower `validation`." if first is None else f"Line {first['line']}: {first['detail']}"
    what = f"no row is left to {PURPOSES[role]}: {told}"
    return DataError(Problem(file=path if first is None else first["source"], what=what, mend=mend))
