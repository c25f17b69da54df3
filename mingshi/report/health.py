"""One HTML file that tells what `mingshi check` found, in Chinese and English: opens offline, does nothing but show.

Everything that came from data is escaped by construction, as in page.py; what two texts share is marked span by span.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mingshi.report.both import Both
from mingshi.report.marks import visible_html
from mingshi.report.numbers import figure, share
from mingshi.report.page import environment
from mingshi.report.words import plain
from mingshi.report.words_health import message, remedy, said, split_name, title

PAIRS_AT_MOST = 10
ROWS_AT_MOST = 12
CLASSES_AT_MOST = 30
LABELS_AT_MOST = 8  # columns
TEXT_AT_MOST = 400  # characters of one text

Record = Mapping[str, Any]


def write_health(folder: Path, told: Record, *, language: str = "en") -> Path:
    """Write the folder's `report.html`, whole or not at all, and return that file's path."""
    path = folder / "report.html"
    draft = folder / f".report.{os.getpid()}.html"
    draft.write_text(render(told, language=language), encoding="utf-8")
    draft.replace(path)
    return path


def render(told: Record, *, language: str = "en") -> str:
    """The page, opening in `language` (en or zh). Equal findings give equal bytes."""
    findings = [each for each in told["findings"] if each["kind"] != "summary"]
    loud = [each for each in findings if each["severity"] != "note"]
    counts = [
        (name, sum(each["severity"] == name[:-1] for each in findings)) for name in ("errors", "warnings", "notes")
    ]
    first = next(iter(told["splits"].values()))["files"][0]["path"]
    return (
        environment()
        .get_template("health.html")
        .render(
            language=language,
            said=said,
            title=Path(first).name,
            rows=[
                said("rows", {"split": split_name(split), "used": f"{one['used']:,}"})
                for split, one in told["splits"].items()
            ],
            counts=[said(name, {"count": count}) for name, count in counts if count],
            loud=[_section(each) for each in loud],
            notes=[_section(each) for each in findings if each["severity"] == "note"],
            tables=list(_overview(told["findings"])),
        )
    )


def _section(finding: Record) -> dict[str, Any]:
    """One finding: what, how many, where, what to do, and the texts that show it."""
    rows = finding["rows"]
    return {
        "severity": finding["severity"],
        "title": title(finding["check"], finding["kind"]),
        "count": f"{finding['count']:,}",
        "message": message(finding),
        "remedy": remedy(finding),
        "pairs": [_pair(each) for each in finding["evidence"].get("pairs", ())[:PAIRS_AT_MOST]],
        "groups": [_group(each) for each in finding["evidence"].get("groups", ())[:PAIRS_AT_MOST]]
        if finding["check"] == "contradictions"
        else [],
        "tables": list(_tables(finding)),
        "rows": [_place(row) for row in rows[:ROWS_AT_MOST]],
        "others": said("others", {"count": f"{len(rows) - ROWS_AT_MOST:,}"}) if len(rows) > ROWS_AT_MOST else None,
    }


def _place(row: Record) -> str:
    place = f"{row['source']}:{row['line']}"
    return f"{place} = {row['with']['source']}:{row['with']['line']}" if "with" in row else place


# Texts beside each other


def _pair(pair: Record) -> list[dict[str, Any]]:
    return [
        {"place": _place(side), "text": _marked(side["text"], side["spans"])}
        for side in (pair["first"], pair["second"])
    ]


def _marked(text: str, spans: Sequence[Sequence[int]]) -> Markup:
    """The text with what it shares in <mark>."""
    made, at = Markup(""), 0
    for start, end in spans:
        made += visible_html(text[at:start]) + Markup("<mark>") + visible_html(text[start:end]) + Markup("</mark>")
        at = end
    return made + visible_html(text[at:])


def _group(group: Record) -> dict[str, Any]:
    return {
        "text": visible_html(group["text"][:TEXT_AT_MOST]),
        "rows": [(_place(row), str(row.get("label", ""))) for row in group["rows"]],
    }


# Tables: a caption, the names of the columns, and the cells


def _table(caption: Both, head: Sequence[Both], rows: Iterable[Sequence[Both]]) -> dict[str, Any]:
    return {"caption": caption, "head": head, "rows": list(rows)}


def _tables(finding: Record) -> Iterable[dict[str, Any]]:
    evidence = finding["evidence"]
    match finding["check"], finding["kind"]:
        case "labels", "suspect":
            head = [said(key) for key in ("file", "text", "given", "suggested", "probability", "probability_suggested")]
            rows = [_suspect(row) for row in finding["rows"][:ROWS_AT_MOST]]
            yield _table(said("suspects"), head, rows)
        case "scored", _ if finding["rows"]:
            head = [said(key) for key in ("file", "text", "difficulty", "token_probability")]
            yield _table(said("scored"), head, [_scored(row) for row in finding["rows"][:ROWS_AT_MOST]])
        case "drift", "texts":
            yield from _drift(evidence)
        case "drift", "labels":
            yield _label_shift(evidence)
        case "bias", _ if "groups" in evidence:
            yield _shares(evidence)
    if examples := [each for each in evidence.get("examples", ()) if isinstance(each, Mapping) and "text" in each]:
        rows = [[plain(_place(each)), plain(each["text"], TEXT_AT_MOST)] for each in examples[:ROWS_AT_MOST]]
        yield _table(said("examples"), [said("file"), said("text")], rows)


def _suspect(row: Record) -> list[Both]:
    chances = [plain(figure(row[name], 2)) for name in ("probability", "probability_suggested")]
    text = plain(row.get("text", ""), TEXT_AT_MOST)
    return [plain(_place(row)), text, plain(row["label"]), plain(row["suggested"]), *chances]


def _scored(row: Record) -> list[Both]:
    numbers = [plain(figure(row[name], 2)) for name in ("difficulty", "probability")]
    return [plain(_place(row)), plain(row.get("text", ""), TEXT_AT_MOST), *numbers]


def _drift(evidence: Record) -> Iterable[dict[str, Any]]:
    against = split_name(evidence["against"])
    areas = [[plain(name), _interval(area)] for name, area in evidence["areas"].items()]
    yield _table(said("areas"), [said("learner"), said("area")], areas)
    words = [
        [plain(word["word"]), plain(figure(word["train"])), plain(figure(word["new"]))]
        for words in evidence["words"].values()
        for word in words[:ROWS_AT_MOST]
    ]
    yield _table(said("words"), [said("word"), said("times_train"), said("times_new", {"split": against})], words)
    rows = [[plain(_place(row["place"])), plain(row["text"], TEXT_AT_MOST)] for row in evidence["most_new"]]
    yield _table(said("most_new"), [said("file"), said("text")], rows)


def _label_shift(evidence: Record) -> dict[str, Any]:
    labels = evidence["labels"]
    head = [said("class"), split_name("train"), split_name(evidence["against"])]
    rows = [
        [plain(name), *(plain(figure(count)) for count in counts)]
        for name, counts in list(labels["counts"].items())[:CLASSES_AT_MOST]
    ]
    return _table(said("classes"), head, rows)


def _shares(evidence: Record) -> dict[str, Any]:
    groups = evidence["groups"]
    labels = list(next(iter(groups.values()))["labels"])[:LABELS_AT_MOST]
    rows = [
        [
            plain(name),
            plain(figure(group["rows"])),
            *(_interval(group["labels"][label], percent=True) for label in labels),
        ]
        for name, group in groups.items()
    ]
    head = [said("group"), said("number"), *(plain(label) for label in labels)]
    return _table(said("shares", {"attribute": evidence["attribute"]}), head, rows)


def _interval(score: Record, *, percent: bool = False) -> Both:
    if percent:
        middle, first, last = (share(score[name], 1.0) for name in ("value", "low", "high"))
        return Both(f"{middle.en} ({first.en} to {last.en})", f"{middle.zh}（{first.zh} 至 {last.zh}）")
    value, low, high = (figure(score[name], 3) for name in ("value", "low", "high"))
    return Both(f"{value} ({low} to {high})", f"{value}（{low} 至 {high}）")


# What the rows are


def _overview(findings: Sequence[Record]) -> Iterable[dict[str, Any]]:
    """Tables of each split, from the check of balance."""
    summary = next((each for each in findings if (each["check"], each["kind"]) == ("balance", "summary")), None)
    for split, tables in (summary["evidence"]["splits"] if summary else {}).items():
        for key, column, name in (
            ("classes", "class", plain),
            ("languages", "languages", _language),
            ("sources", "file", plain),
        ):
            counts = tables.get(key) or {}
            if len(counts) > (key != "classes"):
                total = sum(counts.values())
                rows = [
                    [name(each), plain(figure(count)), share(count, total)]
                    for each, count in list(counts.items())[:CLASSES_AT_MOST]
                ]
                caption = Both(f"{split}: {said(key).en}", f"{split_name(split).zh}：{said(key).zh}")
                yield _table(caption, [said(column), said("number"), said("share")], rows)
        yield _lengths(split, tables["characters"])


def _language(name: str) -> Both:
    known = {"Chinese": "language.chinese", "Latin": "language.latin", "none": "language.none"}
    return said(known[name]) if name in known else plain(name)


def _lengths(split: str, characters: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    measures = list(next(iter(characters.values())))
    rows = [
        [said(part), *(plain(figure(float(found[each]), 0)) for each in measures)]
        for part, found in characters.items()
        if found
    ]
    caption = Both(f"{split}: {said('lengths').en}", f"{split_name(split).zh}：{said('lengths').zh}")
    return _table(caption, [said("part"), *(_measure(each) for each in measures)], rows)


def _measure(name: str) -> Both:
    """A quantile, or the mean."""
    return Both(name, "平均") if name == "mean" else Both(f"{name} %", f"{name}% 分位")
