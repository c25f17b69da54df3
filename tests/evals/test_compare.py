"""Before and after: paired, on the same items, or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mingshi.errors import RecipeError
from mingshi.evals import EVALS, compare, statistics
from mingshi.types import Scores


def scores(nats: list[float], matches: list[float], *, items: str = "x") -> Scores:
    tokens = [float(number) for number in range(3, 3 + len(nats))]
    return Scores(
        scores={
            "nats_per_token": statistics.ratio(nats, tokens, signature=f"nats|{items}"),
            "perplexity": statistics.ratio(nats, tokens, signature=f"perplexity|{items}"),
            "exact_match": statistics.rate(int(sum(matches)), len(matches), signature=f"match|{items}"),
        },
        items={"nats_per_token.sum": nats, "nats_per_token.weight": tokens, "exact_match": matches},
    )


def test_differences_are_after_less_before_with_paired_intervals() -> None:
    generator = np.random.default_rng(0)
    nats = generator.gamma(5.0, size=30)
    before = scores(nats.tolist(), [0.0] * 20 + [1.0] * 10)
    after = scores((nats * 0.9 - 0.01 * generator.random(30)).tolist(), [1.0] * 12 + [0.0] * 8 + [1.0] * 10)
    changes = compare(before, after)
    assert set(changes) == {"nats_per_token", "exact_match"}  # a perplexity is no mean of items
    for name, change in changes.items():
        assert change.value == pytest.approx(after.scores[name].value - before.scores[name].value)
        assert change.low < change.value < change.high
        assert change.count == 30
    assert changes["nats_per_token"].high < 0 < changes["exact_match"].low


def test_scores_of_other_items_are_not_compared() -> None:
    before = scores([1.0, 2.0], [0.0, 1.0])
    with pytest.raises(RecipeError, match="nats_per_token was not measured alike"):
        compare(before, scores([1.0, 2.0], [0.0, 1.0], items="y"))


def test_a_metric_that_only_one_side_has_is_left_out() -> None:
    before = scores([1.0, 2.5], [0.0, 1.0])
    after = dataclasses.replace(before, scores={"exact_match": before.scores["exact_match"]})
    assert set(compare(before, after)) == {"exact_match"}


def test_the_table_names_each_evaluator_by_its_kind() -> None:
    for kind, evaluator in EVALS.items():
        assert evaluator().kind == kind
        assert evaluator.model_validate({"kind": kind}) == evaluator()
        assert evaluator.model_config["frozen"] and evaluator.model_config["extra"] == "forbid"
