"""Parts of the data: which texts are in one, and whether it is told apart from the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from mingshi.errors import DataError, RecipeError
from mingshi.evals import statistics
from mingshi.evals.classes import Multi, Single
from mingshi.evals.slices import FEWEST, recorded, sliced, slices_of
from mingshi.types import Labelled

COUNT = 120


def row(place: int, *, source: str = "a", **attributes: str) -> Labelled:
    return Labelled(
        id=f"{source}:{place}", source=source, line=place, group="", attributes=attributes, content="x", label="y"
    )


def answers(wrong_N: np.ndarray) -> Single:
    truth = np.arange(COUNT) % 3
    taken = np.where(wrong_N, (truth + 1) % 3, truth)
    return Single(("a", "b", "c"), truth, 0.8 * np.eye(3)[taken] + 0.2 / 3)


def test_slices_are_sources_and_attributes_with_enough_texts() -> None:
    rows = [row(place, source="a" if place < 30 else "b", tone="up" if place % 2 else "down") for place in range(45)]
    rows += [row(99, source="b", tone="rare")]
    ids = [one.id for one in rows]
    found = slices_of(rows, ("source", "tone"), ids)
    assert list(found) == ["source=a", "source=b", "tone=down", "tone=up"], "a rare value is no slice"
    assert found["source=a"].tolist() == [one.source == "a" for one in rows]
    few = slices_of(rows[: 30 + FEWEST - 1], ("source",), ids[: 30 + FEWEST - 1])
    assert few == {}, "nor one whose rest is rare"


def test_a_text_without_the_attribute_is_in_no_slice() -> None:
    rows = [row(place, tone="up") if place < 20 else row(place) for place in range(40)]
    found = slices_of(rows, ("tone",), [one.id for one in rows])
    assert list(found) == ["tone=up"] and found["tone=up"].sum() == 20


def test_a_slice_that_is_not_there_and_an_id_of_two_are_errors() -> None:
    rows = [row(place) for place in range(40)]
    with pytest.raises(RecipeError, match="no text has the attribute 'tone'"):
        slices_of(rows, ("tone",), [one.id for one in rows])
    twice = [row(0, tone="up"), row(0, tone="down")]
    with pytest.raises(DataError, match="two texts have the id"):
        slices_of(twice, ("tone",), ["a:0"])


def test_a_bad_slice_is_told_apart_and_good_ones_are_not() -> None:
    chance = np.random.default_rng(0)
    bad = np.arange(COUNT) < 40
    masks = {"part=bad": bad, "part=other": (np.arange(COUNT) % 2 == 0), "part=third": (np.arange(COUNT) // 20 == 3)}
    made = answers(chance.random(COUNT) < np.where(bad, 0.5, 0.1))
    told = sliced(made, masks, same="items:x", seed=0)
    taken, right = made.shares_NK.argmax(1), made.errors() == 0
    score = told["slice_accuracy.part=bad"]
    assert (score.value, score.count) == (right[bad].mean(), 40)
    assert (score.low, score.high) == statistics.wilson(right[bad].sum(), 40)
    wanted = sklearn.metrics.f1_score(made.truth_N[bad], taken[bad], average="macro")
    rest = sklearn.metrics.f1_score(made.truth_N[~bad], taken[~bad], average="macro")
    assert told["slice_macro_f1.part=bad"].value == pytest.approx(wanted, abs=1e-12)
    assert told["slice_macro_f1_gap.part=bad"].value == pytest.approx(wanted - rest, abs=1e-12)
    gap = told["slice_accuracy_gap.part=bad"]
    assert gap.value == pytest.approx(right[bad].mean() - right[~bad].mean()) and gap.low < gap.value < gap.high < 0
    raw = []
    for inside in masks.values():
        table = [[(right & side).sum(), (~right & side).sum()] for side in (inside, ~inside)]
        raw.append(float(scipy.stats.fisher_exact(table).pvalue))
    found = [told[f"slice_p.{name}"].value for name in masks]
    assert found == pytest.approx(statistics.holm(raw)) and found[0] < 0.01 < found[2]
    assert found[0] == pytest.approx(3 * min(raw)), "of three tests the least p counts three times"


def test_slices_of_any_number_of_classes() -> None:
    chance = np.random.default_rng(1)
    truth = chance.random((COUNT, 3)) < 0.4
    inside = np.arange(COUNT) < 50
    shares = np.clip(truth * 0.6 + chance.random((COUNT, 3)) * 0.6, 0, 1)
    told = sliced(Multi(("a", "b", "c"), truth, shares), {"s": inside}, same="x", seed=0)
    right = (truth == (shares > 0.5)).all(1)
    assert told["slice_accuracy.s"].value == right[inside].mean()
    wanted = sklearn.metrics.f1_score(truth[inside], shares[inside] > 0.5, average="macro")
    assert told["slice_macro_f1.s"].value == pytest.approx(wanted, abs=1e-12)


def test_what_was_recorded_is_found_again_whatever_the_name() -> None:
    name = "tone=a.b|c"
    told = sliced(answers(np.arange(COUNT) % 7 == 0), {name: np.arange(COUNT) < 60}, same="items:x", seed=0)
    assert set(told) == {
        f"slice_{part}.{name}" for part in ("accuracy", "macro_f1", "accuracy_gap", "macro_f1_gap", "p")
    }
    record = {one: {"value": score.value, "count": score.count} for one, score in told.items()}
    (found,) = recorded(record)
    assert found.name == name and found.accuracy["count"] == 60
    assert math.isfinite(found.p["value"]) and recorded({"accuracy": {}}) == []
