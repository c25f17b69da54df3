"""Everything a page says, in English and in Chinese side by side, so that neither can lag behind the other.

Sentences are whole in each language: nothing is glued together from pieces whose order only suits English.
"""

from __future__ import annotations

from mingshi.report.both import Both
from mingshi.report.words_classes import CLASSES
from mingshi.report.words_fit import FIT
from mingshi.report.words_kept import KEPT
from mingshi.report.words_pictured import PICTURED
from mingshi.report.words_stream import STREAM

__all__ = ["PROPER_NAMES", "WORDS", "Both", "either", "plain", "word"]

WORDS: dict[str, Both] = {
    **FIT,
    **KEPT,
    **PICTURED,
    **CLASSES,
    **STREAM,
    # the page
    "page.title": Both("Run report", "训练报告"),
    "page.footer": Both(
        "Written by Mingshi {version}. This page loads nothing from elsewhere and runs no script.",
        "由名师（Mingshi）{version} 生成。本页不加载任何外部资源，也不运行任何脚本。",
    ),
    "page.nothing": Both("Nothing was recorded.", "没有记录。"),
    "page.table": Both("Numbers behind this figure", "查看图中数据"),
    "page.every": Both(
        "One row in {every} of {total}; all of them are in steps.jsonl.",
        "共 {total} 行，此处每 {every} 行取一行；完整记录见 steps.jsonl。",
    ),
    "page.more": Both("… {count} more characters", "……余下 {count} 个字符"),
    "page.others": Both("{count} more are in the run folder.", "其余 {count} 条见运行目录。"),
    # status
    "status.done": Both("Done", "已完成"),
    "status.running": Both("Running", "运行中"),
    "status.stopped": Both("Stopped", "已停止"),
    "status.diverged": Both("Diverged", "已发散"),
    "status.failed": Both("Failed", "失败"),
    "status.refused": Both("Refused by its gate", "已拒绝（未过关卡）"),
    "status.preempted": Both("Interrupted, resumable", "已中断，可继续"),
    "status.interrupted": Both("Interrupted, resumable", "已中断，可继续"),
    "status.unknown": Both("Status unknown", "状态未知"),
    "state.running": Both(
        "The run had not ended when this page was written; its last recorded step is {step}.",
        "生成本页时训练尚未结束，已记录到第 {step} 步。",
    ),
    "state.stopped": Both("The run was stopped after step {step}.", "训练在第 {step} 步之后被停止。"),
    "state.diverged": Both(
        "Training diverged: a loss or a gradient was not finite. The last step on record is {step}.",
        "训练发散：损失或梯度出现了非有限数。最后记录到第 {step} 步。",
    ),
    "state.refused": Both(
        "A stage forgot more than its gate allows: the weights from before it were saved. Its last step was {step}.",
        "某一阶段的遗忘超出关卡允许的范围：保存的是该阶段之前的权重。该阶段止于第 {step} 步。",
    ),
    "state.failed": Both(
        "The run ended with an error after step {step}; what follows is what had been recorded by then.",
        "训练在第 {step} 步之后因错误终止；以下是此前已记录的内容。",
    ),
    "state.interrupted": Both(
        "The run broke off after step {step}; “mingshi train --resume” takes it up from its last checkpoint.",
        "训练在第 {step} 步之后意外中断；用“mingshi train --resume”可从最近的检查点继续。",
    ),
    "state.preempted": Both(
        "The run was interrupted after step {step}; “mingshi train --resume” takes it up from its last checkpoint.",
        "训练在第 {step} 步之后中断；用“mingshi train --resume”可从最近的检查点继续。",
    ),
    "state.unknown": Both(
        "How the run ended is not on record; its last recorded step is {step}.",
        "没有记录这次运行如何结束；最后记录到第 {step} 步。",
    ),
    "state.error": Both("What it said:", "错误信息："),
    # verdict
    "verdict.fell": Both(
        "{metric} fell from {before} to {after}{unit}{sure}", "{metric}从 {before} 降到 {after}{unit}{sure}"
    ),
    "verdict.rose": Both(
        "{metric} rose from {before} to {after}{unit}{sure}", "{metric}从 {before} 升到 {after}{unit}{sure}"
    ),
    "verdict.same": Both(
        "{metric} shows no clear difference, {before} before and {after}{unit} after{sure}",
        "{metric}无明显差异，训练前 {before}、训练后 {after}{unit}{sure}",
    ),
    "verdict.sure": Both(
        " ({difference}, 95 % interval {low} to {high})", "（{difference}，95% 置信区间 {low} 至 {high}）"
    ),
    "verdict.unsure": Both(
        " ({difference}; no interval was recorded, so chance is not ruled out)",
        "（{difference}；没有记录区间，不能排除偶然）",
    ),
    "verdict.none": Both(
        "No evaluation was made both before and after training, so nothing can be said about improvement.",
        "没有训练前后成对的评测，无法判断是否有提升。",
    ),
    "verdict.validation": Both(
        "There is no test set to compare before and after. Validation loss was lowest at step {step}: {value}{unit}; "
        "that set chose the weights, so the number flatters them.",
        "没有测试集可作训练前后对比。验证集损失在第 {step} 步最低：{value}{unit}；"
        "权重正是按它选出的，因此这个数偏乐观。",
    ),
    "verdict.stayed": Both("{metric} stayed at {after}{unit}", "{metric}仍为 {after}{unit}"),
    "verdict.improved": Both("The model improved: {told}.", "模型有提升：{told}。"),
    "verdict.partly": Both("The model improved only in part: {told}.", "模型仅有部分提升：{told}。"),
    "verdict.mixed": Both(
        "The model improved in some respects and got worse in others: {told}.", "模型有得有失：{told}。"
    ),
    "verdict.unimproved": Both("No improvement is shown in the main measures: {told}.", "主要指标未见提升：{told}。"),
    "verdict.lost": Both(
        "No improvement is shown in the main measures, and something got worse: {told}.",
        "主要指标未见提升，且有指标变差：{told}。",
    ),
    "verdict.worsened": Both("The main measures got worse: {told}.", "主要指标变差：{told}。"),
    "verdict.untested": Both(
        "Whether the model improved cannot be told from these numbers: {told}.",
        "仅凭这些数字无法判断是否有提升：{told}。",
    ),
    "verdict.worse": Both("worse", "变差"),
    "verdict.better": Both("better", "变好"),
    "verdict.changed": Both("changed", "有变化"),
    "verdict.open": Both("no clear difference", "无明显差异"),
    "verdict.equal": Both("no change", "无变化"),
    "verdict.unjudged": Both("no interval", "无区间"),
    # what was asked
    "asked.title": Both("What was asked", "任务"),
    "asked.model": Both("Model", "模型"),
    "asked.parameters": Both(
        "{total}, of which {trainable} trained ({share})", "共 {total} 个，训练其中 {trainable} 个（{share}）"
    ),
    "asked.template": Both("Template", "对话模板"),
    "asked.precision": Both("Precision", "计算精度"),
    "asked.method": Both("Method", "方法"),
    "asked.data": Both("Data", "数据"),
    "asked.length": Both("Length", "训练量"),
    "asked.parameters.name": Both("Parameters", "参数"),
    "asked.epochs": Both("epochs: {count}; rows per step: {batch}", "{count} 轮，每步 {batch} 行"),
    "asked.steps": Both("steps: {count}; rows per step: {batch}", "{count} 步，每步 {batch} 行"),
    "asked.optim": Both("Optimiser", "优化器"),
    "asked.rate": Both("learning rate {rate}, {schedule} schedule", "学习率 {rate}，{schedule}调度"),
    "schedule.cosine": Both("cosine", "余弦"),
    "schedule.linear": Both("linear", "线性"),
    "schedule.constant": Both("constant", "恒定"),
    "asked.recipe": Both("The whole recipe, as resolved", "完整配方（已补全默认值）"),
    "asked.stage": Both("Stage {number}", "第 {number} 阶段"),
    "asked.full": Both("all weights", "全参数"),
    "asked.rank": Both("{kind}, rank {rank}", "{kind}，秩 {rank}"),
    # key numbers
    "numbers.title": Both("Before and after", "训练前后"),
    "numbers.metric": Both("Metric", "指标"),
    "numbers.before": Both("Before", "训练前"),
    "numbers.after": Both("After", "训练后"),
    "numbers.difference": Both("Difference", "差值"),
    "numbers.of": Both("{count} items", "{count} 项"),
    "numbers.picture": Both("In a picture", "图示"),
    "numbers.lower": Both("lower is better", "越低越好"),
    "numbers.higher": Both("higher is better", "越高越好"),
    "numbers.interval": Both("{low} to {high}", "{low} 至 {high}"),
    "numbers.note": Both(
        "Small figures give 95 % intervals. The interval of a difference comes from the same items before and after. "
        "Hollow dot: before; filled dot: after; each row has its own scale.",
        "小字为 95% 置信区间；差值的区间由同一批样本前后配对得出。空心点为训练前，实心点为训练后；各行标尺不同。",
    ),
    "numbers.signature": Both("What each score was measured under", "各项分数的测量条件"),
    "data.test": Both("test", "测试集"),
    "data.validation": Both("validation", "验证集"),
    "data.train": Both("train", "训练集"),
    "data.train-sample": Both("training rows", "训练数据"),
    # learning curves
    "curves.title": Both("Learning curves", "学习曲线"),
    "curves.loss": Both("Loss, nats per token", "损失（奈特/词元）"),
    "curves.raw": Both("training, each step", "训练（逐步）"),
    "curves.smooth": Both("training, mean over {window} steps", "训练（{window} 步均值）"),
    "curves.plain": Both("Loss", "损失"),
    "curves.validation": Both("validation, with 95 % interval", "验证集（含 95% 置信区间）"),
    "curves.sample": Both("training rows, measured like those", "训练数据（测法相同）"),
    "curves.best": Both("best: step {step}", "最佳：第 {step} 步"),
    "curves.broken": Both("not finite: step {step}", "非有限数：第 {step} 步"),
    "curves.rate": Both("Learning rate", "学习率"),
    "curves.norm": Both("Gradient norm before clipping", "裁剪前梯度范数"),
    "curves.speed": Both("Tokens per second", "每秒词元数"),
    "curves.step": Both("step", "步"),
    "curves.outside": Both("Steps outside this picture: {count}.", "超出图示范围的步数：{count}。"),
    "curves.kept": Both(
        "Validation was best at step {best} of {steps}; the weights of that step are the ones kept.",
        "验证集在第 {best} 步最佳（共 {steps} 步），保留的是该步的权重。",
    ),
    "curves.early": Both(
        "Training stopped early, after step {steps}: validation was best at step {best} and no longer improved.",
        "训练在第 {steps} 步提前停止：验证集在第 {best} 步达到最佳，此后未再改善。",
    ),
    "curves.epoch": Both("epoch", "轮"),
    # data
    "ledger.title": Both("Data", "数据"),
    "ledger.file": Both("File", "文件"),
    "ledger.rows": Both("Rows", "行数"),
    "ledger.used": Both("Used", "采用"),
    "ledger.rejected": Both("Rejected", "未采用"),
    "ledger.adds": Both(
        "Every row is accounted for: {rows} read = {used} used + {rejected} rejected.",
        "每一行都有去处：读入 {rows} = 采用 {used} + 未采用 {rejected}。",
    ),
    "ledger.broken": Both(
        "The ledger does not add up: {rows} read, but {used} used + {rejected} rejected.",
        "账目不平：读入 {rows}，而采用 {used}、未采用 {rejected}。",
    ),
    "ledger.examples": Both("Rejected rows: the first of each file", "未采用的行：各文件的前几例"),
    "ledger.where": Both("Where", "位置"),
    "ledger.why": Both("Why", "原因"),
    "lengths.title": Both("Sample length, tokens", "样本长度（词元）"),
    "lengths.note": Both(
        "{samples} samples hold {tokens} tokens, {trained} of them trained.",
        "{samples} 个样本共 {tokens} 个词元，其中 {trained} 个参与训练。",
    ),
    "lengths.middle": Both(
        "Half of the samples have at most {median} tokens, 95 % at most {high}; the longest has {longest}.",
        "半数样本不超过 {median} 个词元，95% 不超过 {high} 个，最长 {longest} 个。",
    ),
    "lengths.thinned": Both(
        "Drawn from {count} evenly spaced quantiles of the {samples} samples.",
        "由 {samples} 个样本的 {count} 个等距分位数绘出。",
    ),
    "lengths.cut": Both("cut-off {limit}", "截断于 {limit}"),
    "lengths.touch": Both(
        "Samples that reach the cut-off of {limit} tokens, and may have lost their end: {count}.",
        "达到截断长度（{limit} 个词元）、结尾可能被截去的样本：{count} 个。",
    ),
    "lengths.free": Both(
        "No sample reaches the cut-off of {limit} tokens.", "没有样本达到截断长度（{limit} 个词元）。"
    ),
    "lengths.dropped": Both(
        "Rows left out because they are longer than {limit} tokens: {count}.",
        "因超过 {limit} 个词元而未采用的行：{count} 行。",
    ),
    "lengths.from": Both("From", "从"),
    "lengths.to": Both("To", "到"),
    "lengths.samples": Both("Samples", "样本数"),
    # findings
    "findings.title": Both("Findings", "检查结果"),
    "findings.none": Both("The checks found nothing to report.", "检查未发现问题。"),
    "findings.note": Both("Note", "提醒"),
    "findings.warning": Both("Warning", "警告"),
    "findings.error": Both("Error", "错误"),
    "findings.remedy": Both("What to do:", "处理办法："),
    "findings.count": Both("{count} found", "共 {count} 处"),
    # samples
    "samples.title": Both("Sample answers", "生成示例"),
    "samples.prompt": Both("Prompt", "提示"),
    "samples.reference": Both("Reference", "参考答案"),
    "samples.empty": Both("(empty)", "（空）"),
    "samples.blank": Both("(white space alone: {count} characters)", "（只有空白：{count} 个字符）"),
    "samples.absent": Both("(not generated)", "（未生成）"),
    "samples.note": Both(
        "The first {count} by a hash of their ids, so not chosen by how they turned out.",
        "按编号的哈希值取前 {count} 条，与生成结果的好坏无关。",
    ),
    # speed
    "speed.title": Both("Speed", "速度"),
    "speed.rate": Both("Tokens per second", "每秒词元数"),
    "speed.tokens": Both("Tokens read", "读入词元"),
    "speed.trained": Both("Tokens trained", "训练词元"),
    "speed.part": Both("{count} ({share} of those read)", "{count}（占读入的 {share}）"),
    "speed.steps": Both("Steps", "步数"),
    "speed.training": Both("Time in training steps", "训练步用时"),
    "speed.whole": Both("Time of the whole run", "总用时"),
    "speed.memory": Both("Peak memory", "峰值内存"),
    "speed.memoryof": Both("Peak memory, stage {stage}", "峰值内存（阶段 {stage}）"),
    "speed.gigabytes": Both(
        "{measured} GB with evaluation; {expected} GB were expected of training",
        "{measured} GB（含评测）；训练预计 {expected} GB",
    ),
    # provenance
    "origin.title": Both("Provenance", "来源与复现"),
    "origin.id": Both("Run", "运行"),
    "origin.command": Both("Command", "命令"),
    "origin.created": Both("Started", "开始"),
    "origin.finished": Both("Finished", "结束"),
    "origin.seed": Both("Seed", "随机种子"),
    "origin.code": Both("Code", "代码"),
    "origin.dirty": Both("with uncommitted changes", "含未提交的改动"),
    "origin.clean": Both("as committed", "与提交一致"),
    "origin.commit": Both("{commit}, {clean}", "{commit}，{clean}"),
    "origin.sources": Both("Source files (SHA-256)", "源码（SHA-256）"),
    "origin.resumes": Both("Resumed", "续训"),
    "origin.times": Both("{count} ×, last {last}", "{count} 次，最近一次 {last}"),
    "origin.machine": Both("Machine", "机器"),
    "origin.parts": Both(
        "{processor}; cores: {cores}; threads: {threads}; memory: {memory} GiB; {system}",
        "{processor}；{cores} 核；{threads} 线程；内存 {memory} GiB；{system}",
    ),
    "origin.versions": Both("Versions", "版本"),
    "origin.model": Both("Model files (SHA-256)", "模型文件（SHA-256）"),
    "origin.data": Both("Data files (SHA-256)", "数据文件（SHA-256）"),
    "origin.bytes": Both("{count} bytes", "{count} 字节"),
    "time.seconds": Both("{seconds} s", "{seconds} 秒"),
    "time.minutes": Both("{minutes} min {seconds} s", "{minutes} 分 {seconds} 秒"),
    "time.hours": Both("{hours} h {minutes} min", "{hours} 小时 {minutes} 分"),
    # metrics: names as they stand inside a sentence
    "metric.natspertoken": Both("held-out loss", "留出数据上的损失"),
    "metric.perplexity": Both("perplexity", "困惑度"),
    "metric.bitsperbyte": Both("bits per byte", "每字节比特数"),
    "metric.exactmatch": Both("exact match", "完全匹配率"),
    "metric.accuracy": Both("accuracy", "准确率"),
    "metric.macrof1": Both("macro F1", "宏平均 F1"),
    "metric.weightedf1": Both("weighted F1", "加权 F1"),
    "metric.microf1": Both("micro F1", "微平均 F1"),
    "metric.mcc": Both("Matthews correlation", "马修斯相关系数"),
    "metric.rocauc": Both("area under the ROC curve", "ROC 曲线下面积"),
    "metric.ece": Both("calibration error", "校准误差"),
    "metric.precision": Both("precision", "精确率"),
    "metric.recall": Both("recall", "召回率"),
    "metric.meanabsoluteerror": Both("mean absolute error", "平均绝对误差"),
    "metric.pearson": Both("Pearson correlation", "皮尔逊相关系数"),
    "metric.spearman": Both("Spearman correlation", "斯皮尔曼相关系数"),
    "metric.ofclass": Both("{metric} of {label}", "{label} 的 {metric}"),
    "metric.rewardaccuracy": Both("reward accuracy", "奖励准确率"),
    "metric.rewardmargin": Both("reward margin", "奖励差"),
    "metric.likelihoodaccuracy": Both("accuracy of the likelihood per token", "按每词元似然的准确率"),
    "metric.longerischosen": Both("share of pairs whose longer answer is the chosen one", "较长回答被选中的占比"),
    "unit.rewardmargin": Both(" nats", " 奈特"),
    "metric.empty": Both("empty answers", "空回答占比"),
    "metric.unfinished": Both("answers cut off", "未写完的回答占比"),
    "metric.noroom": Both("prompts that fill the context", "占满上下文的提示占比"),
    "metric.repetition": Both("repetition", "重复程度"),
    "unit.natspertoken": Both(" nats per token", " 奈特/词元"),
    # preview of tokens and weights
    "preview.title": Both("Tokens and what is trained on them", "词元与训练范围"),
    "preview.trained": Both("trained: its probability enters the loss", "参与训练：计入损失"),
    "preview.read": Both("read only: context without a loss", "仅作上文：不计入损失"),
    "preview.counts": Both(
        "{trained} of {tokens} tokens trained ({share})", "{tokens} 个词元中训练 {trained} 个（{share}）"
    ),
    "preview.sample": Both("token", "词元"),
    "preview.rows": Both("Rows: {rows}", "{rows} 行"),
    "preview.spaces": Both(
        "Spaces show as ·, line ends as ↵, tabs as ⇥, other invisible characters by their code.",
        "空格显示为 ·，换行为 ↵，制表符为 ⇥，其余不可见字符显示其编码。",
    ),
    "preview.rejected": Both("Not used:", "未采用："),
    "preview.weight": Both("weight {weight}", "权重 {weight}"),
    "reason.header": Both("template", "模板文字"),
    "reason.content": Both("answer", "回答"),
    "reason.stop": Both("end token", "结束标记"),
    "reason.prompt": Both("prompt", "提示"),
    "reason.system": Both("system", "系统"),
    "reason.history": Both("earlier answer", "之前的回答"),
    "reason.boundary": Both("answer, merged", "回答连着模板"),
    "reason.first": Both("first token", "首个词元"),
    "reason.tool": Both("tool", "工具"),
}

PLAIN_AT_MOST = 200  # characters

# Metrics whose proper name is the same in every language.
PROPER_NAMES = {
    "rouge1": "ROUGE\N{NON-BREAKING HYPHEN}1",
    "rouge2": "ROUGE\N{NON-BREAKING HYPHEN}2",
    "rougel": "ROUGE\N{NON-BREAKING HYPHEN}L",
    "rougelsum": "ROUGE\N{NON-BREAKING HYPHEN}Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "f1": "F1",
    "bertscore": "BERTScore",
}


def word(key: str, **values: object) -> Both:
    """The text of `key` with `values` filled in; a value may itself be in both languages."""
    said = {name: value if isinstance(value, Both) else plain(value) for name, value in values.items()}
    english, chinese = ({name: value[side] for name, value in said.items()} for side in (0, 1))
    return Both(WORDS[key].en.format(**english), WORDS[key].zh.format(**chinese))


def plain(text: object, limit: int = PLAIN_AT_MOST) -> Both:
    """A text that has no translation: a name, a number, a line of data, cut where it would swamp the page."""
    said = str(text) if len(str(text)) <= limit else f"{str(text)[:limit]}…"
    return Both(said, said)


def either(prefix: str, name: object) -> Both:
    """The text of `prefix.name`, or the name itself where the house does not know it."""
    known = WORDS.get(f"{prefix}.{name}")
    return known if known is not None else plain(name)
