"""What one answer says of itself and of its references, by counting: overlap, length, variety. No model is asked."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence

from mingshi.evals.tokens import CJK

CHINESE = re.compile(f"[{CJK}\u3000-\u303f\uff00-\uffef]")  # its characters, its punctuation, and full width
ARTICLE = re.compile(r"\b(a|an|the)\b")
PIECE = re.compile(f"[{CJK}]|[^\\s{CJK}]+")
NORMAL = "norm:squad-en,cjk-char"


def normal(text: str) -> str:
    """As SQuAD compares English answers (Rajpurkar et al. 2016): lower case, without punctuation, articles and outer
    space. A text with Chinese in it also loses width (NFKC) and Chinese punctuation."""
    text = text.lower()
    if CHINESE.search(text):
        text = unicodedata.normalize("NFKC", text).lower()
        text = "".join(each for each in text if unicodedata.category(each)[0] != "P")
    text = "".join(each for each in text if each not in string.punctuation)
    return " ".join(ARTICLE.sub(" ", text).split())


def normal_tokens(text: str) -> list[str]:
    """The words of a normalised text; each Chinese character is one."""
    return PIECE.findall(normal(text))


def normalised_match(reference: str, prediction: str) -> float:
    """1.0 if both have the same tokens in the same order after normalisation, else 0.0."""
    return float(normal_tokens(reference) == normal_tokens(prediction))


def token_f1(reference: str, prediction: str) -> float:
    """F1 of the bags of tokens; where one side has none, 1.0 if the other has none either (SQuAD 2.0)."""
    wanted, given = Counter(normal_tokens(reference)), Counter(normal_tokens(prediction))
    if not wanted or not given:
        return float(wanted == given)
    return 2 * (wanted & given).total() / (wanted.total() + given.total())


def distinct(tokens: Sequence[Hashable], length: int) -> float | None:
    """Share of an answer's n-grams of this length that differ (Li et al. 2016); None where it has none.

    Within one answer: over a whole file the share would fall with the number of rows.
    """
    grams = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
    return len(set(grams)) / len(grams) if grams else None


def closest_length(length: int, references: Sequence[int]) -> int:
    """The reference's length that is nearest, the shorter of two: what BLEU's brevity penalty takes."""
    return min(references, key=lambda each: (abs(each - length), each))
