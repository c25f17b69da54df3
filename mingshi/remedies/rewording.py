"""Texts said in other words by a language model: what it is asked, and what is made of its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mingshi.checks.normal import normalised
from mingshi.checks.shingles import letter_shingles
from mingshi.remedies.augment import Method

# Prompts and their seeds; None where an answer did not come to its end.
Ask = Callable[[Sequence[str], Sequence[Sequence[int]]], Sequence[str | None]]

NEAR = 0.75  # share of the pieces of four letters that an outcome has in common: it is the old text
LENGTHS = (1 / 3, 3.0)  # times as long as the old one, in letters
MOSTLY = 0.3  # share of a text's letters that are Han: it is Chinese
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_QUOTES = {'"': '"', "“": "”", "「": "」", "'": "'", "‘": "’"}

REWORD = (
    "Say the following text in other words. Keep its meaning, its tone and its language. "
    "Answer with the new text alone.\n\n{text}",
    "用不同的说法改写下面的文本，保持意思、语气和语言不变，只写出改写后的文本。\n\n{text}",
)
TO_CHINESE = "Translate the following text into Chinese. Answer with the translation alone.\n\n{text}"
TO_ENGLISH = "把下面的文本翻译成英文，只写出译文。\n\n{text}"


def paraphrase(ask: Ask) -> Method:
    """The text in other words, as a model puts it."""

    def rewrite(texts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        return _asked(ask, [REWORD[is_chinese(text)].format(text=text) for text in texts], seeds)

    return Method(rewrite=rewrite, fault=fault)


def back_translation(ask: Ask) -> Method:
    """The text through the other of the two languages and back (Sennrich, Haddow and Birch 2016)."""

    def rewrite(texts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        there = [(TO_ENGLISH if is_chinese(text) else TO_CHINESE).format(text=text) for text in texts]
        middle = _asked(ask, there, seeds)
        places = [place for place, text in enumerate(middle) if text]
        back = [(TO_ENGLISH if is_chinese(str(middle[at])) else TO_CHINESE).format(text=middle[at]) for at in places]
        found = dict(zip(places, _asked(ask, back, [(*seeds[at], 1) for at in places]), strict=True))
        return [found.get(place) for place in range(len(texts))]

    return Method(rewrite=rewrite, fault=fault)


def is_chinese(text: str) -> bool:
    letters = normalised(text)
    return len(_HAN.findall(letters)) > MOSTLY * len(letters)


def fault(old: str, new: str) -> str:
    """`near`, `length` or `language`, where an outcome is nearly the old text, far from its length, or in another
    language; else ""."""
    before, after = normalised(old), normalised(new)
    if not LENGTHS[0] * len(before) <= len(after) <= LENGTHS[1] * len(before):
        return "length"
    if is_chinese(old) != is_chinese(new):
        return "language"
    first, second = (set(letter_shingles(each)[0].tolist()) for each in (before, after))
    shared = len(first & second) / max(1, len(first | second))
    return "near" if before == after or shared >= NEAR else ""


def _asked(ask: Ask, prompts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
    """Answers without white space and quotation marks around them; None of one that is empty or unfinished."""
    return [_bare(answer) or None if answer is not None else None for answer in ask(prompts, seeds)]


def _bare(answer: str) -> str:
    answer = answer.strip()
    quoted = len(answer) > 1 and _QUOTES.get(answer[0]) == answer[-1]
    return answer[1:-1].strip() if quoted else answer
