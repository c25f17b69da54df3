"""`mingshi repair`: a new file without the rows that findings speak against, and with labels that were reviewed.

The file itself is never changed. Beside the new one lies `<name>.lineage.json`: what it was made of, and what became
of every row that is not as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mingshi import provenance
from mingshi.data.formats.rows import Row, file_rows, row_count
from mingshi.display import Display, Silent
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.places import require_writable
from mingshi.types import Reject
from mingshi.workflows.rows_written import lineage_of, write_rows

OF_WHOLES = ("balance", "bias", "drift", "semantic")  # checks that speak of files as wholes, or only ask to be read


def repair(
    path: Path,
    output: Path,
    *,
    findings: Path | None = None,
    drop: Sequence[str] = (),
    review: Path | None = None,
    label: str = "label",
    display: Display | None = None,
) -> dict[str, Any]:
    """Write the rows of `path` that stay, in their order, as JSON lines; what was done is returned.

    `drop` names checks, or kinds of them (`leakage`, `leakage.near`), whose rows go. `review` holds rows of
    suspects.jsonl: where `accept` is true, `suggested` takes the place of the field `label`. Raises RecipeError or
    DataError where that does not fit the file.
    """
    display = display or Silent()
    if output.suffix != ".jsonl":
        raise RecipeError(Problem(file=str(output), what="rows are written as JSON lines", mend="Name it .jsonl."))
    require_writable(output, data=path)
    source = provenance.fingerprint_file(path)
    dropped = _dropped(path, source["sha256"], findings, drop) if drop else {}
    labels = _accepted(path, review) if review is not None else {}
    if not dropped and not labels:
        raise RecipeError("nothing is to be repaired", "Say what: --drop leakage,contradictions, or --review FILE.")
    told: dict[str, Any] = {"dropped": {}, "relabelled": {}, "unreadable": []}
    rows = display.track(file_rows(str(path)), row_count(str(path)), "repair")
    mended = (fields for row in rows if (fields := _mended(row, dropped, labels, label, told)) is not None)

    def lineage(kept: int) -> dict[str, Any]:
        if not kept:
            raise DataError(Problem(file=str(path), what="no row would be left", mend="Drop fewer kinds of rows."))
        return _report(source, findings, review, told, kept)

    report = write_rows(output, mended, lineage)
    return {**report, "output": str(output), "lineage": str(lineage_of(output))}


def _mended(
    row: Row | Reject, dropped: Mapping[int, str], labels: Mapping[int, str], label: str, told: dict[str, Any]
) -> Mapping[str, Any] | None:
    """What is written of one row; None where it goes."""
    if isinstance(row, Reject):
        told["unreadable"].append(row.line)
        return None
    if row.line in dropped:
        told["dropped"][row.line] = dropped[row.line]
        return None
    if row.line not in labels:
        return row.fields
    if label not in row.fields:
        mend = "Name the field of the labels: --label-field NAME."
        raise DataError(Problem(file=row.source, line=row.line, field=label, what="is not there", mend=mend))
    told["relabelled"][row.line] = {"from": row.fields[label], "to": labels[row.line]}
    return {**row.fields, label: labels[row.line]}


def _report(
    source: Mapping[str, Any], findings: Path | None, review: Path | None, told: Mapping[str, Any], kept: int
) -> dict[str, Any]:
    gone = len(told["dropped"]) + len(told["unreadable"])
    return {
        "source": source,
        "findings": provenance.fingerprint_file(findings) if findings else None,
        "review": provenance.fingerprint_file(review) if review else None,
        "rows": {"read": kept + gone, "written": kept, "relabelled": len(told["relabelled"])},
        "dropped": dict(Counter(told["dropped"].values()))
        | ({"unreadable": len(told["unreadable"])} if told["unreadable"] else {}),
        "lines": told,
    }


# What the findings say


def _dropped(path: Path, sha256: str, findings: Path | None, drop: Sequence[str]) -> dict[int, str]:
    """Lines of the file that go, each with the first finding that says so."""
    if findings is None:
        raise RecipeError("--drop needs the findings of `mingshi check`", "Say where: --findings health/findings.json.")
    told = _read(findings)
    names = _names_of(told, path, sha256, findings)
    known = {f"{one['check']}.{one['kind']}" for one in told["findings"]} | {one["check"] for one in told["findings"]}
    for name in drop:
        if name not in known:
            mend = f"There are {', '.join(sorted(known))}."
            raise RecipeError(Problem(file=str(findings), what=f"holds no finding {name!r}", mend=mend))
        if name.partition(".")[0] in OF_WHOLES:
            what = f"{name} says what a file is like, not which of its rows are wrong"
            raise RecipeError(f"--drop {name}: {what}", "Leave it out; the finding says what helps.")
    lines: dict[int, str] = {}
    for name in drop:
        rows = {row["line"]: kind for kind, row in _rows(told["findings"], name) if row["source"] in names}
        if not rows:
            raise RecipeError(
                f"--drop {name}: it names no row of {path}", "Leave it out, or name the file that it names."
            )
        lines = rows | lines
    return lines


def _rows(findings: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a check, or of one kind of it, each with its kind."""
    for one in findings:
        kind = f"{one['check']}.{one['kind']}"
        if name in (kind, one["check"]):
            yield from ((kind, row) for row in one["rows"])


def _names_of(told: Mapping[str, Any], path: Path, sha256: str, findings: Path) -> Collection[str]:
    """Under which names the findings speak of this file; DataError where it has changed since, or was not looked at."""
    files = [file for split in told["splits"].values() for file in split["files"]]
    names = [file["path"] for file in files if Path(file["path"]).resolve() == path.resolve()]
    if not names:
        mend = f"Check it first: mingshi check {path}."
        raise DataError(Problem(file=str(findings), what=f"is not about {path}", mend=mend))
    if sha256 not in {file["sha256"] for file in files if file["path"] in names}:
        raise DataError(Problem(file=str(path), what="has changed since it was checked", mend="Check it again."))
    return names


def _read(findings: Path) -> dict[str, Any]:
    try:
        told = orjson.loads(findings.read_bytes())
        if isinstance(told["findings"], list) and isinstance(told["splits"], dict):
            return dict(told)
    except (KeyError, TypeError, orjson.JSONDecodeError):
        pass
    except OSError as error:
        what, mend = f"cannot be read ({error.strerror or error})", "Give it what `mingshi check` wrote."
        raise DataError(Problem(file=str(findings), what=what, mend=mend)) from error
    raise DataError(Problem(file=str(findings), what="holds no findings", mend="Give it what `mingshi check` wrote."))


# What a person says


def _accepted(path: Path, review: Path) -> dict[int, str]:
    """The new label of each line that was accepted."""
    labels = {}
    for row in _reviewed(review):
        missing = [name for name in ("source", "line", "suggested", "accept") if name not in row.fields]
        if missing:
            mend = "Give it the suspects.jsonl that `mingshi check` wrote."
            raise DataError(Problem(file=str(review), line=row.line, field=missing[0], what="is missing", mend=mend))
        if not isinstance(row.fields["accept"], bool | None):
            what, mend = "is neither true, false nor null", "Write true for a label that is to be changed."
            raise DataError(Problem(file=str(review), line=row.line, field="accept", what=what, mend=mend))
        if row.fields["accept"] and Path(str(row.fields["source"])).resolve() == path.resolve():
            labels[int(row.fields["line"])] = str(row.fields["suggested"])
    return labels


def _reviewed(review: Path) -> Iterator[Row]:
    for row in file_rows(str(review)):
        if isinstance(row, Reject):
            raise DataError(Problem(file=str(review), line=row.line, what=row.detail))
        yield row
