"""How a text is cut for the metrics that count tokens: Chinese by characters or words, all else as `rouge-score` cuts.

A metric's signature names the way: `tok:cjk-char|stem:no`, or `tok:rjieba-0.2.2|stem:porter`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from mingshi.errors import RecipeError

Cut = Literal["char", "word"]

# Han with its extensions and compatibility forms, kana, and Hangul syllables: each character is a token.
CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003347f"
TOKEN = re.compile(f"[a-z0-9]+|[{CJK}]")
RUN = re.compile(f"[a-z0-9]+|[{CJK}]+")
UNSTEMMED = 3  # characters: Latin words up to so long are left as they are, as in `rouge-score`


@dataclass(frozen=True, slots=True)
class Tokens:
    """Lower-case runs of Latin letters and digits as `rouge-score` cuts them, and CJK by characters or words.

    `stem` is Porter's, for Latin words alone.
    """

    cut: Cut = "char"
    stem: bool = False

    def tokenize(self, text: str) -> list[str]:
        """The name that `rouge_score` calls."""
        found = TOKEN.findall(text.lower()) if self.cut == "char" else _words(text.lower())
        return [_stemmed(token) for token in found] if self.stem else found

    def signature(self) -> str:
        way = "cjk-char" if self.cut == "char" else f"rjieba-{version('rjieba')}"
        return f"tok:{way}|stem:{'porter' if self.stem else 'no'}"


@cache
def cutter(cut: Cut, stem: bool) -> Tokens:
    """Raises RecipeError where words are wanted and rjieba is not installed."""
    if cut == "word":
        _segmenter()
    return Tokens(cut, stem)


def _words(text: str) -> list[str]:
    found: list[str] = []
    for run in RUN.findall(text):
        if run.isascii():
            found.append(run)
        else:
            found.extend(_segmenter().cut(run))
    return found


@cache
def _segmenter() -> Any:
    try:
        import rjieba
    except ImportError:
        raise RecipeError("rjieba is not installed, which cuts Chinese words", MISSING) from None
    return rjieba


MISSING = "Install the extra: pip install 'mingshi[score]'."


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def _stemmed(token: str) -> str:
    return str(_porter().stem(token)) if len(token) > UNSTEMMED and token.isascii() else token
