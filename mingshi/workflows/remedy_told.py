"""What `mingshi balance` and `mingshi augment` say in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FAULTS: Mapping[str, tuple[str, str]] = {
    "unable": ("no word that it could change", "没有可改的词"),
    "empty": ("nothing was left", "改后为空"),
    "same": ("there already", "已有相同的文本"),
    "held_out": ("in a held-out file", "出现在留出的文件里"),
    "contradicts": ("the text of a row with another label", "与另一标签的行相同"),
    "near": ("nearly the old text", "与原文几乎相同"),
    "length": ("much longer or shorter", "长度相差太大"),
    "language": ("in another language", "换了语言"),
}
REPEATS: Mapping[str, tuple[str, str]] = {
    "equal": ("the same text", "文本完全相同"),
    "normalised": ("the same but for width, case and punctuation", "仅全半角、大小写、标点不同"),
    "near": ("nearly the same", "几乎相同"),
}


def described(told: Mapping[str, Any], *, language: str = "en") -> Iterator[str]:
    """Lines for a person: the rows, the classes, and what could not be done."""
    at = 1 if language == "zh" else 0
    rows = told["rows"]
    yield (
        f"{rows['written']} rows written to {told['output']}, of {rows['read']} read",
        f"读入 {rows['read']} 行，写出 {rows['written']} 行：{told['output']}",
    )[at]
    for one in () if "weights" in told else told["classes"]:
        name = f"{one['group']} × {one['label']}" if "group" in one else one["label"]
        yield f"  {name}: {one['before']} → {one['after']}"
    for kind, count in told.get("repeats", {}).items():
        yield (f"  {count} left out: {REPEATS[kind][0]}", f"  去掉 {count} 行：{REPEATS[kind][1]}")[at]
    for method, count in told.get("made", {}).items():
        yield (f"  {count} by {method}", f"  {method} 生成 {count} 行")[at]
    for name, count in told.get("dropped", {}).items():
        method, _, fault = name.partition(".")
        yield (
            f"  {count} not kept of {method}: {FAULTS[fault][0]}",
            f"  {method} 舍去 {count} 次：{FAULTS[fault][1]}",
        )[at]
    if told.get("lacking"):
        yield (
            f"! {told['lacking']} rows are lacking: nothing new came out any more",
            f"! 还差 {told['lacking']} 行：再也生成不出新的文本",
        )[at]
    if told.get("capped"):
        names = ", ".join(f"{one['group']} {one['label']}".strip() for one in told["capped"])
        yield (f"! held back by --cap: {names}", f"! 受 --cap 限制：{names}")[at]
    for one in told.get("weights", ()):
        yield f"  {one['group']} × {one['label']}: row_weight {one['weight']:.3f}"
    if "effective" in told:
        yield (
            f"  the weighted rows say as much as {told['effective']:.0f} rows of equal weight",
            f"  加权后的信息量相当于 {told['effective']:.0f} 行等权的数据",
        )[at]
    if told["lines"]["unreadable"]:
        count = len(told["lines"]["unreadable"])
        yield (f"! {count} rows could not be read and are left out", f"! {count} 行无法读取，未写出")[at]
    yield (f"lineage  {told['lineage']}", f"来历  {told['lineage']}")[at]
