"""What `mingshi score` found, as lines for a person, in English or Chinese."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mingshi.report.both import Both
from mingshi.types import Score

MOST_SHOWN = 12  # classes of a confusion matrix in a terminal

WORDS: dict[str, Both] = {
    "rows": Both("{read} rows read = {used} used{rejected}", "读入 {read} 行 = 使用 {used} 行{rejected}"),
    "rejected": Both(" + {count} {reason}", " + {count} 行不可用（{reason}）"),
    "resampled": Both(
        "{count} units are resampled; the rows of a group stay together",
        "重抽样单位 {count} 个；同组的行不拆开",
    ),
    "metric": Both("metric", "指标"),
    "value": Both("value", "值"),
    "interval": Both("95 % interval", "95% 置信区间"),
    "signature": Both("signature", "签名"),
    "none": Both("none", "无"),
    "to": Both("{low} to {high}", "{low} 至 {high}"),
    "confusion": Both("true class (down), predicted class (across)", "真实类别（行）与预测类别（列）"),
    "other": Both("{path}:", "{path}："),
    "paired": Both("{first} less {second}, on the same rows:", "{first} 减去 {second}（同样的行）："),
    "difference": Both("difference", "差"),
    "p": Both("p (Holm)", "p 值（Holm 校正）"),
    "differs": Both("differs", "有差异"),
    "yes": Both("yes", "是"),
    "no": Both("no", "否"),
    "test": Both("test", "检验"),
    "exact McNemar": Both("exact McNemar", "McNemar 精确检验"),
    "paired randomisation": Both("paired randomisation", "配对随机化检验"),
}


def described(report: Mapping[str, Any], paths: Sequence[str], *, language: str) -> list[str]:
    """Rows, scores, the confusion matrix, and the comparison, as tables."""
    rejected = "".join(
        _word("rejected", language).format(count=count, reason=reason) for reason, count in report["rejected"].items()
    )
    lines = [_word("rows", language).format(read=report["read"], used=report["used"], rejected=rejected)]
    if "resampled" in report:
        lines.append(_word("resampled", language).format(count=report["resampled"]))
    lines += ["", *_scores(report["metrics"], language)]
    if "confusion" in report and len(report["confusion"]["classes"]) <= MOST_SHOWN:
        lines += ["", _word("confusion", language), *_confusion(report["confusion"])]
    if "paired" in report:
        lines += ["", _word("other", language).format(path=paths[1]), *_scores(report["other"], language)]
        lines += ["", _word("paired", language).format(first=paths[0], second=paths[1])]
        lines += _paired(report["paired"], language)
    return lines


def _scores(scores: Mapping[str, Score], language: str) -> list[str]:
    head = [_word(name, language) for name in ("metric", "value", "interval", "signature")]
    rows = [
        [name, f"{score.value:.4f}", _interval(score.low, score.high, ".4f", language), score.signature]
        for name, score in scores.items()
    ]
    return table([head, *rows])


def _paired(paired: Mapping[str, Mapping[str, Any]], language: str) -> list[str]:
    head = [_word(name, language) for name in ("metric", "difference", "interval", "p", "differs", "test")]
    rows = [
        [
            name,
            f"{each['value']:+.4f}",
            _interval(each["low"], each["high"], "+.4f", language),
            f"{each['p_holm']:.4f}",
            _word("yes" if each["differs"] else "no", language),
            _word(each["test"], language),
        ]
        for name, each in paired.items()
    ]
    return table([head, *rows])


def _confusion(confusion: Mapping[str, Any]) -> list[str]:
    rows = [[name, *map(str, counts)] for name, counts in zip(confusion["classes"], confusion["counts"], strict=True)]
    return table([["", *confusion["classes"]], *rows])


def _interval(low: float, high: float, form: str, language: str) -> str:
    if not math.isfinite(low):
        return _word("none", language)
    return _word("to", language).format(low=f"{low:{form}}", high=f"{high:{form}}")


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; a Chinese character takes two places in a terminal."""
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _word(name: str, language: str) -> str:
    return WORDS[name].zh if language == "zh" else WORDS[name].en
