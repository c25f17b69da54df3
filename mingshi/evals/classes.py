"""What a classifier said of each text, and every score that it comes to.

Letters: `N` items, `K` classes, `R` resamples, each saying how often every item was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import rankdata

from mingshi.evals.areas import areas, divided, grouped, means
from mingshi.evals.calibration import BINS, SURE, calibration_error

RATES = ("precision", "recall", "f1")
RATED = [
    *("accuracy", "macro_f1", "weighted_f1", "micro_f1"),
    *("macro_precision", "macro_recall", "weighted_precision", "weighted_recall"),
]
RANKED = ["roc_auc", "weighted_roc_auc", "average_precision", "weighted_average_precision"]
BELIEVED = ["ece", "brier", "log_loss"]


def answers_of(items: Mapping[str, Sequence[float]]) -> Single | Multi | Numbers:
    """The columns of `Scores.items`, understood."""
    if "prediction" in items:
        return Numbers(np.asarray(items["label"], np.float64), np.asarray(items["prediction"], np.float64))
    names = tuple(name.removeprefix("probability.") for name in items if name.startswith("probability."))
    shares_NK = np.stack([np.asarray(items[f"probability.{name}"], np.float64) for name in names], axis=1)
    if "label" in items:
        return Single(names, np.asarray(items["label"], np.float64).astype(np.int64), shares_NK)
    truth_NK = np.stack([np.asarray(items[f"label.{name}"], np.float64) for name in names], axis=1)
    return Multi(names, truth_NK > 0.5, shares_NK)


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """One class of several."""

    names: tuple[str, ...]
    truth_N: np.ndarray
    shares_NK: np.ndarray

    def __len__(self) -> int:
        return len(self.truth_N)

    @property
    def truth(self) -> tuple[str, ...]:
        return ("label",)

    @property
    def wins_NK(self) -> np.ndarray:
        """Which class each text has."""
        wins_NK: np.ndarray = np.arange(len(self.names)) == self.truth_N[:, None]
        return wins_NK

    def errors(self) -> np.ndarray:
        """0 where the text is rightly classified, else how sure the model was."""
        wrong_N = self.shares_NK.argmax(1) != self.truth_N
        errors_N: np.ndarray = np.where(wrong_N, self.shares_NK.max(1), 0.0)
        return errors_N

    def told(self, place: int, *, predicted: bool) -> str:
        return self.names[int(self.shares_NK[place].argmax() if predicted else self.truth_N[place])]

    def metrics(self) -> list[str]:
        """Of two classes the second's areas are all there is to say: no mean is weighted."""
        ranked = [name for name in RANKED if len(self.names) > 2 or not name.startswith("weighted")]
        return [*RATED, "mcc", *ranked, *BELIEVED, *by_class(self.names), *ranked_by_class(self.names)]

    def confusion(self, counts_RN: np.ndarray) -> np.ndarray:
        """`[R, K, K]`: how many of a true class (rows) were taken for each (columns)."""
        kinds = len(self.names)
        cells_N = self.truth_N * kinds + self.shares_NK.argmax(1)
        return grouped(counts_RN, cells_N, kinds * kinds).reshape(-1, kinds, kinds)

    def measure(self, counts_RN: np.ndarray) -> np.ndarray:
        """`[R, M]`; a rate with nothing to divide by is 0, as in scikit-learn."""
        matrix_RKK = self.confusion(counts_RN)
        hits_R = np.diagonal(matrix_RKK, axis1=1, axis2=2).sum(1)
        true_RK, taken_RK = matrix_RKK.sum(2), matrix_RKK.sum(1)
        total_R = true_RK.sum(1)
        covariance_R = hits_R * total_R - (true_RK * taken_RK).sum(1)
        spread_R = (total_R**2 - (true_RK**2).sum(1)) * (total_R**2 - (taken_RK**2).sum(1))
        correlation_R1 = divided(covariance_R, np.sqrt(spread_R))[:, None]  # Gorodkin 2004
        roc_RK, precision_RK = areas(counts_RN, self.shares_NK, self.wins_NK)
        if len(self.names) == 2:
            ranked_RM = np.stack([roc_RK[:, 1], precision_RK[:, 1]], axis=1)
        else:
            ranked_RM = _ranked(roc_RK, precision_RK, true_RK)
        rated_RM, by_class_RM = self._rated(matrix_RKK)
        each_RM = np.stack([roc_RK, precision_RK], axis=2).reshape(len(counts_RN), -1)
        parts = [rated_RM, correlation_R1, ranked_RM, believed(self, counts_RN), by_class_RM, each_RM]
        return np.concatenate(parts, axis=1)

    def rated(self, counts_RN: np.ndarray) -> np.ndarray:
        """The metrics of `RATED` alone, `[R, M]`."""
        return self._rated(self.confusion(counts_RN))[0]

    def _rated(self, matrix_RKK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits_RK = np.diagonal(matrix_RKK, axis1=1, axis2=2)
        true_RK, taken_RK = matrix_RKK.sum(2), matrix_RKK.sum(1)
        seen_K = np.isin(np.arange(len(self.names)), np.concatenate([self.truth_N, self.shares_NK.argmax(1)]))
        rates = rates_of(hits_RK, true_RK, taken_RK, seen_K)
        accuracy_R = divided(hits_RK.sum(1), true_RK.sum(1))
        return rates.together(accuracy_R, accuracy_R), rates.by_class_RM  # accuracy is also F1's micro mean

    def decisions(self) -> tuple[np.ndarray, np.ndarray]:
        """`[N, 1]` both: how sure the model was of the class it chose, and whether that is right."""
        return self.shares_NK.max(1)[:, None], (self.shares_NK.argmax(1) == self.truth_N)[:, None]

    def misses(self) -> tuple[np.ndarray, np.ndarray]:
        """Each text's Brier score (of two classes its half, from 0 to 1, as is usual) and log loss, `[N]` both."""
        squares_N = ((self.shares_NK - self.wins_NK) ** 2).sum(1) / (2 if len(self.names) == 2 else 1)
        return squares_N, -np.log(self.shares_NK[self.wins_NK].clip(SURE, 1 - SURE))


@dataclass(frozen=True, slots=True, eq=False)
class Multi:
    """Any number of classes, each taken where its probability is above one half."""

    names: tuple[str, ...]
    truth_NK: np.ndarray
    shares_NK: np.ndarray

    def __len__(self) -> int:
        return len(self.truth_NK)

    @property
    def truth(self) -> tuple[str, ...]:
        return tuple(f"label.{name}" for name in self.names)

    @property
    def wins_NK(self) -> np.ndarray:
        """Which classes each text has."""
        return self.truth_NK

    def errors(self) -> np.ndarray:
        """How many classes are wrong."""
        wrong_N: np.ndarray = (self.truth_NK != (self.shares_NK > 0.5)).sum(1)
        return wrong_N

    def told(self, place: int, *, predicted: bool) -> str:
        chosen_K = self.shares_NK[place] > 0.5 if predicted else self.truth_NK[place]
        return ", ".join(name for name, chosen in zip(self.names, chosen_K, strict=True) if chosen)

    def metrics(self) -> list[str]:
        return [*RATED, *RANKED, *BELIEVED, *by_class(self.names), *ranked_by_class(self.names)]

    def measure(self, counts_RN: np.ndarray) -> np.ndarray:
        """`[R, M]`; accuracy is the share of texts that are right in every class."""
        roc_RK, precision_RK = areas(counts_RN, self.shares_NK, self.truth_NK)
        ranked_RM = _ranked(roc_RK, precision_RK, counts_RN @ self.truth_NK)
        rated_RM, by_class_RM = self._rated(counts_RN)
        each_RM = np.stack([roc_RK, precision_RK], axis=2).reshape(len(counts_RN), -1)
        return np.concatenate([rated_RM, ranked_RM, believed(self, counts_RN), by_class_RM, each_RM], axis=1)

    def rated(self, counts_RN: np.ndarray) -> np.ndarray:
        """The metrics of `RATED` alone, `[R, M]`."""
        return self._rated(counts_RN)[0]

    def _rated(self, counts_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        taken_NK = self.shares_NK > 0.5
        hits_RK = counts_RN @ (taken_NK & self.truth_NK)
        true_RK, taken_RK = counts_RN @ self.truth_NK, counts_RN @ taken_NK
        rates = rates_of(hits_RK, true_RK, taken_RK, np.ones(len(self.names), dtype=bool))
        accuracy_R = divided(counts_RN @ (taken_NK == self.truth_NK).all(1), counts_RN.sum(1))
        micro_R = divided(2 * hits_RK.sum(1), true_RK.sum(1) + taken_RK.sum(1))
        return rates.together(accuracy_R, micro_R), rates.by_class_RM

    def decisions(self) -> tuple[np.ndarray, np.ndarray]:
        """`[N, K]` both: each class's probability, and whether the text has it."""
        return self.shares_NK, self.truth_NK

    def misses(self) -> tuple[np.ndarray, np.ndarray]:
        """Each text's Brier score and log loss, means over the classes, `[N]` both."""
        squares_N = ((self.shares_NK - self.truth_NK) ** 2).mean(1)
        chosen_NK = np.where(self.truth_NK, self.shares_NK, 1 - self.shares_NK)
        return squares_N, -np.log(chosen_NK.clip(SURE, 1 - SURE)).mean(1)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A number for each text."""

    truth_N: np.ndarray
    predicted_N: np.ndarray

    def __len__(self) -> int:
        return len(self.truth_N)

    @property
    def truth(self) -> tuple[str, ...]:
        return ("label",)

    def errors(self) -> np.ndarray:
        off_N: np.ndarray = np.abs(self.predicted_N - self.truth_N)
        return off_N

    def told(self, place: int, *, predicted: bool) -> str:
        return f"{(self.predicted_N if predicted else self.truth_N)[place]:.4g}"

    def metrics(self) -> list[str]:
        return ["pearson", "spearman", "mean_absolute_error"]

    def measure(self, counts_RN: np.ndarray) -> np.ndarray:
        """`[R, M]`; ranks are those among the items that were drawn."""
        ranks = [_ranks(counts_RN, values_N) for values_N in (self.truth_N, self.predicted_N)]
        columns = [
            _correlation(counts_RN, self.truth_N[None], self.predicted_N[None]),
            _correlation(counts_RN, *ranks),
            counts_RN @ self.errors() / counts_RN.sum(1),
        ]
        return np.stack(columns, axis=1)


# Arithmetic


def signature_of(answers: Single | Multi | Numbers, name: str) -> str:
    """What a metric depends on but for the texts."""
    if name == "ece":
        return f"{name}|bins:{BINS}"
    if name in RANKED and isinstance(answers, Single) and len(answers.names) == 2:
        return f"{name}|positive:{answers.names[1]}"
    return name


def by_class(names: Sequence[str]) -> list[str]:
    return [f"{rate}.{name}" for name in names for rate in RATES]


def ranked_by_class(names: Sequence[str]) -> list[str]:
    return [f"{area}.{name}" for name in names for area in ("roc_auc", "average_precision")]


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Precision, recall and F1: their two means over classes, and those of each class in turn."""

    macro_R3: np.ndarray
    weighted_R3: np.ndarray
    by_class_RM: np.ndarray

    def together(self, accuracy_R: np.ndarray, micro_R: np.ndarray) -> np.ndarray:
        """The metrics of `RATED`, `[R, M]`."""
        f1 = [accuracy_R, self.macro_R3[:, 2], self.weighted_R3[:, 2], micro_R]
        return np.concatenate([np.stack(f1, axis=1), self.macro_R3[:, :2], self.weighted_R3[:, :2]], axis=1)


def rates_of(hits_RK: np.ndarray, true_RK: np.ndarray, taken_RK: np.ndarray, seen_K: np.ndarray) -> Rates:
    """Means over the classes that any text has or is taken for; weighted: by how many have it."""
    f1_RK = divided(2 * hits_RK, true_RK + taken_RK)
    each_RK3 = np.stack([divided(hits_RK, taken_RK), divided(hits_RK, true_RK), f1_RK], axis=2)
    return Rates(
        macro_R3=each_RK3[:, seen_K].mean(1),
        weighted_R3=divided((each_RK3 * true_RK[:, :, None]).sum(1), true_RK.sum(1)[:, None] * np.ones(3)),
        by_class_RM=each_RK3.reshape(len(hits_RK), -1),
    )


def _ranked(roc_RK: np.ndarray, precision_RK: np.ndarray, true_RK: np.ndarray) -> np.ndarray:
    """The metrics of `RANKED`, `[R, M]`."""
    return np.stack([*means(roc_RK, true_RK), *means(precision_RK, true_RK)], axis=1)


def believed(answers: Single | Multi, counts_RN: np.ndarray) -> np.ndarray:
    """The metrics of `BELIEVED`, `[R, M]`."""
    error_R = calibration_error(counts_RN, *answers.decisions())
    misses_N2 = np.stack(answers.misses(), axis=1)
    return np.concatenate([error_R[:, None], counts_RN @ misses_N2 / counts_RN.sum(1, keepdims=True)], axis=1)


def logits_of(answers: Single | Multi) -> np.ndarray:
    """`[N, K]`: what the probabilities were made of, of a softmax up to a constant of each text."""
    least = float(np.finfo(np.float64).tiny)
    logs_NK: np.ndarray = np.log(answers.shares_NK.clip(least))
    return logs_NK if isinstance(answers, Single) else logs_NK - np.log((1 - answers.shares_NK).clip(SURE))


def labels_of(answers: Single | Multi) -> np.ndarray:
    """`[N]`, or `[N, K]` where a text has any number of classes."""
    return answers.truth_N if isinstance(answers, Single) else answers.truth_NK


def tempered(answers: Single | Multi, temperature: float) -> Single | Multi:
    """The same answers, their logits divided by a temperature."""
    logits_NK = logits_of(answers) / temperature
    if isinstance(answers, Single):
        return Single(answers.names, answers.truth_N, softmax(logits_NK, axis=1))
    return Multi(answers.names, answers.truth_NK, expit(logits_NK))


def _correlation(counts_RN: np.ndarray, left_RN: np.ndarray, right_RN: np.ndarray) -> np.ndarray:
    """Pearson's, of columns that are one for all resamples or one for each; nan where one does not vary."""
    total_R1 = counts_RN.sum(1, keepdims=True)
    left_RN = left_RN - (counts_RN * left_RN).sum(1, keepdims=True) / total_R1
    right_RN = right_RN - (counts_RN * right_RN).sum(1, keepdims=True) / total_R1
    products = [
        (counts_RN * one * other).sum(1)
        for one, other in ((left_RN, right_RN), (left_RN, left_RN), (right_RN, right_RN))
    ]
    both_R, first_R, second_R = products
    spread_R = np.sqrt(first_R * second_R)
    return np.where(spread_R > 0, divided(both_R, spread_R), np.nan)


def _ranks(counts_RN: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """Of each item among those drawn, `[R, N]`: the mean rank of its equals."""
    groups_N = rankdata(values_N, method="dense") - 1
    sizes_RG = grouped(counts_RN, groups_N, int(groups_N.max()) + 1)
    ranks_RG = sizes_RG.cumsum(1) - (sizes_RG - 1) / 2
    ranks_RN: np.ndarray = ranks_RG[:, groups_N]
    return ranks_RN
