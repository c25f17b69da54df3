"""Which metrics predictions can be scored by, and the tallies that compute them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from pydantic import Field, model_validator

from mingshi.errors import DataError, RecipeError
from mingshi.evals import answers, rouge, statistics
from mingshi.evals.predictions import Item, Need
from mingshi.evals.tallies import Classes, Corpus, Places, Ratios, Tally
from mingshi.evals.tokens import CJK, MISSING, Cut, Tokens, cutter
from mingshi.types import Score, Settings

if TYPE_CHECKING:
    from mingshi.evals.bertscore import Encoder

Each = TypeVar("Each", bound=Settings)

TextMetric = Literal[
    "exact_match",
    "token_f1",
    "rouge",
    "bleu",
    "chrf",
    "bertscore",
    "length",
    "distinct",
    "repetition",
]
MetricName = Literal[TextMetric, "accuracy", "classification"]
OF_TEXTS: tuple[MetricName, ...] = ("exact_match", "token_f1", "rouge", "length", "distinct", "repetition")
OF_CLASSES: tuple[MetricName, ...] = ("classification",)
NEEDS_LABEL = ("accuracy", "classification")
SHARES = ("exact_match", "normalised_match", "empty", "accuracy")  # 0 or 1 for each row
WEIGHTED = ("length_ratio", "distinct_1", "distinct_2")  # sums over sums, whose items do not weigh alike
GRAM = 3  # of the repetition: tokens in a row
CHUNK = 256  # rows scored at a time
SAMPLED = 2000  # references kept, by which the language is told and BERTScore's zero measured


class BertScore(Settings):
    """By which encoder's states texts are compared, and how."""

    encoder: str
    """A known name, a folder, or a name on the Hub."""
    layer: int | None = Field(default=None, ge=0)
    """Whose states are compared; 0 is the embeddings. None: the layer known to be best, or two thirds up."""
    idf: bool = False
    """Weigh tokens by how few references have them."""
    rescale: bool = False
    """Move zero to what unrelated references score."""


class Scoring(Settings):
    """What predictions are scored by."""

    metrics: tuple[MetricName, ...] = ()
    """None: what the rows allow that needs no model and no extra package."""
    tokens: Cut = "char"
    """A Chinese character is a token, or (`word`) what rjieba takes for a word."""
    stem: bool = False
    """Porter's stemmer on Latin words, for ROUGE."""
    bertscore: BertScore | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _check_use(self) -> Scoring:
        wanted = "bertscore" in self.metrics
        if wanted and self.bertscore is None:
            raise ValueError("bertscore needs an encoder: say which model")
        if not wanted and self.bertscore is not None:
            raise ValueError("an encoder is bertscore's, which is not among the metrics")
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


class Sample:
    """Some of many references, evenly drawn."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.seen = 0
        self.generator = np.random.default_rng(0)

    def add(self, reference: str) -> None:
        self.seen += 1
        if len(self.texts) < SAMPLED:
            self.texts.append(reference)
        elif (place := int(self.generator.integers(0, self.seen))) < SAMPLED:
            self.texts[place] = reference


def encoder_of(
    wanted: BertScore | None, *, references: Callable[[], Iterable[str]], sample: Sample, seed: int
) -> Encoder | None:
    """BERTScore's encoder, with the weights and the zero that are asked for; None where it is not."""
    if wanted is None:
        return None
    from mingshi.evals.bertscore import document_weights, measured_baseline, open_encoder

    encoder = open_encoder(wanted.encoder, layer=wanted.layer)
    if wanted.idf:
        encoder.weights = document_weights(encoder, references())
    if wanted.rescale:
        encoder.baseline = measured_baseline(encoder, sample.texts, seed=seed)
    return encoder


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
        "bleu": lambda: corpus("bleu", chinese=chinese),
        "chrf": lambda: corpus("chrf", chinese=chinese),
        "bertscore": lambda: _bertscore(encoder),
        "length": lambda: _length(plain),
        "distinct": lambda: _distinct(plain),
        "repetition": lambda: _repetition(plain),
        "accuracy": lambda: Classes(known_classes, every=False),
        "classification": lambda: Classes(known_classes, every=True),
    }
    return [made[name]() for name in scoring.metrics]


def corpus(name: str, *, chinese: bool = False) -> Corpus:
    """The tally of `bleu` or `chrf`."""
    metrics = _sacrebleu()
    return Corpus(name, metrics.CHRF() if name == "chrf" else metrics.BLEU(tokenize="zh" if chinese else "13a"))


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


def empty() -> Tally:
    """The share of answers that say nothing."""
    return Ratios({"empty": "empty"}, lambda item: [(float(not item.prediction.strip()), 1.0)])


def require_rows(count: int, path: str) -> None:
    """DataError where no row is left to score."""
    if not count:
        raise DataError(f"{path}: no row can be used", "Give it at least one row with a prediction.")


# Numbers


class Digest:
    """What rows are asked for, in eight hexadecimal digits: equal for predictions of the same items in one order."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=4)

    def add(self, item: Item) -> None:
        self.hash.update(repr((item.references, item.label)).encode("utf-8", "surrogatepass"))

    def signature(self) -> str:
        return f"items:{self.hash.hexdigest()}"


def scores_of(tallies: Sequence[Tally], places: Places, *, rows: int, same: str, seed: int) -> dict[str, Score]:
    """Every metric with its interval: Wilson's for a share of rows that are resampled singly, else the bootstrap's.

    `same` is the end of every signature.
    """
    told: dict[str, Score] = {}
    for tally in tallies:
        columns_NK = tally.columns(places.count)
        names = tally.names()
        signatures = [f"{tally.signature(name)}|{same}" for name in names]

        def values(counts_RN: np.ndarray, tally: Tally = tally, columns_NK: np.ndarray = columns_NK) -> np.ndarray:
            return tally.values(counts_RN @ columns_NK)

        found = statistics.measured(values, places.count, signatures=signatures, seed=seed)
        for name, score in zip(names, found, strict=True):
            told[name] = replace(score, count=rows)
            if name in SHARES and not places.clustered:
                told[name] = statistics.rate(round(score.value * rows), rows, signature=score.signature)
    return told


def items_of(tally: Tally, count: int) -> dict[str, list[float]]:
    """Each item's own value under the metric's name; of a sum over a sum its two parts, of a metric of the whole file
    what it adds to each of the sums (`bleu.part0` and so on)."""
    columns_NK = tally.columns(count)
    if isinstance(tally, Corpus):
        return {f"{tally.name}.part{place}": column for place, column in enumerate(columns_NK.T.tolist())}
    found: dict[str, list[float]] = {}
    for place, (name, values_N) in enumerate(zip(tally.names(), tally.values(columns_NK).T, strict=True)):
        if name in WEIGHTED:
            found[f"{name}.sum"] = columns_NK[:, 2 * place].tolist()
            found[f"{name}.weight"] = columns_NK[:, 2 * place + 1].tolist()
        else:
            found[name] = values_N.tolist()
    return found


def corpus_difference(
    name: str,
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    *,
    signature: str,
    seed: int = 0,
) -> Score:
    """`after - before` of a metric of the whole file, with the paired bootstrap's interval (Koehn 2004)."""
    tally = corpus(name)  # how texts are cut no longer matters: they have been counted
    first_NK, second_NK = (_parts(name, items) for items in (before, after))

    def change(counts_RN: np.ndarray) -> np.ndarray:
        moved: np.ndarray = tally.values(counts_RN @ second_NK) - tally.values(counts_RN @ first_NK)
        return moved

    return statistics.measured(change, len(first_NK), signatures=[signature], seed=seed)[0]


def _parts(name: str, items: Mapping[str, Sequence[float]]) -> np.ndarray:
    places = range(sum(each.startswith(f"{name}.part") for each in items))
    return np.stack([np.asarray(items[f"{name}.part{place}"], np.float64) for place in places], axis=1)
