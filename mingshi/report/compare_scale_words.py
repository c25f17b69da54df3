"""What a comparison of amounts of data says, in English and in Chinese."""

from __future__ import annotations

from mingshi.report.both import Both

SCALED: dict[str, Both] = {
    "scale.title": Both("How much data", "需要多少数据"),
    "scale.about": Both("Base models: {models}; seeds: {seeds}", "基座模型：{models}；随机种子：{seeds}"),
    "scale.epochs": Both(
        "Every amount is gone through equally often (epochs: {count}): more rows are more steps too.",
        "各数据量的训练轮数相同（{count} 轮）：行数越多，步数也越多。",
    ),
    "scale.steps": Both(
        "Every amount has equally many steps ({count}): fewer rows are seen more often.",
        "各数据量的训练步数相同（{count} 步）：行数越少，每行重复得越多。",
    ),
    "scale.how": Both(
        "An amount is that many of the file's first rows, so it holds those below it. Intervals are over seeds and "
        "items: 95 %. Every two amounts are compared on the same items and seeds, the base model as the amount 0. The "
        "tests go up the curve: whether any larger amount is better (Holm), and only then the same from the next "
        "amount on. The verdict names the first amount over which no larger one is told apart as better; it lies "
        "beyond the true one in at most 5 % of curves, and may lie before it where items or seeds are few: see what is "
        "left to gain.",
        "每个数据量取文件开头的若干行，因此大的包含小的。置信区间（95%）同时计入随机种子与题目的抽样。"
        "任意两个数据量都在同样的题目与种子上配对比较，基座模型记为 0 行。检验沿曲线逐级进行："
        "先看是否有更大的数据量更好（Holm 校正），有则再从下一个数据量看起。"
        "结论给出的是：此后再没有更大的数据量被判定为更好的第一个数据量；"
        "它超过真实值的概率至多 5%，而题目或种子太少时可能偏小，请看还可能改善多少。",
    ),
    "scale.amount": Both("{rows} rows", "{rows} 行"),
    "scale.place": Both("{model}, {rows} rows", "{model}，{rows} 行"),
    "scale.base": Both("{model}, base", "{model}，基座"),
    "scale.cell": Both("model and rows", "模型与行数"),
    "scale.model": Both("model", "模型"),
    "scale.rows": Both("rows", "行数"),
    "scale.gain": Both("change from base", "较基座变化"),
    "scale.step": Both("change from the amount before", "较前一数据量变化"),
    "scale.p": Both("p (corrected)", "p 值（校正）"),
    "scale.differs": Both("differs (corrected p)", "有差异（校正后 p 值）"),
    "scale.claim": Both("{claim} ({p})", "{claim}（{p}）"),
    "scale.curve": Both("{metric}, by rows trained on", "{metric}（横轴：训练行数）"),
    "scale.dashed": Both("Bands are 95 % intervals; dashed: the base model.", "色带为 95% 置信区间；虚线为基座模型。"),
    "verdict.rising": Both(
        "{model}, {metric}: more data would still help; the step from {before} to {rows} rows changed it by {value} "
        "({low} to {high})",
        "{model}，{metric}：增加数据仍有帮助；从 {before} 行到 {rows} 行变化 {value}（{low} 至 {high}）",
    ),
    "verdict.enough": Both(
        "{model}, {metric}: from {rows} rows on, no larger amount is told apart as better (the intervals leave up to "
        "{most} to gain)",
        "{model}，{metric}：从 {rows} 行起，没有更大的数据量被判定为更好（区间内最多还可改善 {most}）",
    ),
    "verdict.open": Both(
        "{model}, {metric}: better than the base model, but too few items or seeds to say from how many rows on more "
        "add nothing",
        "{model}，{metric}：优于基座模型，但题目或种子太少，无法判断从多少行起不再有收益",
    ),
    "verdict.nothing": Both(
        "{model}, {metric}: no amount is told apart as better than the base model: no gain, or too few items or seeds "
        "to show one (the intervals leave up to {most})",
        "{model}，{metric}：没有数据量被判定优于基座模型：或无提升，或题目、种子太少而显示不出"
        "（区间内最多可改善 {most}）",
    ),
    "verdict.unclaimed": Both(
        "{model}, {metric}: no verdict on {count} seed(s); it takes {fewest}",
        "{model}，{metric}：只有 {count} 个种子，不下结论；至少需要 {fewest} 个",
    ),
    "verdict.worse": Both("; worse with {rows} rows", "；{rows} 行时变差"),
    "note.used": Both(
        "{name}: not every row could be used; trained on {used}", "{name}：部分行不可用；实际训练行数为 {used}"
    ),
}
