"""ROUGE that knows Chinese, and exact match. The scores are `rouge-score`'s own; only the cutting of texts is ours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from mingshi.evals.tokens import Cut, cutter

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
EXACT_MATCH = "norm:nfkc-strip"

SENTENCE_END = re.compile("[。！？]+[”’」』）》]*")


def rouge(
    reference: str | Sequence[str], prediction: str, *, cut: Cut = "char", stem: bool = False
) -> dict[str, float]:
    """F-measures of ROUGE-1, -2, -L and -Lsum (Lin 2004), each from 0 to 1; of several references the best, by kind.

    For -Lsum a sentence ends at a line break, as in `rouge-score`, and after 。！？. Two texts without a token in
    common, or without any token, score 0.
    """
    references = [reference] if isinstance(reference, str) else reference
    written = _one_sentence_a_line(prediction)
    found = [_scorer(cut, stem).score(_one_sentence_a_line(each), written) for each in references]
    return {kind: max(float(scores[kind].fmeasure) for scores in found) for kind in KINDS}


def signature(kind: str, *, cut: Cut = "char", stem: bool = False) -> str:
    """What the number depends on: `rougeL|tok:cjk-char|stem:no|rouge_score:0.1.2`."""
    return f"{kind}|{cutter(cut, stem).signature()}|rouge_score:{version('rouge-score')}"


def exact_match(reference: str, prediction: str) -> float:
    """1.0 if both are the same text after Unicode's NFKC and without white space at the ends, else 0.0."""
    return float(_normal(reference) == _normal(prediction))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _one_sentence_a_line(text: str) -> str:
    return SENTENCE_END.sub(r"\g<0>\n", text)


@cache
def _scorer(cut: Cut, stem: bool) -> Any:
    # Imported late: it brings nltk, which `mingshi --help` need not wait for.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), tokenizer=cutter(cut, stem))
