"""What a comparison's table, page and notes say, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both
from mingshi.report.compare_scale_words import SCALED

COMPARED: dict[str, Both] = {
    **SCALED,
    "title": Both("Comparison of methods", "方法比较"),
    "model": Both("Base model: {model}; seeds: {seeds}", "基座模型：{model}；随机种子：{seeds}"),
    "takes": Both("What each method takes", "各方法的开销"),
    "method": Both("method", "方法"),
    "trains": Both("trains", "训练参数"),
    "time": Both("training time", "训练用时"),
    "speed": Both("tokens/s", "词元/秒"),
    "memory": Both("peak memory", "峰值内存"),
    "rate": Both("learning rate", "学习率"),
    "core_hours": Both("core-hours", "核时"),
    "cost": Both("cost", "费用"),
    "by_cost": Both("{name}, by {unit} of a run", "{name}（横轴：每次训练的{unit}）"),
    "base": Both("(base model)", "（基座模型）"),
    "value": Both("value", "值"),
    "interval": Both("95 % interval", "95% 置信区间"),
    "change": Both("change from base", "较基座变化"),
    "against": Both("less {first}", "减 {first}"),
    "p": Both("p (Holm)", "p 值（Holm 校正）"),
    "differs": Both("differs", "有差异"),
    "yes": Both("yes", "是"),
    "no": Both("no", "否"),
    "unclaimed": Both("no claim", "不作判断"),
    "none": Both("none", "无"),
    "to": Both("{low} to {high}", "{low} 至 {high}"),
    "lost": Both("lost", "变差"),
    "won": Both("won", "变好"),
    "retained": Both("retained", "保持率"),
    "forgetting": Both("{name}: items lost and won, share retained", "{name}：变差与变好的题数，保持率"),
    "higher": Both("higher is better", "越高越好"),
    "lower": Both("lower is better", "越低越好"),
    "failed": Both("failed", "失败"),
    "results": Both("Results", "结果"),
    "costs": Both("Cost", "开销"),
    "kept": Both("Forgetting", "遗忘"),
    "searches": Both("Learning rates", "学习率"),
    "others": Both("The other metrics", "其余指标"),
    "trade": Both("{task} against {test}: change from the base", "{task} 与 {test}：较基座的变化"),
    "gain": Both("gain: {name}", "提升：{name}"),
    "how": Both(
        "Intervals are over seeds and items: 95 %. Each method is tested against the first row on the same items and "
        "seeds, and the p-values of a metric hold for all its rows together (Holm).",
        "置信区间（95%）同时计入随机种子与题目的抽样。各方法与首行在同样的题目与种子上配对检验，"
        "同一指标的 p 值经 Holm 校正，对各行整体成立。",
    ),
    "searched": Both(
        "The same tries for every method, with a seed of their own, on validation rows alone; the line marks the rate "
        "that was chosen.",
        "各方法的尝试次数相同，种子独立，只看验证集；竖线为选定的学习率。",
    ),
    "note.tokens": Both(
        "the runs did not have one budget: {least} read {low} tokens, {most} {high}",
        "各次训练的预算不一致：{least} 读入 {low} 个词元，{most} 读入 {high} 个",
    ),
    "note.rows": Both("{name} was trained on other files than {first}", "{name} 与 {first} 使用的训练文件不同"),
    "note.seeds": Both(
        "{count} seed(s): no claim is made about differences; it takes {fewest}",
        "只有 {count} 个随机种子，不对差异作判断；至少需要 {fewest} 个",
    ),
    "note.failed": Both("{name}, {run} failed: {error}", "{name}，{run} 失败：{error}"),
    "note.edge.low": Both(
        "{name}: the lowest learning rate tried (×{factor}) was the best; a lower one may be better",
        "{name}：所试学习率中最低的（×{factor}）最好；更低的可能更好",
    ),
    "note.edge.high": Both(
        "{name}: the highest learning rate tried (×{factor}) was the best; a higher one may be better",
        "{name}：所试学习率中最高的（×{factor}）最好；更高的可能更好",
    ),
    "note.open": Both(
        "{name}: the rate chosen (×{factor}) is not clearly better on validation than {others}",
        "{name}：所选学习率（×{factor}）在验证集上与 {others} 无明显差异",
    ),
}


def compared(key: str, values: Mapping[str, object] | None = None) -> Both:
    """A text of the comparison, its places filled; a value may itself be in both languages."""
    text = COMPARED[key]
    if not values:
        return text
    english, chinese = (
        {name: value[side] if isinstance(value, Both) else value for name, value in values.items()} for side in (0, 1)
    )
    return Both(text.en.format(**english), text.zh.format(**chinese))


def noted(key: str, values: Mapping[str, object], *, loud: bool = False) -> dict[str, Any]:
    """A note as it is recorded: which it is, what it is about, and what it says in both languages."""
    said = compared(f"note.{key}", values)
    return {"note": key, "loud": loud, "about": dict(values), "said": {"en": said.en, "zh": said.zh}}
