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

from mingshi.checks.balance import Balance
from mingshi.checks.bias import Bias
from mingshi.checks.contradictions import Contradictions
from mingshi.checks.drift import Drift
from mingshi.checks.labels import Labels
from mingshi.checks.leakage import Leakage
from mingshi.checks.rows import SPLITS, Check, Places, Row, Split, rows_of
from mingshi.checks.rows_scored import RowsScored
from mingshi.checks.safety import Safety, read_words
from mingshi.checks.semantic import Semantic
from mingshi.checks.states import States
from mingshi.checks.wording import Wording
from mingshi.data.formats import DataSource, read
from mingshi.data.formats.rows import file_rows
from mingshi.display import Display, Silent
from mingshi.errors import DataError, RecipeError
from mingshi.provenance import fingerprint_file
from mingshi.types import Finding, Reject, Settings
from mingshi.workflows import check_written

SEVERITIES = ("error", "warning", "note")
SHOWN = 500  # characters of a row that is in doubt
NAMED = 20  # fields in an error


class Health(Settings):
    """What is looked at besides the rows."""

    protected: tuple[str, ...] = ()
    """Attributes of people: which groups have which labels."""
    words: str | None = None
    """A file of words, one a line, that texts are not to hold."""
    encoder: str | None = None
    """A text encoder, by name or folder: it judges labels too, and finds what is on both sides in other words."""
    scorer: str | None = None
    """A language model, by name or folder, that scores answers with and without their prompts."""
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

    With `output` also written there: findings.json, report.html, and suspects.jsonl, the labels in doubt, where a
    person may accept what is suggested (`mingshi repair --review`). Raises DataError for a file that cannot be read or
    has no row that can be used, RecipeError where `output` is somebody else's folder or no row has a renamed field.
    """
    display, wanted = display or Silent(), wanted or Health()
    if output is not None:
        check_written.claim(output)
    _require_columns(sources)
    leakage = Leakage()
    words = read_words(Path(wanted.words)) if wanted.words else ()
    states = States(wanted.encoder) if wanted.encoder else None
    semantic = Semantic(states) if states else None
    labels = Labels(seed=wanted.seed, states=states)
    others: list[Check] = [Contradictions(), labels, Wording(), Safety(words), Balance()]
    others += [Drift(seed=wanted.seed), Bias(wanted.protected, seed=wanted.seed)]
    others += [RowsScored(wanted.scorer)] if wanted.scorer else []
    ledger = _Ledger()
    for row in _rows(sources, display, "read", ledger):
        leakage.add(row)
        for each in (*others, semantic) if semantic else others:
            each.add(row)
    ledger.require_rows(sources)
    findings = [*ledger.findings()]
    for each in display.track(others, len(others), "judge"):
        findings += each.findings()
    doubted = {
        (row["source"], row["line"]): "" for one in findings if _is_read(one.check, one.kind) for row in one.rows
    }
    for row in _rows(sources, display, "compare"):
        leakage.again(row)
        if semantic:
            semantic.again(row)
        if (row.source, row.line) in doubted:
            doubted[row.source, row.line] = row.text[:SHOWN]
    findings = [
        *leakage.findings(),
        *(semantic.findings() if semantic else ()),
        *(_quoted(one, doubted) for one in findings),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    told = {
        "rows": sum(ledger.used.values()),
        "splits": {split: ledger.told(split, sources[split]) for split in SPLITS if split in sources},
        "findings": [asdict(finding) for finding in findings],
    }
    if output is not None:
        suspects = [row for one in findings if _is_doubt(one.check, one.kind) for row in one.rows]
        if said := check_written.write(output, told, suspects, language=language):
            display.say(said)
    return told


def _require_columns(sources: Sources) -> None:
    """RecipeError where a field that is renamed is in no row of any file: a label misspelt would be no label."""
    given = [source for of_split in sources.values() for source in of_split]
    missing = {theirs: ours for source in given for ours, theirs in source.columns.items()}
    seen = dict[str, None]()
    for row in (row for source in given for row in file_rows(source.path)):
        if not missing:
            return
        if not isinstance(row, Reject):
            seen |= dict.fromkeys(row.fields)
            missing = {theirs: ours for theirs, ours in missing.items() if theirs not in row.fields}
    if missing and seen:
        told = ", ".join(f"--column {ours}={theirs}" for theirs, ours in missing.items())
        raise RecipeError(f"{told}: no row has such a field", f"There are {', '.join(list(seen)[:NAMED])}.")


def _is_doubt(check: str, kind: str) -> bool:
    return (check, kind) == ("labels", "suspect")


def _is_read(check: str, kind: str) -> bool:
    """Whether a person is to read the rows."""
    return _is_doubt(check, kind) or check == "scored"


def _quoted(finding: Finding, texts: Mapping[tuple[str, int], str]) -> Finding:
    """Rows in doubt with their texts: who reviews them wants to read."""
    if not _is_read(finding.check, finding.kind):
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
        self.rejected: dict[tuple[Split, str], Places] = {}  # by reason

    def add(self, row: Row | Reject, split: Split) -> None:
        if isinstance(row, Row):
            self.used[split] += 1
        else:
            self.rejected.setdefault((split, row.reason), Places()).add(row, split, row.detail, shown=1)

    def require_rows(self, sources: Sources) -> None:
        """DataError where a file's rows all went, which is no state to report on."""
        for split, of_split in sources.items():
            if not self.used[split]:
                first = next((gone.examples[0] for (where, _), gone in self.rejected.items() if where == split), None)
                why = f": {first['text']}" if first else ""
                what = f"no row of {', '.join(source.path for source in of_split)} can be used{why}"
                raise DataError(what, "Give it rows of a known format, or rename fields with --column.")

    def _counts(self, split: Split) -> dict[str, int]:
        """Rows that went, by reason."""
        return {reason: gone.splits.total() for (where, reason), gone in self.rejected.items() if where == split}

    def told(self, split: Split, sources: Sequence[DataSource]) -> dict[str, Any]:
        rejected = self._counts(split)
        files = [{**fingerprint_file(Path(source.path)), "path": source.path} for source in sources]
        read_in_all = self.used[split] + sum(rejected.values())
        return {"files": files, "read": read_in_all, "used": self.used[split], "rejected": rejected}

    def findings(self) -> Iterator[Finding]:
        for (split, reason), gone in self.rejected.items():
            count, detail = gone.splits.total(), gone.examples[0]["text"]
            in_all = self.used[split] + sum(self._counts(split).values())
            yield Finding(
                check="rows",
                kind="unread",
                severity="warning",
                count=count,
                message=f"{count} of {in_all} rows of {split} cannot be used ({reason}): {detail}",
                rows=gone.told(),
                remedy="Mend these rows, or train with `on_bad_row: skip`.",
                evidence={"split": split, "reason": reason, "of": in_all, "detail": detail},
            )
