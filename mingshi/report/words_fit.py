"""What a page says of overfitting, in both languages."""

from __future__ import annotations

from mingshi.report.both import Both

FIT: dict[str, Both] = {
    "fit.healthy": Both("Healthy", "正常"),
    "fit.underfitting": Both("Underfitting", "欠拟合"),
    "fit.overfitting": Both("Overfitting from step {since}", "自第 {since} 步起过拟合"),
    "fit.diverging": Both("Diverging", "发散"),
    "fit.toosmall": Both("Validation too small to say", "验证集太小，无法判断"),
    # what was seen
    "because.falls": Both(
        "From step {first} to {last} the held-out loss changed by {validation}, the loss on training rows by "
        "{training}; neither turned upwards.",
        "从第 {first} 步到第 {last} 步，留出数据上的损失变化 {validation}，训练数据上的损失变化 {training}；"
        "两者都没有回升。",
    ),
    "because.rises": Both(
        "After step {since} the held-out loss rose by {rise}, while over the whole stage the loss on training rows "
        "changed by {training}.",
        "第 {since} 步之后，留出数据上的损失上升 {rise}，而整个阶段训练数据上的损失变化 {training}。",
    ),
    "because.flat": Both(
        "After step {since} the held-out loss fell no further, while the loss on training rows fell on. Over the whole "
        "stage they changed by {validation} and {training}.",
        "第 {since} 步之后，留出数据上的损失不再下降，训练数据上的损失却继续下降。"
        "整个阶段两者分别变化 {validation} 和 {training}。",
    ),
    "because.learntnothing": Both(
        "The loss on training rows did not fall by anything worth a word: {training}.",
        "训练数据上的损失几乎没有下降：{training}。",
    ),
    "because.falling": Both(
        "Both losses were still falling when training ended: over the last measurements the held-out loss changed by "
        "{late}.",
        "训练结束时两种损失仍在下降：最后几次测量之间，留出数据上的损失变化 {late}。",
    ),
    "because.bothrise": Both(
        "Both losses have risen from where they were lowest, the held-out loss by {rise}.",
        "两种损失都从最低点回升，其中留出数据上的损失上升 {rise}。",
    ),
    "because.trainingrises": Both(
        "The loss on training rows has risen far above its lowest point.", "训练数据上的损失已远高于其最低点。"
    ),
    "because.notfinite": Both("A loss or a gradient was not finite.", "损失或梯度出现了非有限数。"),
    "because.fewrows": Both(
        "Only {items} held-out rows were measured: too few for an interval that could be relied on.",
        "只测量了 {items} 行留出数据：太少，得不到可靠的区间。",
    ),
    "because.wide": Both(
        "The held-out rows are too few, or too unlike each other: over the whole stage their loss changed by "
        "{validation}, and a change that matters can neither be shown nor ruled out.",
        "留出数据太少，或彼此差异太大：整个阶段其损失变化 {validation}，既不能证明、也不能排除有意义的变化。",
    ),
    # what to do
    "next.falls": Both(
        "Nothing needs to be done. More rows, or rows of more kinds, may still bring more.",
        "无需处理。增加数据量或数据种类仍可能带来提升。",
    ),
    "next.rises": Both(
        "Train for fewer steps, or on more rows; a lower learning rate, a smaller rank, dropout and weight decay help "
        "too. Judge by the task's own measures as well: a held-out loss may rise while the answers get better.",
        "减少步数，或增加数据；降低学习率、减小秩、使用 dropout 和权重衰减也有帮助。"
        "同时看任务本身的指标：留出损失上升时，回答仍可能在变好。",
    ),
    "next.flat": Both(
        "The steps after that bought nothing on new rows: end there, or add rows.",
        "此后的训练步对新数据没有收益：可在该处结束，或增加数据。",
    ),
    "next.learntnothing": Both(
        "Raise optim.learning_rate, or train more weights (a larger rank), and see with `mingshi preview` whether the "
        "answers are what is trained.",
        "提高 optim.learning_rate，或训练更多权重（更大的秩），并用 `mingshi preview` 查看参与训练的是否为回答。",
    ),
    "next.falling": Both(
        "Train longer (epochs or steps), or raise optim.learning_rate.",
        "训练更久（epochs 或 steps），或提高 optim.learning_rate。",
    ),
    "next.bothrise": Both(
        "Lower optim.learning_rate, or lengthen the warm-up.", "降低 optim.learning_rate，或延长预热。"
    ),
    "next.trainingrises": Both(
        "Lower optim.learning_rate, or lengthen the warm-up.", "降低 optim.learning_rate，或延长预热。"
    ),
    "next.notfinite": Both(
        "Lower optim.learning_rate, and look at the rows of the last step with `mingshi preview`.",
        "降低 optim.learning_rate，并用 `mingshi preview` 查看最后一步所用的行。",
    ),
    "next.fewrows": Both(
        "Hold out more rows: raise `validation`, or give it files.", "留出更多数据：调高 `validation`，或为它指定文件。"
    ),
    "next.wide": Both(
        "Hold out more rows: raise `validation`, or give it files.", "留出更多数据：调高 `validation`，或为它指定文件。"
    ),
    # the numbers behind it
    "evidence.title": Both("What the verdict rests on", "判断的依据"),
    "evidence.trainingchange": Both("Loss on training rows, first to last", "训练数据上的损失，首末之差"),
    "evidence.validationchange": Both("Held-out loss, first to last", "留出数据上的损失，首末之差"),
    "evidence.validationsincebest": Both("Held-out loss, since its lowest", "留出数据上的损失，自最低点以来"),
    "evidence.validationlate": Both("Held-out loss, over the last quarter or so", "留出数据上的损失，约最后四分之一"),
    "evidence.gap": Both("Gap at the end, held-out less training", "结束时的差距（留出减训练）"),
    "evidence.gapgrown": Both("Growth of that gap", "差距的增长"),
    "evidence.sure": Both("{value} (95 % {low} to {high})", "{value}（95% {low} 至 {high}）"),
    "evidence.note": Both(
        "Both losses are taken without dropout, on the same rows each time: {items} held-out ones, and at most as many "
        "that are trained on. A change is paired by row; its interval covers the choice of rows.",
        "两种损失都在关闭 dropout 的情况下测量，每次用相同的行：{items} 行留出数据，以及不多于此的训练数据。"
        "变化按行配对；区间反映的是行的选取。",
    ),
    "gap.title": Both("Gap: held-out loss less loss on training rows", "差距：留出数据上的损失减训练数据上的损失"),
    "gap.legend": Both("with 95 % interval", "含 95% 置信区间"),
}
