"""What a page says of tasks: what was lost and won, stage by stage, in both languages."""

from __future__ import annotations

from mingshi.report.both import Both

KEPT: dict[str, Both] = {
    "metric.accuracysum": Both("accuracy by the answer's whole likelihood", "准确率（按答案整体似然）"),
    "metric.abovechance": Both("accuracy above chance", "高于随机的准确率"),
    "metric.margin": Both("margin of the right answer, nats a token", "正确答案的领先量（每词元奈特）"),
    "kept.title": Both("What was kept", "保持与遗忘"),
    "kept.lost": Both("lost", "退步"),
    "kept.won": Both("won", "进步"),
    "kept.p": Both("p", "p 值"),
    "kept.retained": Both("retained", "保留率"),
    "kept.form": Both("form of the answers", "回答形式"),
    "kept.note": Both(
        "Lost and won are items that got worse and better; p is McNemar's exact test of the one against the other. "
        "Retained is the share of what stood above chance before that still does; it is not given where nothing "
        "stood there for certain.",
        "“退步”“进步”是变差与变好的条目数，p 值来自二者的 McNemar 精确检验。"
        "“保留率”是训练前高于随机水平的部分如今还剩多少；训练前不能确定高于随机水平的，不给出。",
    ),
    "kept.dropped": Both(
        "{task}: {metric} got worse by more than chance explains.", "{task}：{metric}变差，超出了偶然能解释的范围。"
    ),
    "kept.matrix": Both("Each task after each stage", "各阶段后的各项任务"),
    "kept.before": Both("before", "训练前"),
    "kept.after": Both("after stage {number}", "阶段 {number} 之后"),
    "kept.taught": Both("taught by stage {number}", "由阶段 {number} 训练"),
    "kept.average": Both("average of the tasks", "任务平均"),
    "kept.backward": Both("backward transfer", "后向迁移"),
    "kept.forward": Both("forward transfer", "前向迁移"),
    "kept.forgetting": Both("forgetting", "遗忘"),
    "kept.divergence": Both("KL from the start of the stage, nats a token", "相对阶段起点的 KL 散度（每词元奈特）"),
}
