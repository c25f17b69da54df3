"""A text as words and what stands between them, so that words can be moved and all else stays as it is.

Words are runs of letters and digits; Chinese is cut into words by rjieba. `"".join(pieces(text)) == text`.
"""

from __future__ import annotations

import re

from mingshi.evals.tokens import CJK, cutter

_PIECE = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+(?:['’\-][^\W_{CJK}]+)*|(?:[^\w{CJK}]|_)+")
_IDEOGRAPHS = re.compile(f"[{CJK}]")
_NEGATING = re.compile("不|没|沒|^[无無未勿莫]|^[别別]$|非$")  # 别人 is "others" and 非常 "very"
_WORDS = "no not never none nor neither cannot nothing nobody nowhere without hardly barely scarcely"
_NEGATIONS = frozenset(_WORDS.split())


def pieces(text: str) -> list[str]:
    """Words and separators in order. Raises RecipeError where Chinese is to be cut and rjieba is not installed."""
    found: list[str] = []
    for piece in _PIECE.findall(text):
        if is_ideographic(piece):
            found += cutter("word", False).tokenize(piece)
        else:
            found.append(piece)
    return found


def is_ideographic(piece: str) -> bool:
    """Whether it is written without spaces around it."""
    return bool(_IDEOGRAPHS.match(piece))


def is_word(piece: str) -> bool:
    return piece[0].isalnum()


def is_guarded(word: str) -> bool:
    """Numbers and words that negate: without them, or elsewhere, a text may say something else."""
    if any(map(str.isdigit, word)):
        return True
    if is_ideographic(word):
        return bool(_NEGATING.search(word))
    low = word.lower().replace("’", "'")
    return low in _NEGATIONS or low.endswith("n't")
