"""Evaluators: a recipe's `evals` name them by kind. Each gives Scores: numbers, intervals, and every item's own value.

`Scores.items` holds under a metric's name the values that its score is the mean of. A score that is a sum over a sum
has two columns instead, `<name>.sum` and `<name>.weight`; BLEU and chrF have `<name>.part0` and so on, which they add
up over the file. What `classification` holds there it says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mingshi.errors import RecipeError
from mingshi.evals import classification, scoring, statistics
from mingshi.evals.choice import Choice
from mingshi.evals.classification import Classification
from mingshi.evals.generation import Generation
from mingshi.evals.instructions import Instructions
from mingshi.evals.judge_answers import Judgement
from mingshi.evals.perplexity import Perplexity
from mingshi.evals.preference import PreferenceAccuracy
from mingshi.evals.retrieval import Retrieval
from mingshi.evals.zero_shot import ZeroShot
from mingshi.types import Score, Scores

__all__ = [
    "EVALS",
    "Choice",
    "Classification",
    "Evaluator",
    "Generation",
    "Instructions",
    "Judgement",
    "Perplexity",
    "PreferenceAccuracy",
    "Retrieval",
    "ZeroShot",
    "compare",
    "seed_of",
]

Evaluator = Annotated[
    Perplexity
    | Generation
    | Classification
    | PreferenceAccuracy
    | Choice
    | Instructions
    | Judgement
    | Retrieval
    | ZeroShot,
    Field(discriminator="kind"),
]
"""What a recipe names. One that `reads` examples is given what a person could read; the others, packed samples."""

EVALS: Mapping[
    str,
    type[
        Perplexity
        | Generation
        | Classification
        | PreferenceAccuracy
        | Choice
        | Instructions
        | Judgement
        | Retrieval
        | ZeroShot
    ],
] = {
    "perplexity": Perplexity,
    "generation": Generation,
    "classification": Classification,
    "preference": PreferenceAccuracy,
    "choice": Choice,
    "instructions": Instructions,
    "judge": Judgement,
    "retrieval": Retrieval,
    "zero-shot": ZeroShot,
}


def seed_of(evaluator: Evaluator, seed: int) -> int:
    """The run's seed where answers are sampled. Elsewhere it would move resamples alone, and 0 does: runs of several
    seeds then share one measurement of the untrained model."""
    match evaluator:
        case Generation(temperature=temperature) | Instructions(temperature=temperature) if temperature > 0:
            return seed
        case Judgement():
            return seed
    return 0


def compare(before: Scores, after: Scores, *, seed: int = 0) -> Mapping[str, Score]:
    """`after - before` on the same items, with paired intervals, for every metric that has a value for each item.

    Raises RecipeError if the two were not measured in the same way on the same items.
    """
    differences: dict[str, Score] = {}
    for name in (name for name in before.scores if name in after.scores):
        signature = before.scores[name].signature
        if signature != after.scores[name].signature:
            what = f"{name} was not measured alike: {signature} and {after.scores[name].signature}"
            raise RecipeError(what, "Compare evaluations of the same data and settings.")
        if classification.is_classified(before.items):
            continue
        if name in before.items:
            differences[name] = statistics.difference(
                before.items[name], after.items[name], signature=f"change of {signature}", seed=seed
            )
        elif f"{name}.sum" in before.items:
            differences[name] = statistics.ratio_difference(
                _columns(before, name), _columns(after, name), signature=f"change of {signature}", seed=seed
            )
        elif f"{name}.part0" in before.items:
            differences[name] = scoring.corpus_difference(
                name, before.items, after.items, signature=f"change of {signature}", seed=seed
            )
    if classification.is_classified(before.items):
        differences |= classification.differences(before, after, seed=seed)
    return differences


def _columns(scores: Scores, name: str) -> tuple[list[float], list[float]]:
    return list(scores.items[f"{name}.sum"]), list(scores.items[f"{name}.weight"])
