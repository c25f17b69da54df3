"""Whom a text speaks of, by its words: a small table for each language, and no more sure than that."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = "mentions"  # as an attribute
MISSING = "(missing)"  # the group of rows that do not say
BOTH, NEITHER = "both", "neither"

# 其他 is "other", 他人 "others", 吉他 a guitar, 利他 "altruistic", and 他们 any group of people: none of them is a man.
GENDERED: dict[str, re.Pattern[str]] = {
    "female": re.compile(
        r"\b(?:she|her|hers|herself|woman|women|girl|girls|mother|daughter|sister|wife|mrs)\b"
        "|她|女人|女士|女性|女孩|女生|女子|妇女|小姐|母亲|妈妈|女儿|姐姐|妹妹|妻子|太太",
        re.IGNORECASE,
    ),
    "male": re.compile(
        r"\b(?:he|him|his|himself|man|men|boy|boys|father|son|brother|husband|mr)\b"
        "|(?<![其吉利])他(?![们人])|男人|男士|男性|男孩|男生|男子|先生|父亲|爸爸|儿子|哥哥|弟弟|丈夫",
        re.IGNORECASE,
    ),
}


def mentions(text: str) -> str:
    """`female`, `male`, `both` or `neither`."""
    found = [name for name, pattern in GENDERED.items() if pattern.search(text)]
    if len(found) == 1:
        return found[0]
    return BOTH if found else NEITHER


def group_of(attributes: Mapping[str, str], text: str, name: str) -> str:
    """The group of a row: what it says of the attribute, or of `mentions` its text."""
    value = attributes.get(name, "")
    if not value and name == NAME:
        return mentions(text)
    return value or MISSING
