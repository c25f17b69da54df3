"""ROUGE that knows Chinese, and exact match. The scores are `rouge-score`'s own; only the cutting of texts is ours."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.metadata import version
from typing import Any

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
EXACT_MATCH = "norm:nfkc-strip"

# Han with its extensions and compatibility forms, kana, and Hangul syllables: each character is a token.
CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003347f"
TOKEN = re.compile(f"[a-z0-9]+|[{CJK}]")
SENTENCE_END = re.compile("[。！？]+[”’」』）》]*")


class Tokens:
    """Lower-case runs of Latin letters and digits as `rouge-score` cuts them, and single CJK characters."""

    def tokenize(self, text: str) -> list[str]:
        """The name that `rouge_score` calls."""
        return TOKEN.findall(text.lower())


def rouge(reference: str, prediction: str) -> dict[str, float]:
    """F-measures of ROUGE-1, -2, -L and -Lsum (Lin 2004), each from 0 to 1.

    For -Lsum a sentence ends at a line break, as in `rouge-score`, and after 。！？. Two texts without a token in
    common, or without any token, score 0.
    """
    scores = _scorer().score(_one_sentence_a_line(reference), _one_sentence_a_line(prediction))
    return {kind: float(scores[kind].fmeasure) for kind in KINDS}


def signature(kind: str) -> str:
    """What the number depends on: `rougeL|tok:cjk-char|stem:no|rouge_score:0.1.2`."""
    return f"{kind}|tok:cjk-char|stem:no|rouge_score:{version('rouge-score')}"


def exact_match(reference: str, prediction: str) -> float:
    """1.0 if both are the same text after Unicode's NFKC and without white space at the ends, else 0.0."""
    return float(_normal(reference) == _normal(prediction))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _one_sentence_a_line(text: str) -> str:
    return SENTENCE_END.sub(r"\g<0>\n", text)


@cache
def _scorer() -> Any:
    # Imported late: it brings nltk, which `mingshi --help` need not wait for.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), tokenizer=Tokens())
