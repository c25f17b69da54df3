"""What the table, the page and the notes of a mixture of skills say, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both

SAID: dict[str, Both] = {
    "title": Both("Strategies for several skills", "多技能训练策略"),
    "about": Both(
        "Base model: {model}; general skill: {general}; {budget} trained tokens for each strategy; seeds: {seeds}",
        "基座模型：{model}；通用技能：{general}；每种策略训练 {budget} 个词元；随机种子：{seeds}",
    ),
    "strategy": Both("strategy", "策略"),
    "skill": Both("skill", "技能"),
    "base": Both("(base model)", "（基座模型）"),
    "mean": Both("mean of skills", "各技能平均"),
    "multi_task": Both("multi-task", "多任务混合"),
    "sequential": Both("sequential", "顺序训练"),
    "mixed_sequential": Both("mixed, then general", "先混合专项，后通用"),
    "dmt": Both("DMT, k = {k}", "DMT，k = {k}"),
    "experts_first": Both("best expert, then mixture", "最佳专家起步，再混合训练"),
    "alone": Both("expert: {skill}", "专家：{skill}"),
    "merge": Both("experts merged: {how}", "专家合并：{how}"),
    "distill": Both("experts distilled: {how}", "专家蒸馏：{how}"),
    "results": Both("Results", "结果"),
    "matrix": Both("Strategies by skills", "策略与技能"),
    "shade": Both(
        "The darker, the better within a skill; of equal values all are light.",
        "同一技能内颜色越深越好；数值相同时均为浅色。",
    ),
    "value": Both("value", "值"),
    "interval": Both("95 % interval", "95% 置信区间"),
    "to": Both("{low} to {high}", "{low} 至 {high}"),
    "against": Both("less multi-task", "减多任务混合"),
    "p": Both("p (Holm)", "p 值（Holm 校正）"),
    "differs": Both("differs", "有差异"),
    "yes": Both("yes", "是"),
    "no": Both("no", "否"),
    "unclaimed": Both("no claim", "不作判断"),
    "failed": Both("failed", "失败"),
    "how": Both(
        "Intervals are over seeds and items: 95 %. Each strategy is tested against multi-task on the same items and "
        "seeds, and the p-values of a skill hold for all strategies together (Holm).",
        "置信区间（95%）同时计入随机种子与题目的抽样。各策略与多任务混合在同样的题目与种子上配对检验，"
        "同一技能的 p 值经 Holm 校正，对各策略整体成立。",
    ),
    "costs": Both("Tokens and time", "词元与用时"),
    "read": Both("tokens", "词元"),
    "spent": Both("with its experts", "连同专家"),
    "time": Both("training time", "训练用时"),
    "whole_time": Both("time with experts", "连同专家用时"),
    "stages": Both("stages", "各阶段"),
    "tokens": Both("Trained tokens by skill and stage", "各阶段、各技能的训练词元"),
    "stage": Both("stage {number}", "第 {number} 阶段"),
    "rows": Both("rows", "行数"),
    "passes": Both("passes", "遍数"),
    "wanted": Both("planned tokens", "计划词元"),
    "counted": Both(
        "Tokens are predictions that were scored, as measured. A strategy that starts from experts, or merges them, "
        "counts what its model has read; what all experts took stands beside it.",
        "词元指实际计分的预测数（实测）。从专家起步或合并专家的策略，计其模型读过的词元；训练全部专家的开销另列。",
    ),
    "trade": Both("What k trades", "k 的取舍"),
    "trade_figure": Both(
        "Scores by k, the fraction of specialised rows read again", "得分随 k（重读的专项数据比例）的变化"
    ),
    "k": Both("k", "k"),
    "specialised": Both("specialised rows again", "重读的专项行数"),
    "starts": Both("Which expert was the start", "选哪个专家起步"),
    "start": Both(
        "Seed {seed}: {chosen}, chosen on validation rows alone; ahead of the other experts most in {favours}",
        "种子 {seed}：{chosen}，仅凭验证集选定；较其他专家领先最多的技能是 {favours}",
    ),
    "expert": Both("expert", "专家"),
    "by_mean": Both("mean", "平均"),
    "by_rank": Both("mean rank", "平均名次"),
    "teachers": Both("{name}: which expert taught how much: {shares}", "{name}：各专家所教的比例：{shares}"),
    "truncation": Both(
        "{name}: {share} of the update's norm is lost by the chosen rank",
        "{name}：所选的秩丢掉了更新范数的 {share}",
    ),
    "note.tokens": Both(
        "the strategies did not read alike: {least} was trained on {low} tokens, {most} on {high}",
        "各策略的训练词元不一致：{least} 为 {low} 个，{most} 为 {high} 个",
    ),
    "note.seeds": Both(
        "{count} seed(s): no claim is made about differences; it takes {fewest}",
        "只有 {count} 个随机种子，不对差异作判断；至少需要 {fewest} 个",
    ),
    "note.failed": Both("{name}, {run} failed: {error}", "{name}，{run} 失败：{error}"),
    "note.part": Both(
        "{name}: within the budget its second stage reads {share} of the rows of {general}, not all",
        "{name}：在此预算内，第二阶段只读到 {general} 的 {share}，并非全部",
    ),
}


def said(key: str, values: Mapping[str, object] | None = None) -> Both:
    """A text with its places filled; a value may itself be in both languages."""
    text = SAID[key]
    if not values:
        return text
    english, chinese = (
        {name: value[side] if isinstance(value, Both) else value for name, value in values.items()} for side in (0, 1)
    )
    return Both(text.en.format(**english), text.zh.format(**chinese))


def noted(key: str, values: Mapping[str, object], *, loud: bool = False) -> dict[str, Any]:
    """A note as it is recorded: which it is, what it is about, and what it says in both languages."""
    text = said(f"note.{key}", values)
    return {"note": key, "loud": loud, "about": dict(values), "said": {"en": text.en, "zh": text.zh}}


def row_name(row: Mapping[str, Any]) -> Both:
    """What a strategy is called."""
    kind, name = row["kind"], row["name"]
    if kind == "dmt":
        return said("dmt", {"k": f"{row['k']:.4g}"})
    if kind == "alone":
        return said("alone", {"skill": name.removeprefix("alone-")})
    if kind in ("merge", "distill"):
        return said(kind, {"how": name.partition("-")[2]})
    return said(kind)
