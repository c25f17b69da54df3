"""Which metrics predictions can be scored by, and the tallies that compute them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, model_validator

from mingshi.errors import DataError, RecipeError
from mingshi.evals import answers, rouge
from mingshi.evals.predictions import Item, Need
from mingshi.evals.tallies import Classes, Corpus, Ratios, Tally
from mingshi.evals.tokens import CJK, MISSING, Cut, Tokens, cutter
from mingshi.types import Settings

if TYPE_CHECKING:
    from mingshi.evals.bertscore import Encoder

MetricName = Literal[
    "exact_match",
    "token_f1",
    "rouge",
    "bleu",
    "chrf",
    "bertscore",
    "length",
    "distinct",
    "repetition",
    "accuracy",
    "classification",
]
OF_TEXTS: tuple[MetricName, ...] = ("exact_match", "token_f1", "rouge", "length", "distinct", "repetition")
OF_CLASSES: tuple[MetricName, ...] = ("classification",)
NEEDS_LABEL = ("accuracy", "classification")
SHARES = ("exact_match", "normalised_match", "empty", "accuracy")  # 0 or 1 for each row
GRAM = 3  # of the repetition: tokens in a row


class Scoring(Settings):
    """What predictions are scored by."""

    metrics: tuple[MetricName, ...] = ()
    """None: what the rows allow that needs no model and no extra package."""
    tokens: Cut = "char"
    """A Chinese character is a token, or (`word`) what rjieba takes for a word."""
    stem: bool = False
    """Porter's stemmer on Latin words, for ROUGE."""
    encoder: str | None = None
    """The model of BERTScore: a known name, a folder, or a name on the Hub."""
    layer: int | None = Field(default=None, ge=0)
    """Whose states BERTScore compares; 0 is the embeddings. None: the layer known to be best, or two thirds up."""
    idf: bool = False
    """Weigh BERTScore's tokens by how few references have them."""
    rescale: bool = False
    """Move BERTScore's zero to what unrelated references score."""
    seed: int = 0

    @model_validator(mode="after")
    def _check_use(self) -> Scoring:
        wanted = "bertscore" in self.metrics
        if wanted and self.encoder is None:
            raise ValueError("bertscore needs an encoder: say which model")
        if not wanted and (self.encoder is not None or self.layer is not None or self.idf or self.rescale):
            raise ValueError("an encoder, a layer, idf and rescale are bertscore's, which is not among the metrics")
        if self.stem and self.metrics and "rouge" not in self.metrics:
            raise ValueError("stem is rouge's, which is not among the metrics")
        return self


def metric_names(told: str) -> tuple[MetricName, ...]:
    """Names with commas between them; RecipeError for one that is none of ours, or comes twice."""
    known: tuple[MetricName, ...] = get_args(MetricName)
    by_name = {str(name): name for name in known}
    found = []
    for word in (word.strip() for word in told.split(",") if word.strip()):
        if word not in by_name or by_name[word] in found:
            what = f"--metrics {word}: {'given twice' if word in by_name else 'no metric of ours'}"
            raise RecipeError(what, f"There are {', '.join(known)}.")
        found.append(by_name[word])
    return tuple(found)


def usual_metrics(first: Item) -> tuple[MetricName, ...]:
    """By what the first row has."""
    if first.classified or not first.references:
        return OF_CLASSES
    return (*OF_TEXTS, *OF_CLASSES) if first.label is not None else OF_TEXTS


def needs_of(metrics: Sequence[MetricName]) -> frozenset[Need]:
    labels = any(name in NEEDS_LABEL for name in metrics)
    texts = any(name not in NEEDS_LABEL for name in metrics)
    wanted: tuple[tuple[bool, Need], ...] = ((labels, "label"), (texts, "reference"))
    return frozenset(need for wants, need in wanted if wants)


def is_chinese(texts: Iterable[str]) -> bool:
    """Whether at least half of the letters are Chinese characters."""
    chinese = letters = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        chinese += len(re.findall(f"[{CJK}]", text))
    return letters > 0 and 2 * chinese >= letters


def tallies(
    scoring: Scoring, *, chinese: bool, known_classes: dict[str, int], encoder: Encoder | None = None
) -> list[Tally]:
    """One for each metric asked for. `known_classes` is filled as rows come, and shared by files that are compared."""
    cut = cutter(scoring.tokens, scoring.stem and "rouge" in scoring.metrics)
    plain = cutter(scoring.tokens, False)
    made: Mapping[MetricName, Callable[[], Tally]] = {
        "exact_match": lambda: Ratios({"exact_match": f"exact_match|{rouge.EXACT_MATCH}"}, _exact_match),
        "token_f1": lambda: Ratios(
            {name: f"{name}|{answers.NORMAL}" for name in ("token_f1", "normalised_match")}, _token_f1
        ),
        "rouge": lambda: _rouge(cut),
        "bleu": lambda: Corpus("bleu", _sacrebleu().BLEU(tokenize="zh" if chinese else "13a")),
        "chrf": lambda: Corpus("chrf", _sacrebleu().CHRF()),
        "bertscore": lambda: _bertscore(encoder),
        "length": lambda: _length(plain),
        "distinct": lambda: _distinct(plain),
        "repetition": lambda: _repetition(plain),
        "accuracy": lambda: Classes(known_classes, every=False),
        "classification": lambda: Classes(known_classes, every=True),
    }
    return [made[name]() for name in scoring.metrics]


def _bertscore(encoder: Encoder | None) -> Tally:
    from mingshi.evals.bertscore import BertScore

    assert encoder is not None
    return BertScore(encoder)


def _exact_match(item: Item) -> Sequence[tuple[float, float]]:
    return [(max(rouge.exact_match(each, item.prediction) for each in item.references), 1.0)]


def _token_f1(item: Item) -> Sequence[tuple[float, float]]:
    kinds = (answers.token_f1, answers.normalised_match)
    return [(max(kind(each, item.prediction) for each in item.references), 1.0) for kind in kinds]


def _rouge(cut: Tokens) -> Tally:
    def parts(item: Item) -> Sequence[tuple[float, float]]:
        found = rouge.rouge(item.references, item.prediction, cut=cut.cut, stem=cut.stem)
        return [(found[kind], 1.0) for kind in rouge.KINDS]

    return Ratios({kind: rouge.signature(kind, cut=cut.cut, stem=cut.stem) for kind in rouge.KINDS}, parts)


def _length(cut: Tokens) -> Tally:
    def parts(item: Item) -> Sequence[tuple[float, float]]:
        length = len(cut.tokenize(item.prediction))
        wanted = answers.closest_length(length, [len(cut.tokenize(each)) for each in item.references])
        return [(length, 1.0), (length, wanted), (float(not item.prediction.strip()), 1.0)]

    signatures = {name: f"{name}|{cut.signature()}" for name in ("length", "length_ratio")}
    return Ratios(signatures | {"empty": "empty"}, parts)


def _distinct(cut: Tokens) -> Tally:
    def parts(item: Item) -> Sequence[tuple[float, float]]:
        tokens = cut.tokenize(item.prediction)
        shares = [answers.distinct(tokens, length) for length in (1, 2)]
        return [(0.0, 0.0) if share is None else (share, 1.0) for share in shares]

    return Ratios({f"distinct_{size}": f"distinct_{size}|within:answer|{cut.signature()}" for size in (1, 2)}, parts)


def _repetition(cut: Tokens) -> Tally:
    def parts(item: Item) -> Sequence[tuple[float, float]]:
        share = answers.distinct(cut.tokenize(item.prediction), GRAM)
        return [(0.0 if share is None else 1 - share, 1.0)]

    return Ratios({"repetition": f"repetition|gram:{GRAM}|{cut.signature()}"}, parts)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise RecipeError("sacrebleu is not installed, which computes BLEU and chrF", MISSING) from None
    return metrics


def require_rows(count: int, path: str) -> None:
    """DataError where no row is left to score."""
    if not count:
        raise DataError(f"{path}: no row can be used", "Give it at least one row with a prediction.")
