"""`mingshi check`: what is wrong with rows before anything is trained on them; findings and one page.

Two readings of the files: every check looks at every row once, and those that must compare texts look again. Nothing is
held but numbers and samples, and no file is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from mingshi.checks.balance import Balance
from mingshi.checks.bias import Bias
from mingshi.checks.contradictions import Contradictions
from mingshi.checks.drift import Drift
from mingshi.checks.labels import Labels
from mingshi.checks.leakage import Leakage
from mingshi.checks.rows import SPLITS, Check, Row, Split, rows_of
from mingshi.checks.safety import Safety, read_words
from mingshi.checks.wording import Wording
from mingshi.data.formats import DataSource, read
from mingshi.display import Display, Silent
from mingshi.errors import DataError
from mingshi.provenance import fingerprint_file
from mingshi.report.health import write_health
from mingshi.types import Finding, Reject, Settings

SEVERITIES = ("error", "warning", "note")
SHOWN = 500  # characters of a text whose label is in doubt
LISTED = 20  # rows that could not be used, named for each reason


class Health(Settings):
    """What is looked at besides the rows."""

    protected: tuple[str, ...] = ()
    """Attributes of people: which groups have which labels."""
    words: str | None = None
    """A file of words, one a line, that texts are not to hold."""
    seed: int = 0


Sources = Mapping[Split, Sequence[DataSource]]


def check(
    sources: Sources,
    wanted: Health | None = None,
    *,
    output: Path | None = None,
    display: Display | None = None,
    language: str = "en",
) -> dict[str, Any]:
    """Findings on files of rows, the worst first: `{"rows", "splits", "findings"}`.

    With `output` also written there, as findings.json and report.html. Raises DataError for a file that cannot be read
    or has no row that can be used.
    """
    display, wanted = display or Silent(), wanted or Health()
    leakage = Leakage()
    words = read_words(Path(wanted.words)) if wanted.words else ()
    others: list[Check] = [Contradictions(), Labels(seed=wanted.seed), Wording(), Safety(words), Balance()]
    others += [Drift(seed=wanted.seed), Bias(wanted.protected, seed=wanted.seed)]
    ledger = _Ledger()
    for row in _rows(sources, display, "read", ledger):
        leakage.add(row)
        for each in others:
            each.add(row)
    ledger.require_rows(sources)
    findings = [*ledger.findings()]
    for each in display.track(others, len(others), "judge"):
        findings += each.findings()
    doubted = {
        (row["source"], row["line"]): "" for one in findings if _is_doubt(one.check, one.kind) for row in one.rows
    }
    for row in _rows(sources, display, "compare"):
        leakage.again(row)
        if (row.source, row.line) in doubted:
            doubted[row.source, row.line] = row.text[:SHOWN]
    findings = [*leakage.findings(), *(_quoted(one, doubted) for one in findings)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    told = {
        "rows": sum(ledger.used.values()),
        "splits": {split: ledger.told(split, sources[split]) for split in SPLITS if split in sources},
        "findings": [asdict(finding) for finding in findings],
    }
    if output is not None:
        _write(output, told, language)
    return told


def _write(output: Path, told: Mapping[str, Any], language: str) -> None:
    """The findings, the page, and the labels in doubt, for a person to accept or not."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "findings.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    suspects = [row for one in told["findings"] if _is_doubt(one["check"], one["kind"]) for row in one["rows"]]
    lines = (orjson.dumps({**row, "accept": None}, option=orjson.OPT_APPEND_NEWLINE) for row in suspects)
    (output / "suspects.jsonl").write_bytes(b"".join(lines))
    write_health(output, told, language=language)


def _is_doubt(check: str, kind: str) -> bool:
    return (check, kind) == ("labels", "suspect")


def _quoted(finding: Finding, texts: Mapping[tuple[str, int], str]) -> Finding:
    """Labels in doubt with their texts: who reviews them wants to read."""
    if not _is_doubt(finding.check, finding.kind):
        return finding
    return replace(finding, rows=[{**row, "text": texts[row["source"], row["line"]]} for row in finding.rows])


def _rows(sources: Sources, display: Display, what: str, ledger: _Ledger | None = None) -> Iterator[Row]:
    """Rows that can be used, split by split."""
    for split in SPLITS:
        for source in sources.get(split, ()):
            for row in display.track(rows_of(read(source), split), None, f"{what} {split}"):
                if ledger is not None:
                    ledger.add(row, split)
                if isinstance(row, Row):
                    yield row


class _Ledger:
    """What became of the rows."""

    def __init__(self) -> None:
        self.used = Counter[Split]()
        self.rejected: dict[tuple[Split, str], list[Reject]] = {}
        self.counts = Counter[tuple[Split, str]]()

    def add(self, row: Row | Reject, split: Split) -> None:
        if isinstance(row, Row):
            self.used[split] += 1
            return
        self.counts[split, row.reason] += 1
        listed = self.rejected.setdefault((split, row.reason), [])
        if len(listed) < LISTED:
            listed.append(row)

    def require_rows(self, sources: Sources) -> None:
        """DataError where a file's rows all went, which is no state to report on."""
        for split, of_split in sources.items():
            if not self.used[split]:
                first = next((rows[0] for (where, _), rows in self.rejected.items() if where == split), None)
                why = f": {first.detail}" if first else ""
                what = f"no row of {', '.join(source.path for source in of_split)} can be used{why}"
                raise DataError(what, "Give it rows of a known format, or rename fields with --column.")

    def told(self, split: Split, sources: Sequence[DataSource]) -> dict[str, Any]:
        rejected = {reason: count for (where, reason), count in self.counts.items() if where == split}
        files = [{**fingerprint_file(Path(source.path)), "path": source.path} for source in sources]
        read_in_all = self.used[split] + sum(rejected.values())
        return {"files": files, "read": read_in_all, "used": self.used[split], "rejected": rejected}

    def findings(self) -> Iterator[Finding]:
        for (split, reason), count in self.counts.items():
            listed = self.rejected[split, reason]
            in_all = self.used[split] + sum(each for (where, _), each in self.counts.items() if where == split)
            yield Finding(
                check="rows",
                kind="unread",
                severity="warning",
                count=count,
                message=f"{count} of {in_all} rows of {split} cannot be used ({reason}): {listed[0].detail}",
                rows=[{"source": row.source, "line": row.line} for row in listed],
                remedy="Mend these rows, or train with `on_bad_row: skip`.",
                evidence={"split": split, "reason": reason, "of": in_all, "detail": listed[0].detail},
            )
