"""What a search's page, lines and notes say, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both

SEARCHED: dict[str, Both] = {
    "title": Both("Search", "超参数搜索"),
    "about": Both(
        "Base model: {model}; {count} trials, sampler {sampler}, seed {seed}; told apart by validation {metric}",
        "基座模型：{model}；{count} 次试验，采样器 {sampler}，种子 {seed}；按验证集的{metric}比较",
    ),
    "higher": Both("higher is better", "越高越好"),
    "lower": Both("lower is better", "越低越好"),
    "verdict": Both("Trial {trial} is the best: {metric} {score}.", "第 {trial} 号试验最佳：{metric} {score}。"),
    "verdict.again": Both(
        "Trial {trial} is the best: under new seeds, whole, {metric} {score}.",
        "第 {trial} 号试验最佳：换新种子完整重训，{metric} {score}。",
    ),
    "none": Both("No trial came to a score.", "没有试验得到分数。"),
    "saved": Both(
        "The trials read {read} tokens: {share} of the {whole} that training all of them whole would have taken.",
        "各试验共读入 {read} 个词元，为全部完整训练所需 {whole} 个词元的 {share}。",
    ),
    "results": Both("The best, again", "最佳试验重训"),
    "again": Both("The best trials under new seeds", "最佳试验换新种子重训"),
    "again.how": Both(
        "The trials that came furthest were run again, whole, with seeds that had no part in choosing them. Intervals "
        "are of the mean over seeds: 95 % (Student's t). Test rows were read by these runs alone.",
        "走得最远的试验用未参与挑选的新种子完整重训。区间为各种子均值的 95% 置信区间（t 分布）。"
        "测试集只由这些训练读取。",
    ),
    "tested": Both("On the test rows", "测试集"),
    "others": Both("The other metrics", "其余指标"),
    "course": Both("The search", "搜索过程"),
    "history": Both("Score of every trial", "各试验的分数"),
    "history.note": Both(
        "A trial that was stopped early is told by the score where it was stopped: it is not one of a whole run.",
        "提前停止的试验以停止处的分数表示，不等于完整训练的分数。",
    ),
    "curves": Both("Validation score by trained tokens", "验证分数随训练词元的变化"),
    "curves.note": Both(
        "Every trial has the schedule of a whole run; the dashed lines are where trials are judged. What lies beyond "
        "the frame is drawn at its edge.",
        "每次试验都按完整训练的学习率计划进行；虚线为评判处。超出图框的值画在边缘。",
    ),
    "whole": Both("trained to its end", "完整训练"),
    "stopped": Both("stopped early", "提前停止"),
    "best": Both("the best", "最佳"),
    "so.far": Both("best so far", "至今最佳"),
    "mattered": Both("What mattered", "影响大小"),
    "importance": Both("Importance of each field", "各字段的重要性"),
    "importance.note": Both(
        "Share of what tells the better trials from the others (PED-ANOVA, on the order of the trials). Of a few dozen "
        "trials this is a hint, not a measurement.",
        "区分较好试验与其余试验的作用占比（PED-ANOVA，按试验名次）。试验只有几十次时仅供参考。",
    ),
    "slices": Both("Score by field", "分数与各字段"),
    "slice": Both("{field}", "{field}"),
    "parallel": Both("Fields of every trial", "各试验的取值"),
    "parallel.note": Both(
        "From left to right the fields, then the score (better is up); each line is a trial.",
        "由左至右为各字段，最右为分数（越上越好）；每条线为一次试验。",
    ),
    "trials": Both("All trials", "全部试验"),
    "trial": Both("trial", "试验"),
    "state": Both("state", "状态"),
    "score": Both("score", "分数"),
    "tokens": Both("tokens", "词元"),
    "at": Both("at {tokens}", "{tokens} 处"),
    "command": Both("to run it by itself", "单独运行"),
    "chosen": Both("in the search", "搜索中"),
    "seed": Both("seed {seed}", "种子 {seed}"),
    "mean": Both("mean", "均值"),
    "to": Both("{low} to {high}", "{low} 至 {high}"),
    "field": Both("field", "字段"),
    "value": Both("value", "值"),
    "share": Both("share", "占比"),
    "space": Both("searched in", "搜索范围"),
    "ready": Both("The best recipe, ready to run: {command}", "最佳配方，可直接运行：{command}"),
    "state.done": Both("whole", "完整"),
    "state.pruned": Both("stopped early", "提前停止"),
    "state.failed": Both("failed", "失败"),
    "state.open": Both("unfinished", "未完成"),
    "note.failed": Both(
        "{count} trial(s) failed, trial {number} by: {reason}", "{count} 次试验失败，其中第 {number} 号：{reason}"
    ),
    "note.lucky": Both(
        "the best trial was not run again: the best of many was lucky too, so expect less of it",
        "最佳试验没有重训：多次中的最佳也靠运气，实际效果会差一些",
    ),
    "note.curse": Both(
        "the best trial came to {chosen} when it was chosen and to {again} under new seeds: {less} of it was luck",
        "最佳试验被选中时为 {chosen}，换新种子为 {again}：其中 {less} 出于运气",
    ),
    "note.held": Both(
        "the best trial came to {chosen} when it was chosen and to {again} under new seeds: its score held",
        "最佳试验被选中时为 {chosen}，换新种子为 {again}：成绩站得住",
    ),
    "note.edge.low": Both(
        "{field}: {value} lies at the low end of what was searched; less may be better",
        "{field}：{value} 处于搜索范围的下端，更小可能更好",
    ),
    "note.edge.high": Both(
        "{field}: {value} lies at the high end of what was searched; more may be better",
        "{field}：{value} 处于搜索范围的上端，更大可能更好",
    ),
    "note.random": Both(
        "{count} trials: the first {startup} are drawn at random, so nothing was learnt from them yet",
        "共 {count} 次试验：前 {startup} 次为随机抽取，尚未据此学习",
    ),
    "note.start": Both(
        "the recipe as it stood was trial 0: {score} where it was judged last ({state})",
        "原配方为第 0 号试验：最后评判处为 {score}（{state}）",
    ),
}


def said(key: str, values: Mapping[str, object] | None = None) -> Both:
    """A text of the search, its places filled; a value may itself be in both languages."""
    text = SEARCHED[key]
    if not values:
        return text
    english, chinese = (
        {name: value[side] if isinstance(value, Both) else value for name, value in values.items()} for side in (0, 1)
    )
    return Both(text.en.format(**english), text.zh.format(**chinese))


def noted(key: str, values: Mapping[str, Any], *, loud: bool = False) -> dict[str, Any]:
    """A note as it is recorded: which it is, what it is about, and what it says in both languages."""
    shown = dict(values)
    if "state" in shown:
        shown["state"] = said(f"state.{shown['state']}")
    text = said(f"note.{key}", shown)
    return {"note": key, "loud": loud, "about": dict(values), "said": {"en": text.en, "zh": text.zh}}
