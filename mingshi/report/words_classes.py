"""What a page says of a classifier's classes, in both languages."""

from __future__ import annotations

from mingshi.report.both import Both

CLASSES: dict[str, Both] = {
    "metric.macroprecision": Both("macro precision", "宏平均精确率"),
    "metric.macrorecall": Both("macro recall", "宏平均召回率"),
    "metric.weightedprecision": Both("weighted precision", "加权精确率"),
    "metric.weightedrecall": Both("weighted recall", "加权召回率"),
    "metric.weightedrocauc": Both("weighted area under the ROC curve", "加权 ROC 曲线下面积"),
    "metric.averageprecision": Both("average precision", "平均精确率（PR 曲线下面积）"),
    "metric.weightedaverageprecision": Both("weighted average precision", "加权平均精确率（PR 曲线下面积）"),
    "metric.brier": Both("Brier score", "布里尔分数"),
    "metric.logloss": Both("log loss", "对数损失"),
    "metric.temperature": Both("temperature", "温度"),
    "metric.scaledece": Both("calibration error with the temperature", "加温度后的校准误差"),
    "metric.scaledbrier": Both("Brier score with the temperature", "加温度后的布里尔分数"),
    "metric.scaledlogloss": Both("log loss with the temperature", "加温度后的对数损失"),
    "metric.sliceaccuracy": Both("slice accuracy", "切片准确率"),
    "metric.slicemacrof1": Both("slice macro F1", "切片宏平均 F1"),
    "metric.sliceaccuracygap": Both("slice accuracy against the rest", "切片准确率与其余之差"),
    "metric.slicemacrof1gap": Both("slice macro F1 against the rest", "切片宏平均 F1 与其余之差"),
    "metric.slicep": Both("slice p", "切片 p 值"),
    "classes.title": Both("Classes", "类别"),
    "classes.name": Both("class", "类别"),
    "classes.count": Both("texts", "文本数"),
    "classes.taken": Both("taken for it", "判为该类"),
    "classes.note": Both(
        "Numbers in brackets are 95 % intervals. A class that no text has, or that none is taken for, has a rate of 0.",
        "括号内为 95% 置信区间。没有文本属于某类、或没有文本被判为某类时，相应比率记为 0。",
    ),
    "classes.fewer": Both(
        "The {shown} most frequent of {count} classes are shown.", "共 {count} 个类别，只列出最常见的 {shown} 个。"
    ),
    "classes.matrix": Both("What each class was taken for", "各类别被判成了什么"),
    "classes.right": Both("right", "判对"),
    "classes.wrong": Both("wrong", "判错"),
    "classes.across": Both(
        "A row is what texts are, a column, by number, what they were taken for; the fuller the colour, the larger "
        "the share of the row.",
        "行为真实类别，列（以编号表示）为判定类别；颜色越深，占该行的比例越大。",
    ),
    "classes.reliability": Both("How often probabilities come true", "概率与实际频率"),
    "classes.plain": Both("as the model says", "模型给出的概率"),
    "classes.scaled": Both("with the temperature", "加温度之后"),
    "classes.ideal": Both("probability is frequency", "概率等于频率"),
    "classes.probability": Both("probability", "概率"),
    "classes.frequency": Both("came true", "实际频率"),
    "classes.axes": Both(
        "Across: mean probability of a bin; upwards: how often it came true. Bins hold equally many decisions.",
        "横轴为各组的平均概率，纵轴为实际频率；各组所含的判定数相同。",
    ),
    "classes.error": Both("Calibration error {error}.", "校准误差 {error}。"),
    "classes.warmed": Both(
        "Divided by the temperature {temperature}, fitted on {count} validation rows, the logits give a calibration "
        "error of {error}.",
        "在 {count} 条验证数据上拟合的温度为 {temperature}；logits 除以它之后，校准误差为 {error}。",
    ),
    "classes.slices": Both("Parts of the data", "数据切片"),
    "classes.slice": Both("part", "切片"),
    "classes.gap": Both("against the rest", "与其余之差"),
    "classes.p": Both("p of the accuracy", "准确率的 p 值"),
    "classes.slicenote": Both(
        "The p-values are of Fisher's exact test of the part's accuracy against that of all other texts, and hold "
        "for all parts together (Holm). Parts of fewer than ten texts are left out.",
        "p 值来自该切片与其余全部文本准确率之差的 Fisher 精确检验，并已按 Holm 方法对全部切片一并校正。"
        "少于十条文本的切片不列出。",
    ),
}
