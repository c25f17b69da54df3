"""Texts as they would be of somebody else: pairs of words changed for one another, such as he and she.

Our own pairs are pronouns and words of kinship and address, for English and Chinese, first of men, then of women. Names
are no part of them: a user's file says which (`Emily<TAB>James`). A word of a pair that is written with a capital is a
name and is found only so; one in lower case is found in any case, which its partner takes over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mingshi.checks.tabbed import tabbed_lines

# First of men, then of women. A word of several pairs goes to its first partner: 男士 to 女士, and 女士 to 先生.
_PAIRS = """
he/she him/her his/her his/hers himself/herself man/woman men/women boy/girl boys/girls father/mother
fathers/mothers son/daughter sons/daughters brother/sister brothers/sisters husband/wife husbands/wives
uncle/aunt uncles/aunts nephew/niece grandfather/grandmother grandson/granddaughter dad/mom daddy/mommy
mr/ms mr/mrs mr/miss sir/madam sir/ma'am gentleman/lady gentlemen/ladies guy/gal boyfriend/girlfriend
male/female males/females king/queen prince/princess actor/actress waiter/waitress
他/她 他们/她们 先生/女士 男士/女士 先生/小姐 先生/太太 男人/女人 男性/女性 男孩/女孩 男生/女生 男子/女子
男孩子/女孩子 男的/女的 男方/女方 男友/女友 男朋友/女朋友 男同学/女同学 男同事/女同事 男老师/女老师
男教师/女教师 男医生/女医生 男演员/女演员 男职员/女职员 男员工/女员工 男司机/女司机 男警察/女警察
父亲/母亲 爸爸/妈妈 老爸/老妈 儿子/女儿 哥哥/姐姐 弟弟/妹妹 兄弟/姐妹 丈夫/妻子 老公/老婆 爷爷/奶奶
外公/外婆 叔叔/阿姨 伯伯/阿姨 舅舅/姨妈 孙子/孙女 侄子/侄女 小伙子/小姑娘 帅哥/美女 国王/女王 王子/公主
"""
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (first, second) for first, _, second in (each.partition("/") for each in _PAIRS.split())
)

# 其他 is "other", 他人 "others", 吉他 a guitar, 利他 "altruistic", 他乡 another place: none of them is a man.
_NOT_HE = ("(?<![其吉利排])", "(?![人乡])")
_NARROW = "[^\\W\u2e80-\U0003ffff]"  # a letter or digit of a script with spaces between its words
# After these `her` is the object of what came before; before any other word it says whose, as `his` does.
_OTHERS = """
a about across after again against all already also although always an and any anymore anyway around as at away
back be because been before behind being below between but by can cannot could did do does down during each either
even ever every far for forever from had has have he here how however i if immediately in inside into is it
just later less like many may maybe me might more much must near neither never no nor not now of off often on once
one or otherwise out outside over perhaps please quickly quite rather really right she should since so some somehow
soon still such than that the them then there these they this those though through till to today together tomorrow
tonight too toward towards twice under unless until up upon very was we well were what whatever when whenever where
wherever whether which while who whom why will with within without would yesterday yet you
"""
_NO_NOUNS = frozenset(_OTHERS.split())


@dataclass(frozen=True, slots=True, eq=False)
class Swaps:
    """Pairs that are looked for."""

    partners: Mapping[str, tuple[str, int]]  # a word as it is looked up -> the other one, and its own side, 0 or 1
    pattern: re.Pattern[str]


@cache
def our_swaps() -> Swaps:
    """Pronouns, kinship and address."""
    return swaps_of(PAIRS)


def swaps_of(pairs: Iterable[tuple[str, str]]) -> Swaps:
    partners: dict[str, tuple[str, int]] = {}
    for first, second in pairs:
        partners.setdefault(first, (second, 0))
        partners.setdefault(second, (first, 1))
    words = sorted(partners, key=lambda word: (-len(word), word))
    return Swaps(partners, re.compile("|".join(map(_looked_for, words))))


def read_swaps(path: Path, *, ours: bool = False) -> Swaps:
    """Lines of two words with a tab between, and with `ours` our own pairs too; where both have a word, the file's.

    The words of one side go into one column: of which side a text speaks is told by it. Raises DataError where the file
    holds other lines, or none.
    """
    lines = tabbed_lines(
        path,
        fits=lambda cells: len(cells) == 2 and cells[0] != cells[1],
        what="two different words with a tab between them",
        example="Emily<TAB>James",
    )
    return swaps_of([*((first, second) for first, second in lines), *(PAIRS if ours else ())])


def swapped(text: str, swaps: Swaps) -> tuple[str, frozenset[int]]:
    """The text with every word of a pair changed for its partner, and the sides of the words that it had.

    In English `his` stands for two words and `her` for two: which one is told by the word after it, not always right
    ("saw her leave").
    """
    sides = set[int]()

    def other(found: re.Match[str]) -> str:
        word = found.group()
        partner, side = swaps.partners[word if word in swaps.partners else word.lower()]
        sides.add(side)
        if word.lower() in ("his", "her"):
            partner = _whose(word.lower(), _next_word(text, found.end()), partner)
        return partner if word in swaps.partners and not word.islower() else in_case_of(partner, word)

    return swaps.pattern.sub(other, text), frozenset(sides)


def _looked_for(word: str) -> str:
    """A word by itself: nothing of its script beside it, and in lower case any case of it."""
    before = f"(?<!{_NARROW})" if re.match(_NARROW, word) else ""
    after = f"(?!{_NARROW})" if re.match(_NARROW, word[-1]) else ""
    if word == "他":
        before, after = _NOT_HE
    return f"{before}(?i:{re.escape(word)}){after}" if word.islower() else f"{before}{re.escape(word)}{after}"


def _next_word(text: str, end: int) -> str:
    """The word that follows after a space alone, in lower case."""
    found = re.match(rf"[ \t]+({_NARROW}+)", text[end : end + 80])
    return found.group(1).lower() if found else ""


def _whose(word: str, following: str, partner: str) -> str:
    """`his book` is her book and `his` hers; `her book` is his book, and `saw her` saw him."""
    has = bool(following) and following not in _NO_NOUNS
    if word == "his" and partner == "her":
        return "her" if has else "hers"
    if word == "her" and partner in ("him", "his"):
        return "his" if has else "him"
    return partner


def in_case_of(word: str, model: str) -> str:
    """The word as the model is written: in capitals, with a first capital, or as it is."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
