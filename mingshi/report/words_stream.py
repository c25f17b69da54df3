"""What a page says of stages that learn one after another: heat map, lines, gates and memory, in both languages."""

from __future__ import annotations

from mingshi.report.both import Both

STREAM: dict[str, Both] = {
    "stream.title": Both("Stage after stage", "逐阶段学习"),
    "stream.map": Both("What each task is worth after each stage", "各阶段之后各任务的水平"),
    "stream.taught": Both("taught by then, or before any stage", "已训练过，或先于各阶段就有"),
    "stream.untaught": Both("not taught yet", "尚未训练"),
    "stream.darker": Both(
        "Darker is better, within each metric. A frame marks the stage that teaches a task; below it is what stayed.",
        "颜色越深越好，同一指标内比较。方框标出训练该任务的阶段；其下是保住的水平。",
    ),
    "stream.lines": Both("Each task from stage to stage: {metric}", "各任务逐阶段的变化：{metric}"),
    "stream.across": Both("Across: stages done.", "横轴：已完成的阶段数。"),
    "stream.refused": Both(
        "Stage {number} was refused, and its weights put back: {task}, {metric}, fell by {fall}; {forget} is allowed.",
        "阶段 {number} 未过关卡，权重已恢复：{task} 的{metric}下降 {fall}；允许 {forget}。",
    ),
    "stream.passed": Both(
        "Stage {number} passed its gate: no task fell by more than {forget} for certain.",
        "阶段 {number} 通过关卡：没有任务确定下降超过 {forget}。",
    ),
    "stream.memory": Both("What was remembered", "记忆中的样本"),
    "stream.count": Both("Rehearsed in", "复习于"),
    "stream.stage": Both("stage {number}", "阶段 {number}"),
    "stream.of": Both("of task", "来自任务"),
    "stream.rows": Both("rows", "行数"),
    "stream.own": Both("own answers", "自答"),
    "stream.examples": Both("Some of them, and why", "部分样本与入选理由"),
    "stream.where": Both("row", "行"),
    "stream.why": Both("why", "理由"),
    "stream.text": Both("text", "文本"),
}
