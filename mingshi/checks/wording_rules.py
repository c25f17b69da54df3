"""What is wrong with a text by itself, or as an answer to its prompt: rules, each of them a function of texts alone."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from mingshi.checks.normal import normalised

HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003347f"
UNIT = re.compile(rf"[{HAN}\u3040-\u30ff]|[^\W_{HAN}\u3040-\u30ff]+")  # a Han or kana character, or a word

# Double encodings.
LEFT = "\ufffd|锟斤拷|烫烫烫|屯屯屯|ï»¿"  # replacement characters, byte order marks and fillings of memory, as text
WESTERN = re.compile(
    "[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2010-\u203a\u20ac\u2122]{2,}"
)
CHINESE = re.compile("([^\\s\x00-\x7f]{6})[^\\s\x00-\x7f]*")
LATIN_TWICE = "ÂÃ"  # what UTF-8 of Latin letters begins with, read as Latin

# Repetition.
GRAM = 3
FEWEST_GRAMS = 30
REPEATED = 0.5  # share of 3-grams that have come before
UNITS = 2000  # of a text that are looked at

# Language.
SCRIPTS = {
    "Han": re.compile(f"[{HAN}]"),
    "kana": re.compile("[\u3040-\u30ff]"),
    "Hangul": re.compile("[\uac00-\ud7a3]+"),
    "Latin": re.compile("[A-Za-z\u00c0-\u024f]+"),
    "Cyrillic": re.compile("[\u0400-\u04ff]+"),
    "Greek": re.compile("[\u0370-\u03ff]+"),
    "Arabic": re.compile("[\u0600-\u06ff]+"),
    "Hebrew": re.compile("[\u0590-\u05ff]+"),
    "Devanagari": re.compile("[\u0900-\u097f]+"),
    "Thai": re.compile("[\u0e00-\u0e7f]+"),
}
MOSTLY = 0.9  # share of the units that are of one script
FEWEST_UNITS = (5, 15)  # of prompt and answer
ANOTHER = re.compile(  # a prompt that has to do with languages, or with code
    "翻译|译[成为文]|[英中日韩法德俄汉]语|[英中日韩法德俄]文|语言|拼音|代码|程序|函数|编程|单词|缩写|化学|公式|名字|名称|网址|网站"
    "|translat|language|english|chinese|french|spanish|german|japanese|korean|russian|italian|arabic|hindi|latin"
    "|mandarin|pinyin|code|```",
    re.IGNORECASE,
)
FENCED = re.compile("```.*?(```|$)", re.DOTALL)
ADDRESS = re.compile(r"https?://\S+|\S+@\S+")

# Refusals, at the beginning of an answer.
BEGINNING = 160  # characters
SPEAKER = re.compile(
    r"(as|i'?m|i am) (just |only )?an? (ai|artificial intelligence|(large )?language model|text-based)\b"
    "|(作为|我(只)?是)(一个|一名|一款|个)?(ai|人工智能|大?(型)?语言模型|文本|聊天)"
)
UNABLE = re.compile(
    r"can ?not|can't|unable to|not (able|capable|designed|programmed)|do(es)? not have|don't have|won't"
    "|无法|不能|不可以|没有(能力|个人|办法)|没办法|没法|不具备|不会"
)
DECLINES = re.compile(
    r"^(i('m| am)? (very |really )?(sorry|afraid)|(my )?apologies|i apologi[sz]e|i regret|sorry|unfortunately)"
    r",?( but)?,? (that )?i('m| am)? (can ?not|can't|unable|not able|won't|do not|don't)"
    r"|^i('m| am)? (can ?not|can't|unable to|not able to|won't) "
    r"(assist|help|provide|fulfil|comply|do that|answer|generate|create|write|access|browse|complete)"
    "|^(我)?(非常|很|十分)?(抱歉|对不起)[^。！]{0,16}(无法|不能|不可以|没有?办法|没法|不会)"
    "|^我(无法|不能)(提供|回答|协助|帮助|满足|完成|访问|生成|执行)"
)

# Ends.
FINAL = ".!?。！？…⋯．؟।；;"
CLOSING = "\"'”’»」』）)】]》>*_`~ \t\r\n\u200d\ufe0f"
SHORT = 40  # characters: a shorter answer may be a name, a number or a title
LAST_LINE = 20  # characters: a shorter last line may be a signature
NO_SENTENCE = re.compile(  # lists, tables, headings, code, addresses
    r"^\s*([-*+•·#|>]|\d+[.)、．]|[a-zA-Z][.)]|[（(]?[一二三四五六七八九十\d]+[）)、])|```|\||https?://|[=<>{}\\]|\w\(.*\)$"
)

# Brackets.
PAIRS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】", "「": "」", "『": "』", "《": "》", "“": "”"}
CLOSERS = {close: opening for opening, close in PAIRS.items()} | {"）": "（", ")": "("}
NO_BRACKET = re.compile(  # emoticons, quoted brackets, half-open intervals
    r"""[:;=8xX]['`-]?[(\[{]|["'`‘“][(\[{（【]["'`’”]|\[[^\[\]()]{1,40}\)|\([^\[\]()]{1,40}\]"""
)
ECHO = 20  # characters of a normalised prompt: a shorter one may well belong into an answer


def mojibake(text: str) -> bool:
    """Text that was decoded with the wrong encoding, once or twice, or lost."""
    if text.isascii():
        return False
    if re.search(LEFT, text):
        return True
    return any(_twice(run.group()) for run in WESTERN.finditer(text)) or any(
        _gbk(run.group(1)) for run in CHINESE.finditer(text)
    )


def _twice(run: str) -> bool:
    """UTF-8 read as Windows-1252: its bytes are UTF-8 again. A pair must be of Latin letters, or not be alone."""
    data = b"".join(each.encode("cp1252", "ignore") or each.encode("latin-1", "ignore") for each in run)
    try:
        read = data.decode()
    except UnicodeDecodeError:
        return any(
            run[place] in LATIN_TWICE and "\u00a0" <= run[place + 1] <= "\u00bf" for place in range(len(run) - 1)
        )
    return run[0] in LATIN_TWICE or len(read) > 1 or len(data) > 2


def _gbk(run: str) -> bool:
    """UTF-8 read as GBK: the bytes of six characters are four others."""
    try:
        read = run.encode("gbk").decode()
    except UnicodeError:
        return False
    return len(read) == 4


def repeats(text: str) -> bool:
    """More than half of the 3-grams have come before: a loop."""
    units = [found.group() for found, _ in zip(UNIT.finditer(text), range(UNITS), strict=False)]
    grams = len(units) - GRAM + 1
    if grams < FEWEST_GRAMS:
        return False
    different = len(set(zip(units, units[1:], units[2:], strict=False)))
    return 1 - different / grams > REPEATED


def script(text: str, fewest: int) -> str | None:
    """What nearly all of a text is written in, Japanese by its kana; None where it is mixed or short."""
    plain = ADDRESS.sub(" ", FENCED.sub(" ", text))
    counts = Counter({name: len(pattern.findall(plain)) for name, pattern in SCRIPTS.items()})
    if counts["kana"] > 0.05 * (counts["Han"] + counts["kana"]):
        counts["kana"] += counts.pop("Han")
    total = sum(counts.values())
    name, count = counts.most_common(1)[0]
    return name if total >= fewest and count >= MOSTLY * total else None


def scripts(prompt: str, answer: str) -> tuple[str, str] | None:
    """Of prompt and answer; None where either is mixed, or where the prompt gives a reason for another one."""
    if ANOTHER.search(prompt):
        return None
    asked = script(prompt, FEWEST_UNITS[0])
    told = script(answer, FEWEST_UNITS[1]) if asked else None
    return (asked, told) if asked and told else None


def refuses(answer: str) -> bool:
    """Begins as a refusal does, in English or Chinese: it declines, or names what it is and what it is unable to do."""
    start = answer.strip()[:BEGINNING].casefold().replace("’", "'")
    return bool(DECLINES.search(start) or (SPEAKER.search(start) and UNABLE.search(start)))


def copies(prompt: str, answer: str) -> bool:
    """The whole prompt stands in the answer."""
    asked = normalised(prompt)
    return len(asked) >= ECHO and asked in normalised(answer)


def ends(answer: str) -> bool | None:
    """With a final sign? None where a sentence cannot be expected: short texts, lists, code, tables, addresses."""
    text = answer.strip()
    last = text.rsplit("\n", 1)[-1].strip()
    if len(text) < SHORT or len(last) < LAST_LINE or NO_SENTENCE.search(last):
        return None
    bare = text.rstrip(CLOSING)
    if not bare or bare[-1] in FINAL or unicodedata.category(bare[-1]) == "So":  # a picture ends a sentence too
        return True
    return None if bare != text else False  # titles stand in quotes and brackets without a final sign


def open_fence(answer: str) -> bool:
    """An odd number of lines that open or close a code block."""
    return sum(line.lstrip().startswith("```") for line in answer.splitlines()) % 2 == 1


def broken_json(answer: str) -> bool:
    """An answer, or a block marked as JSON, that begins as JSON does and is none."""
    blocks = re.findall("```json\\s*\n(.*?)```", answer, re.DOTALL | re.IGNORECASE)
    whole = answer.strip()
    if re.match(r'\{\s*"|\[\s*[{"]', whole):
        blocks.append(whole)
    return any(not _parses(block) for block in blocks)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def open_bracket(answer: str) -> bool:
    """A bracket or a quotation mark of its own shape that nothing closes, outside of code, emoticons and intervals."""
    stack: list[str] = []
    for each in NO_BRACKET.sub(" ", FENCED.sub(" ", answer)):
        if each in PAIRS:
            stack.append(each)
        elif each in CLOSERS and stack:
            _close(stack, each)
    return bool(stack)


def _close(stack: list[str], closer: str) -> None:
    """Take what it closes off the stack: the last of its shape, whatever its width."""
    width = {"（": "(", "）": ")"}
    opening = width.get(CLOSERS[closer], CLOSERS[closer])
    for place in range(len(stack) - 1, -1, -1):
        if width.get(stack[place], stack[place]) == opening:
            del stack[place]
            return


ALONE: dict[str, Callable[[str], bool]] = {  # of a free answer
    "repetition": repeats,
    "refusal": refuses,
    "broken_json": broken_json,
    "open_fence": open_fence,
    "open_bracket": open_bracket,
}
