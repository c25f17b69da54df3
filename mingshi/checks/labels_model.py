"""What a simple model says of each row's label when it has not seen the row: the evidence that labels are judged by.

Rows that belong together, by their group or because their texts are equal, are always in one fold. The model of a fold
is trained on the other folds but one, and that one sets its temperature; so no probability knows anything of the label
that it is compared with, nor of a copy's. Nothing here takes probabilities from outside.

Where an encoder's states are given, a second model learns from them, and that same fold also sets its penalty and how
much each of the two says.

Legend: N rows, F columns of features, W width of states, K classes; S rows of the fold that sets, T that are judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = 2**18  # that n-grams are hashed into
CHARACTERS = 1000  # of a text that are read
LONGEST = 4  # characters of an n-gram
WORD = re.compile(r"\w+")
PARAMETERS = 4_000_000  # of the model at most: the solver keeps about twenty vectors of this length
FEW = 5000  # rows up to which there are more folds, because every row is needed
FOLDS_OF_FEW, FOLDS = 10, 5
STRENGTH = 1.0  # of the data against the penalty (scikit-learn's C): weak on purpose, wrong labels are to be outvoted
STRENGTHS = (0.001, 0.01, 0.1)  # among which that of the model on states is chosen
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the states in what both say
LEAST = 1e-12  # probability of a class that a model has not met


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Out-of-sample probabilities, and which fold each row was in."""

    probabilities: np.ndarray  # [N, K] float64
    folds: np.ndarray  # [N]


def features(texts: Sequence[str]) -> Any:
    """Counts of characters 1 to 4 at a time and of words, hashed: a sparse matrix [N, F]."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer=_grams, n_features=COLUMNS, alternate_sign=False, norm=None, dtype=np.float32
    ).transform(texts)


def _grams(text: str) -> Iterator[str]:
    shown = " ".join(text[:CHARACTERS].casefold().split())
    yield from (f"\n{word}" for word in WORD.findall(shown))
    for length in range(1, LONGEST + 1):
        yield from (shown[start : start + length] for start in range(len(shown) - length + 1))


def together(*columns: Sequence[int]) -> np.ndarray:
    """A number for each row, the same for rows that share a value in any of the columns, also by way of others. [N]"""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(columns[0])
    starts, ends, nodes = [], [], rows
    for column in columns:
        values, codes = np.unique(np.asarray(column), return_inverse=True)
        starts.append(np.arange(rows))
        ends.append(codes + nodes)
        nodes += len(values)
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(nodes, nodes))
    _, components = connected_components(graph, directed=False)
    return np.unique(components[:rows], return_inverse=True)[1]


def deal(labels_N: np.ndarray, components_N: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """A fold for each row: components whole, those of a label dealt in turn, the large ones first. [N]"""
    components, first, sizes = np.unique(components_N, return_index=True, return_counts=True)
    chance = np.random.default_rng(seed).permutation(len(components))
    order = np.lexsort((chance, -sizes, labels_N[first]))
    fold = np.empty(len(components), dtype=np.int64)
    fold[order] = np.arange(len(components)) % folds
    return fold[np.searchsorted(components, components_N)]


def judge(
    features_NF: Any,
    labels_N: np.ndarray,
    components_N: np.ndarray,
    *,
    states_NW: np.ndarray | None = None,
    seed: int = 0,
) -> Judged:
    """Probabilities of the K classes, numbered from 0, for each row by models that have seen none of its component."""
    classes = int(labels_N.max()) + 1
    count = FOLDS_OF_FEW if len(labels_N) <= FEW else FOLDS
    folds = deal(labels_N, components_N, folds=count, seed=seed)
    kept_NF = _frequent(features_NF, PARAMETERS // classes)
    probabilities = np.zeros((len(labels_N), classes))
    for fold in range(count):
        setting = (fold + 1) % count
        if not (folds == fold).any():
            continue
        cut = _Cut(
            labels=labels_N,
            learning=np.flatnonzero((folds != fold) & (folds != setting)),
            setting=np.flatnonzero(folds == setting),
            there=np.flatnonzero(folds == fold),
            classes=classes,
        )
        probabilities[cut.there] = np.exp(_said(kept_NF, states_NW, cut).there)
    return Judged(probabilities=probabilities / probabilities.sum(axis=1, keepdims=True), folds=folds)


def predicted(
    features_NF: Any,
    labels_N: np.ndarray,
    learning: np.ndarray,
    there: np.ndarray,
    *,
    states_NW: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The class of each row `there` (places) by models of the rows `learning`, a fifth of which sets what there is."""
    classes = int(labels_N.max()) + 1
    setting = np.random.default_rng(seed).permutation(len(learning)) % FOLDS == 0
    cut = _Cut(labels=labels_N, learning=learning[~setting], setting=learning[setting], there=there, classes=classes)
    found: np.ndarray = _said(_frequent(features_NF, PARAMETERS // classes), states_NW, cut).there.argmax(axis=1)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cut:
    """Who learns, who sets and who is judged, by place."""

    labels: np.ndarray  # [N]
    learning: np.ndarray
    setting: np.ndarray  # [S]
    there: np.ndarray  # [T]
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Said:
    """Log-probabilities, and their mean loss where they were set."""

    setting: np.ndarray  # [S, K]
    there: np.ndarray  # [T, K]
    loss: float


def _frequent(features_NF: Any, most: int) -> Any:
    """The columns that occur in two rows or more, and of them the most frequent: what one row has teaches nothing."""
    rows = features_NF.getnnz(axis=0)
    order = np.argsort(-rows, kind="stable")[:most]
    return features_NF[:, np.sort(order[rows[order] > 1])]


def _said(features_NF: Any, states_NW: np.ndarray | None, cut: _Cut) -> _Said:
    said = _by_counts(features_NF, cut)
    return said if states_NW is None else _mixed(said, _by_states(states_NW, cut), cut)


def _by_counts(features_NF: Any, cut: _Cut) -> _Said:
    from sklearn.feature_extraction.text import TfidfTransformer

    weighing = TfidfTransformer(sublinear_tf=True).fit(features_NF[cut.learning])
    learning, setting, there = (
        weighing.transform(features_NF[rows]) for rows in (cut.learning, cut.setting, cut.there)
    )
    return _trained(learning, setting, there, cut, STRENGTH)


def _by_states(states_NW: np.ndarray, cut: _Cut) -> _Said:
    """Of several penalties the one whose model is best where it is set."""
    learning_NW = states_NW[cut.learning].astype(np.float32)
    mean_W, scale_W = learning_NW.mean(axis=0), np.maximum(learning_NW.std(axis=0), 1e-6)
    learning, setting, there = (
        (states_NW[rows].astype(np.float32) - mean_W) / scale_W for rows in (cut.learning, cut.setting, cut.there)
    )
    tried = [_trained(learning, setting, there, cut, strength) for strength in STRENGTHS]
    return min(tried, key=lambda said: said.loss)


def _trained(learning: Any, setting: Any, there: Any, cut: _Cut, strength: float) -> _Said:
    """What a linear model of the rows that learn says of the others; its temperature is set on those that set."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, tol=1e-4, max_iter=500).fit(learning, cut.labels[cut.learning])
    logits = []
    for rows in (setting, there):
        known = _logits(model.decision_function(rows))
        every = np.full((len(known), cut.classes), -np.inf)
        every[:, model.classes_] = known
        logits.append(every)
    return _set(logits[0], logits[1], cut)


def _mixed(one: _Said, other: _Said, cut: _Cut) -> _Said:
    """A mean of the log-probabilities of both, in the shares that are best where they are set."""
    tried = []
    for share in SHARES:
        setting = (1 - share) * one.setting + share * other.setting
        there = (1 - share) * one.there + share * other.there
        tried.append(_set(setting, there, cut))
    return min(tried, key=lambda said: said.loss)


def _set(logits_SK: np.ndarray, logits_TK: np.ndarray, cut: _Cut) -> _Said:
    """At the temperature that suits the labels of S; a class that learnt from no row is as good as impossible."""
    targets_S = cut.labels[cut.setting]
    known_S = np.isfinite(logits_SK[np.arange(len(targets_S)), targets_S])
    temperature = _temperature(logits_SK[known_S], targets_S[known_S])
    setting, there = (
        np.maximum(_log_softmax(logits / temperature), np.log(LEAST)) for logits in (logits_SK, logits_TK)
    )
    loss = float(-setting[np.arange(len(targets_S)), targets_S].mean()) if len(targets_S) else 0.0
    return _Said(setting=setting, there=there, loss=loss)


def _logits(decision: np.ndarray) -> np.ndarray:
    """One column a class: of two classes, scikit-learn gives the difference alone."""
    return np.stack([np.zeros_like(decision), decision], axis=1) if decision.ndim == 1 else decision


def _log_softmax(logits_NK: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    logs: np.ndarray = log_softmax(logits_NK.astype(np.float64), axis=1)
    return logs


def _temperature(logits_NK: np.ndarray, targets_N: np.ndarray) -> float:
    """What logits are divided by for the highest likelihood of the targets (Guo et al. 2017), from 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    if not len(targets_N):
        return 1.0
    rows = np.arange(len(targets_N))

    def loss(log: float) -> float:
        return float(-_log_softmax(logits_NK / np.exp(log))[rows, targets_N].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
