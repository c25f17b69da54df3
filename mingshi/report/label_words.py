"""What the table, the page and the notes of a self-training say, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both

SAID: dict[str, Both] = {
    "title": Both("Self-training", "自训练标注"),
    "about": Both(
        "{model}; {seeds} seeds, {unlabelled} rows to label, {gold} gold rows: half choose, half certify",
        "{model}；种子 {seeds} 行，待标注 {unlabelled} 行，金标 {gold} 行：一半用于选择，一半用于认证",
    ),
    "copies": Both(
        "{count} rows to label were left out: their texts came before, or are seeds.",
        "待标注数据中有 {count} 行未使用：文本重复，或已在种子中。",
    ),
    "certified": Both(
        "{count} rows ({share}) are labelled, and with {confidence} confidence at most {error} of them wrongly "
        "(bound {bound}; {wrong} of {known} gold rows that are as sure are wrong).",
        "已标注 {count} 行（{share}）；以 {confidence} 的置信度，其中标错的不超过 {error}"
        "（上界 {bound}；同样有把握的 {known} 行金标中有 {wrong} 行错误）。",
    ),
    "uncertified": Both(
        "No row is labelled: no confidence leaves at most {error} errors with {confidence} confidence.",
        "没有标注任何行：在 {confidence} 的置信度下，任何阈值都不能把错误率限制在 {error} 以内。",
    ),
    "accuracy": Both(
        "The model kept is round {round}; it is right on {value} of {count} gold rows that chose nothing "
        "({low} to {high}).",
        "保留第 {round} 轮的模型；在 {count} 行未参与选择的金标上正确率为 {value}（{low} 至 {high}）。",
    ),
    "holds": Both(
        "The bound holds for rows drawn as the gold rows were; not for another source or a later time.",
        "该上界只对与金标同分布的数据成立；换了来源或时间则不成立。",
    ),
    "queue": Both(
        "{count} rows are left for a person, most useful first: {file}",
        "其余 {count} 行留给人工标注，最有用的排在最前：{file}",
    ),
    "reason.guesses": Both(
        "Stopped after the seeds: the model is no better than always saying the commonest class. Look at the seeds' "
        "labels, give more of them, or train longer.",
        "只训练了种子便停止：模型不比总猜最常见的类别更好。请检查种子的标签、增加种子或延长训练。",
    ),
    "reason.worse": Both(
        "Stopped: the last round is right on fewer gold rows than the best one, by more than a standard error.",
        "已停止：最后一轮在金标上的正确率低于最好的一轮，且差距超过一个标准误。",
    ),
    "reason.collapsed": Both(
        "Stopped: a class was hardly predicted any more: the students were drowning it.",
        "已停止：某个类别几乎不再被预测，正被学生模型淹没。",
    ),
    "reason.none_sure": Both("Stopped: no row was sure enough to train on.", "已停止：没有一行的置信度足以用于训练。"),
    "reason.rounds": Both("All rounds were carried out.", "各轮均已完成。"),
    "rounds": Both("Rounds", "各轮"),
    "round": Both("round", "轮次"),
    "first": Both("0 (seeds alone)", "0（仅种子）"),
    "kept": Both("{number} (kept)", "{number}（保留）"),
    "kept_first": Both("0 (seeds alone, kept)", "0（仅种子，保留）"),
    "trained_on": Both("rows taken", "采用行数"),
    "right": Both("right on gold (choosing half)", "金标正确率（选择半）"),
    "temperature": Both("temperature", "温度"),
    "changed": Both("labels changed", "标签变动"),
    "of_class": Both("taken as {name}", "判为{name}"),
    "threshold": Both("threshold of {name}", "{name}的阈值"),
    "predicted": Both("predicted {name}", "预测为{name}"),
    "certificate": Both("What can be certified", "可认证的范围"),
    "curve": Both("Errors by how much is labelled", "标注比例与错误率"),
    "found": Both("errors among gold rows", "金标中的错误率"),
    "bound": Both("upper bound", "上界"),
    "allowed": Both(
        "Thresholds are lowered step by step, and the first whose bound is over the dashed line ends it.",
        "阈值逐步放宽；上界首次越过虚线时停止。",
    ),
    "least": Both("least confidence", "最低置信度"),
    "known": Both("gold rows", "金标行数"),
    "wrong": Both("wrong", "错误"),
    "covered": Both("gold rows taken", "采用的金标比例"),
    "passed": Both("passes", "通过"),
    "yes": Both("yes", "是"),
    "no": Both("no", "否"),
    "classes": Both("Classes", "类别"),
    "class": Both("class", "类别"),
    "seeds": Both("seeds", "种子"),
    "gold": Both("gold", "金标"),
    "labelled": Both("labelled", "已标注"),
    "predicted_all": Both("predicted, of all rows", "全部待标注行的预测"),
}


def said(key: str, values: Mapping[str, Any] | None = None) -> Both:
    """A sentence with its values; a value of both languages is told in each."""
    text = SAID[key]
    if not values:
        return text
    sides = []
    for number, one in enumerate(text):
        sides.append(one.format(**{name: v[number] if isinstance(v, Both) else v for name, v in values.items()}))
    return Both(*sides)
