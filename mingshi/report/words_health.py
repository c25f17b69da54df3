"""What the page of `mingshi check` says: titles in both languages, and the findings' sentences in Chinese.

A finding brings its own English; its Chinese is made here, of its count and its evidence, by check and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mingshi.report.both import Both

SPLITS: Mapping[str, str] = {"train": "训练集", "validation": "验证集", "test": "测试集", "production": "使用数据"}
CONFOUNDERS: Mapping[str, str] = {"source": "来源", "length": "长度"}


class Kind(NamedTuple):
    """One kind of finding."""

    title: Both
    message: str  # Chinese, with places for `count` and what the evidence holds
    remedy: str  # Chinese


HEALTH: dict[str, Both] = {
    "title": Both("Data health", "数据体检"),
    "rows": Both("{split}: {used} rows", "{split}：{used} 行"),
    "errors": Both("errors: {count}", "{count} 个错误"),
    "warnings": Both("warnings: {count}", "{count} 个警告"),
    "notes": Both("notes: {count}", "{count} 条提醒"),
    "sound": Both("Nothing was found that speaks against these rows.", "没有发现问题。"),
    "findings": Both("Findings", "检查结果"),
    "more_notes": Both("Notes", "提醒"),
    "data": Both("The data", "数据概况"),
    "where": Both("Rows", "所在行"),
    "others": Both("and {count} more in findings.json", "另有 {count} 行见 findings.json"),
    "pairs": Both("Pairs, with what they share", "成对对照（相同部分已标出）"),
    "groups": Both("One text, several rows", "同一文本的多行"),
    "file": Both("file", "文件"),
    "given": Both("label", "标签"),
    "suggested": Both("suggested", "建议标签"),
    "probability": Both("probability of the label", "该标签的概率"),
    "probability_suggested": Both("of the suggested one", "建议标签的概率"),
    "suspects": Both("The most doubtful labels", "最可疑的标签"),
    "scored": Both("The first of them, as the model sees them", "其中前几条（模型的打分）"),
    "difficulty": Both("perplexity with the prompt / without", "困惑度之比（有提示／无提示）"),
    "token_probability": Both("mean probability of a token", "词元平均概率"),
    "words": Both("Words that differ most", "差异最大的词"),
    "word": Both("word", "词"),
    "times_train": Both("times in train", "训练集次数"),
    "times_new": Both("times in {split}", "{split}次数"),
    "areas": Both("How well the two are told apart (area under the ROC curve)", "两者可区分的程度（ROC 曲线下面积）"),
    "learner": Both("model", "模型"),
    "area": Both("area", "面积"),
    "most_new": Both("Rows that are most unlike train", "与训练集最不同的行"),
    "text": Both("text", "文本"),
    "group": Both("group", "组"),
    "number": Both("rows", "行数"),
    "shares": Both("Labels by {attribute}, 95 % intervals", "各组的标签占比（{attribute}，95% 置信区间）"),
    "classes": Both("Classes", "类别"),
    "class": Both("class", "类别"),
    "share": Both("share", "占比"),
    "sources": Both("Files", "文件"),
    "languages": Both("Languages", "语言"),
    "lengths": Both("Characters", "字符数"),
    "part": Both("part", "部分"),
    "prompt": Both("what is given", "给定部分"),
    "answer": Both("what is wanted", "期望部分"),
    "examples": Both("The first of them", "其中前几条"),
    "told": Both("what", "内容"),
    "language.chinese": Both("Chinese", "中文"),
    "language.latin": Both("Latin script", "拉丁字母"),
    "language.none": Both("no letters", "无文字"),
}

_DROP = "从训练集中去掉这些行，不要动留出的数据。"
_ONCE = "每一组只保留一行。"
_ACROSS = "{from}有 {count} 行与{to}的 {held_out} 行（占 {of_held_out} 行）重合："
_INSIDE = "{from}的 {of} 行中有 {count} 行是重复："
LEAKS: Mapping[str, tuple[Both, str]] = {
    "equal": (Both("The same text", "文本完全相同"), "文本完全相同"),
    "normalised": (
        Both("The same but for width, case and punctuation", "仅全半角、大小写、标点不同"),
        "除全半角、大小写、空格与标点外相同",
    ),
    "near": (Both("Nearly the same text", "文本几乎相同"), "文本几乎相同"),
    "prompt": (Both("The same prompt", "提示相同"), "提示相同"),
    "contained": (Both("A question inside a longer text", "问题出现在更长的文本里"), "问题出现在更长的文本里"),
    "short": (Both("Short texts, one character apart", "短文本仅差一个字符"), "短文本仅差一个字符"),
    "group": (Both("The same group", "同组"), "属于同一组"),
}

KINDS: dict[str, Kind] = {
    "rows.unread": Kind(
        Both("Rows that cannot be used", "不能使用的行"),
        "{split}的 {of} 行中有 {count} 行不能使用（{reason}）：{detail}",
        "修正这些行，或在训练时写 on_bad_row: skip。",
    ),
    "rows.not_looked_at": Kind(
        Both("Rows that were not looked at", "未检查的行"),
        "共 {count:,} 行，数量太多，不在每次训练前查找泄漏与毛病。",
        "检查一次即可：{command}",
    ),
    "contradictions.labels": Kind(
        Both("One text with several labels", "同一文本有不同标签"),
        "{split}中有 {count} 个文本带有不同的标签（共 {rows} 行，全部 {of} 行）。",
        "为每个文本定下一个标签，或把它的行全部去掉。",
    ),
    "contradictions.answers": Kind(
        Both("One prompt with several answers", "同一提示有不同回答"),
        "{split}中有 {count} 个提示带有不同的回答（共 {rows} 行，全部 {of} 行）。",
        "若只能有一个正确答案，就只留一个；同一提示有几个好回答，可以都保留。",
    ),
    "labels.suspect": Kind(
        Both("Labels in doubt", "可疑标签"),
        "{split}有 {count} 个标签受到没有见过这些行的模型怀疑（与全部标签的一致率为 {accuracy:.0%}），"
        "其中确实有错的估计至多约 {worth}。",
        "从最可疑的读起：标签错了就改，只是难分的行就留着。{pays}",
    ),
    "labels.few_rows": Kind(
        Both("Classes too small to judge", "行数过少、无法判断的类别"),
        "有些类别的不同行太少，共 {count} 行的标签没有判断。",
        "自己看一看这些行，或者多收集一些。",
    ),
    "labels.not_checked": Kind(
        Both("Labels were not judged", "未检查标签"),
        "{count} 个标签没有判断：没有安装 scikit-learn 和 cleanlab。",
        "安装附加组件：pip install 'mingshi[health]'。",
    ),
    "labels.not_learnt": Kind(
        Both("Labels that a simple model cannot learn", "简单模型学不会的标签"),
        "简单模型无法从文本分辨 {count} 行的标签（一致率 {accuracy:.0%}，与随意猜测差不多），它的怀疑没有意义。",
        "检查标签与文本是否对应；若对应，请抽样人工阅读。",
    ),
    "semantic.near": Kind(
        Both("Perhaps the same in other words", "可能换了说法的相同内容"),
        "{to}中不在{from}里的 {of} 个文本，有 {count} 个与{from}的某个文本近得不像偶然，"
        "可能是换了说法的相同内容（预计其中约 20% 不是）。",
        "从最近的读起；确实相同的，手工从{from}中去掉。",
    ),
    "scored.unhelped": Kind(
        Both("Answers that their prompts do not help", "提示帮不上的回答"),
        "{split}的 {of} 个回答中，有 {count} 个在提示之后并不比单独出现更可能，或远不如长度相近的回答：也许答非所问。",
        "从头读起：属于别的提示的回答，改正或去掉。",
    ),
    "scored.easy": Kind(
        Both("Answers that teach little", "过于容易的回答"),
        "{split}的 {of} 个回答中，有 {count} 个模型早已确知（词元的平均概率不低于 0.9）：学不到什么。",
        "太多时少留一些；看看提示里是否已含有答案。",
    ),
    "scored.not_helped": Kind(
        Both("The scorer makes nothing of the prompts", "打分模型用不上提示"),
        "{scorer} 用不上{split}的 {of} 行的提示（IFD 中位数 {median:.2f}），它的打分没有意义。",
        "换一个懂这种语言和任务的模型。",
    ),
    "drift.missing": Kind(
        Both("Drift was not looked for", "未检查漂移"),
        "没有检查漂移：未安装 scikit-learn。",
        "安装附加组件：pip install 'mingshi[health]'。",
    ),
    "drift.few": Kind(
        Both("Too few rows to compare", "行数过少，无法比较"),
        "{against}与训练集不同组的行太少，无法比较。",
        "多收集一些行。",
    ),
    "drift.alike": Kind(
        Both("No drift found", "未发现漂移"),
        "没有发现{against}与训练集的差异；以这样的行数，曲线下面积小于 {least_area:.2f} 的差异是看不出来的。",
        "",
    ),
    "drift.texts": Kind(
        Both("Texts have drifted", "文本发生漂移"),
        "{against}的文本与训练集不同，程度见下表（ROC 曲线下面积，0.5 表示无法区分）。",
        "把{against}中这样的行加入训练集，或先在这样的行上测量再使用。",
    ),
    "drift.labels": Kind(
        Both("Labels have drifted", "标签分布发生漂移"),
        "{against}的标签分布与训练集不同。",
        "按使用时的比例重新抽取训练集，或修正预测；在训练集上选定的阈值不再合适。",
    ),
    "balance.few": Kind(
        Both("Classes with few rows", "行数过少的类别"),
        "{split}有 {count} 个类别的行数过少。",
        "多找一些这样的行，与相近的类别合并，或去掉。",
    ),
    "balance.dominant": Kind(
        Both("One class is nearly all", "一个类别占绝大多数"),
        "{split}中有标签的行，{share:.1%} 是“{label}”：总猜它也能这么准。",
        "用宏平均 F1 或分类别的指标来判断，不要用准确率；给类别加权或重新抽样。",
    ),
    "balance.one_class": Kind(
        Both("A single class", "只有一个类别"),
        "{split}中有标签的行全是“{label}”，没有可以区分的。",
        "加入其他类别的行，或检查标签是否读自正确的字段。",
    ),
    "balance.long": Kind(
        Both("Rows of extreme length", "异常长的行"),
        "{split}有 {count} 行远长于中位数（{median:.0f} 个字符）。",
        "看看它们是不是单独一行；超过最大长度的会被截断或剔除。",
    ),
    "balance.unknown_class": Kind(
        Both("Classes that are never taught", "训练集里没有的类别"),
        "{split}有 {count} 行的类别在训练集中没有出现。",
        "在训练集中加入这样的行，或统一写法不同的标签。",
    ),
    "balance.summary": Kind(Both("Overview", "概况"), "共 {count} 行。", ""),
}
_GROUPS = (
    "按 {attribute} 分组，标签“{contrast[label]}”在“{contrast[most]}”与“{contrast[least]}”中的占比相差较大（见下表）"
)
KINDS |= {
    "bias.labels": Kind(
        Both("Labels go with a group", "标签随群体而变"),
        _GROUPS + "。",
        "先判断这一差异是否应有；若不应有，给行加权或重新抽样（mingshi.remedies.weights），并分组测量；占比拉平可能损害校准。",
    ),
    "bias.reversed": Kind(
        Both("Labels go with a group, and the other way round within", "标签随群体而变，分层后方向相反"),
        _GROUPS + "；在同一来源或长度的行里方向相反。",
        "先判断这一差异是否应有；若不应有，给行加权或重新抽样，并分组测量。",
    ),
    "bias.confounded": Kind(
        Both("A difference that goes with something else", "差异来自其他因素"),
        _GROUPS + "；但它随{confounder}而变，同一{confounder}内差异消失或变小。",
        "按{confounder}平衡各组，而不是给标签加权。",
    ),
    "bias.masked": Kind(
        Both("A difference that is hidden over all", "总体看不出的差异"),
        "总体上标签不随 {attribute} 而变，但在同一{confounder}的行里会变。",
        "按{confounder}分别查看各组。",
    ),
    "bias.numbers": Kind(
        Both("Labels are numbers", "标签是数值"),
        "标签是数值，各组之间无法比较类别占比（{count} 行）。",
        "为这项检查把数值分成几类。",
    ),
    "bias.too_many_groups": Kind(
        Both("Too many groups", "组太多"), "有 {count} 个组，太多，无法比较。", "把取值合并成较少的组。"
    ),
    "bias.one_group": Kind(
        Both("Nothing to compare", "没有可比较的组"),
        "足够大的组不到两个，无法比较（{count} 行）。",
        "检查各行是否有这个字段，或用 --column 指明。",
    ),
}
_TAKE_OUT = "改写，或去掉这些行。"
RULES: Mapping[str, tuple[str, str, str, str]] = {  # English title, Chinese title, Chinese remedy, what is counted
    "wording.empty": ("No text", "没有文本", "补写，或去掉这些行。", "行"),
    "wording.mojibake": ("Wrong encoding", "乱码", "用原来的编码（GB 18030 或 UTF-8）重新读取来源。", "行"),
    "wording.cut": (
        "Perhaps cut off",
        "可能被截断（没有结尾标点，而其余几乎都有）",
        "给足词元重新生成，或去掉。",
        "个回答",
    ),
    "wording.language": ("Another language", "与提示的文字不同", "请用提示的语言重写。", "个回答"),
    "wording.copied": ("The prompt copied", "照抄整个提示", "从回答中删去提示。", "个回答"),
    "wording.refusal": ("Refusals", "以拒答开头", "想让模型学会的留下，其余去掉。", "个回答"),
    "wording.repetition": ("Repetition", "反复说同样的话", _TAKE_OUT, "个回答"),
    "wording.broken_json": ("Broken JSON", "以 JSON 开头却无法解析", "修正 JSON。", "个回答"),
    "wording.open_fence": ("A code block left open", "代码块没有闭合", "补上闭合：可能被截断。", "个回答"),
    "wording.open_bracket": ("A bracket left open", "括号没有闭合", "补上闭合：可能被截断。", "个回答"),
    "safety.email": ("E-mail addresses", "含电子邮件地址", "替换掉，或去掉这些行。", "行"),
    "safety.phone": ("Telephone numbers", "含电话号码", "替换掉，或去掉这些行。", "行"),
    "safety.identity_number": ("Chinese identity numbers", "含居民身份证号", "去掉这些行。", "行"),
    "safety.bank_card": ("Numbers of bank cards", "含银行卡号", "去掉这些行。", "行"),
    "safety.key": ("Secret keys", "含密钥", "去掉这些行，并作废这些密钥。", "行"),
    "safety.control_token": (
        "Control tokens",
        "含对话模板的控制符",
        "删去：这里编码时不会当作控制符，别处可能提前结束一轮。",
        "行",
    ),
    "safety.invisible": (
        "Invisible characters",
        "含不可见字符",
        "删去，除非该语言需要：模型会学着写出它们。",
        "行",
    ),
    "safety.offensive": ("Words of the list", "含词表中的词", "读一读，去掉不希望模型说的。", "行"),
}
for _name, (_english, _chinese, _remedy, _unit) in RULES.items():
    KINDS[_name] = Kind(Both(_english, _chinese), "{of} " + _unit + "中有 {count} " + _unit + _chinese + "。", _remedy)
for _kind, (_title, _told) in LEAKS.items():
    KINDS[f"leakage.{_kind}"] = Kind(_title, _told, "")


def said(key: str, values: Mapping[str, object] | None = None) -> Both:
    """A text of the page, with values of either language in it."""
    text = HEALTH[key]
    if not values:
        return text
    english, chinese = ({name: _of(value, at) for name, value in values.items()} for at in (0, 1))
    return Both(text.en.format(**english), text.zh.format(**chinese))


def split_name(split: str) -> Both:
    return Both(split, SPLITS.get(split, split))


def title(check: str, kind: str) -> Both:
    known = KINDS.get(f"{check}.{kind}")
    return known.title if known else Both(f"{check}: {kind}", f"{check}：{kind}")


def message(finding: Mapping[str, Any]) -> Both:
    """The finding's own sentence, and the Chinese one of its kind."""
    english = str(finding.get("message") or "")
    return Both(english, _filled(finding, "message") or english)


def remedy(finding: Mapping[str, Any]) -> Both:
    english = str(finding.get("remedy") or "")
    return Both(english, _filled(finding, "remedy") or english)


def _filled(finding: Mapping[str, Any], part: str) -> str:
    """The Chinese sentence; nothing where the kind is not known, or a record lacks what its sentence has places for."""
    known = KINDS.get(f"{finding.get('check')}.{finding.get('kind')}")
    try:
        return "" if known is None else _sentence(known, finding, part)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return ""


def _sentence(known: Kind, finding: Mapping[str, Any], part: str) -> str:
    evidence = finding["evidence"]
    values = {**evidence, "count": finding["count"]}
    if "precision_at_most" in values:
        values |= _worth(values["precision_at_most"], values["dropped"])
    values |= {
        name: SPLITS.get(values[name], values[name]) for name in ("split", "from", "to", "against") if name in values
    }
    if "confounder" in values:
        values["confounder"] = CONFOUNDERS.get(values["confounder"], values["confounder"])
    if finding["check"] == "leakage":
        across = evidence["from"] != evidence["to"]
        told = (_ACROSS if across else _INSIDE).format_map(values) + known.message + "。"
        return told if part == "message" else _DROP if across else _ONCE
    return (known.message if part == "message" else known.remedy).format_map(values)


def _worth(precision: float | None, dropped: Mapping[str, Any] | None) -> dict[str, str]:
    """What doubts about labels are worth, and whether to drop the rows."""
    worth = "—" if precision is None else f"{precision:.0%}"
    if dropped is None:
        return {"worth": worth, "pays": ""}
    told = "整批去掉也有好处" if dropped["pays"] else "不要不看就整批去掉，看不出好处"
    agreement = "不用这些行训练的模型与预留的 {rows} 个标签一致率 {after:.1%}，用全部行的为 {before:.1%}"
    return {"worth": worth, "pays": f"{told}：{agreement.format_map(dropped)}。"}


def _of(value: object, language: int) -> object:
    return value[language] if isinstance(value, Both) else value
