"""The section of classes: two to fifty of them, names of any length and kind, damaged records, both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.payloads import PAYLOADS
from report.test_page import ATTRIBUTES, TAGS, Reader

from mingshi.record import Run
from mingshi.report.classes import classes
from mingshi.report.page import render

LONG = "用户对售后服务的态度表示强烈不满并要求退款的投诉类别"


def names_of(kinds: int) -> list[str]:
    return [f"{LONG}{place}" if place % 2 else f"a rather long English label {place}" for place in range(kinds)]


def score(value: Any, low: Any = "NaN", high: Any = "NaN", count: int = 9) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "count": count, "signature": "s"}


def line(names: list[str], *, count: int = 400, when: str = "after", data: str = "test", **more: Any) -> dict[str, Any]:
    chance = np.random.default_rng(len(names))
    truth = chance.integers(0, len(names), count)
    logits = chance.normal(size=(count, len(names))) + 2.5 * np.eye(len(names))[truth]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    items = {"label": truth.tolist()} | {f"probability.{name}": shares[:, at].tolist() for at, name in enumerate(names)}
    scores = {"accuracy": score(0.8, 0.7, 0.9), "ece": score(0.05, 0.04, 0.08)}
    scores |= {f"f1.{name}": score(0.5, 0.4, 0.6) for name in names} | more
    place = {"stage": 0, "step": 4, "when": when, "data": data, "kind": "classification"}
    return {**place, "scores": scores, "items": items, "samples": []}


def run(*evals: Any) -> Run:
    return Run(folder=Path("."), status="done", run={}, data={}, steps=[], evals=list(evals), findings=[])


def checked(page: str) -> Reader:
    reader = Reader(page)
    assert set(reader.tags) <= TAGS and {name for _, name, _ in reader.attributes} <= ATTRIBUTES
    return reader


@pytest.mark.parametrize("kinds", [2, 5, 40])
def test_few_and_many_classes_are_shown_whole(kinds: int) -> None:
    names = names_of(kinds)
    seen = run(line(names))
    (told,) = classes(seen)
    assert [row["name"] for row in told["rows"]] == names and told["fewer"] is None
    assert sum(int(row["count"]) for row in told["rows"]) == 400
    drawing = str(told["matrix"].drawing)
    assert drawing.count("<rect") == kinds**2
    assert sum(int(cell) for row in told["matrix"].rows for cell in row[1:]) == 400
    assert all(len(label) <= 30 for label in re.findall(r">([^<]*)</text>", drawing))
    width = int(re.findall(r'width="(\d+)"', drawing)[0])
    assert width <= 960, "a wide screen holds it"
    reader = checked(render(seen))
    texts = " ".join(reader.texts)
    assert all(name in texts for name in names), "whole in the table"
    assert "What each class was taken for" in texts and "各类别被判成了什么" in texts


def test_the_rows_of_the_matrix_are_true_classes_in_the_order_of_the_table() -> None:
    names, one = ["x", "y"], line(["x", "y"])
    one["items"] = {"label": [0, 0, 0, 1], "probability.x": [0.9, 0.2, 0.3, 0.6], "probability.y": [0.1, 0.8, 0.7, 0.4]}
    (told,) = classes(run(one))
    assert [row[1:] for row in told["matrix"].rows] == [["1", "2"], ["1", "0"]]
    assert [(row["count"], row["taken"]) for row in told["rows"]] == [("3", "2"), ("1", "2")] and names


def test_of_more_classes_the_most_frequent_are_shown() -> None:
    (told,) = classes(run(line([f"c{place}" for place in range(60)])))
    assert len(told["rows"]) == 50 and "50 most frequent of 60" in told["fewer"].en
    assert str(told["matrix"].drawing).count("<rect") == 2500


def test_any_number_of_classes_has_no_matrix_and_has_a_reliability_plot() -> None:
    one = line(["a", "b"])
    shares = one["items"].pop("label")
    one["items"] |= {"label.a": [float(x == 0) for x in shares], "label.b": [1.0] * len(shares)}
    (told,) = classes(run(one))
    assert told["matrix"] is None and len(told["reliability"].rows) == 15
    checked(render(run(one)))


def test_a_fitted_temperature_is_drawn_beside_what_the_model_says() -> None:
    plain = classes(run(line(["a", "b", "c"])))[0]["reliability"]
    more = {"temperature": score(1.8, 1.6, 2.0, 250), "scaled_ece": score(0.02)}
    warmed = classes(run(line(["a", "b", "c"], **more)))[0]["reliability"]
    assert len(warmed.rows) == 2 * len(plain.rows) and len(warmed.legend) == len(plain.legend) + 1
    assert "1.800 (1.600, 2.000), fitted on 250 validation rows" in warmed.notes[-1].en
    assert "0.020" in warmed.notes[-1].zh


def test_a_part_that_is_worse_for_certain_is_marked() -> None:
    parts = {}
    for name, gap, p in (("source=坏.jsonl", -0.3, 0.002), ("source=b.jsonl", -0.1, 0.4)):
        parts |= {
            f"slice_accuracy.{name}": score(0.5, 0.4, 0.6, 40),
            f"slice_accuracy_gap.{name}": score(gap, gap - 0.1, gap + 0.1, 40),
            f"slice_p.{name}": score(p, count=40),
        }
    seen = run(line(["a", "b"], **parts), line(["a", "b"], when="before", **parts))
    first, second = classes(run(line(["a", "b"], **parts)))[0]["slices"]
    assert (first["name"], first["judgement"], first["p"]) == ("source=坏.jsonl", "worse", "0.0020")
    assert second["judgement"] == "open" and first["f1"][0] == ("–", "")
    assert "slice p" not in " ".join(checked(render(seen)).texts)


def test_after_counts_and_the_test_set_comes_first() -> None:
    seen = run(line(["o", "p"], when="before"), line(["x", "y"], data="task"), line(["a", "b"]))
    assert [told["data"].en for told in classes(seen)] == ["test", "task"]
    assert [row["name"] for row in classes(seen)[0]["rows"]] == ["a", "b"]


@pytest.mark.parametrize(
    "items",
    [
        {},
        {"label": [1.0], "prediction": [2.0]},
        {"label": [0], "probability.a": [0.1, 0.9]},
        {"label": [0, 1], "probability.a": [0.1, 0.9], "probability.b": [0.9]},
        {"label": [7], "probability.a": [0.1], "probability.b": [0.9]},
        {"label": [0], "probability.a": ["x"], "probability.b": [0.9]},
        {"label": [0], "probability.a": ["NaN"], "probability.b": [0.9]},
        {"probability.a": [0.5]},
        {"label": [], "probability.a": [], "probability.b": []},
        {"label": [0], "probability.a": None, "probability.b": [0.9]},
    ],
)
def test_numbers_and_damaged_records_have_no_classes(items: dict[str, Any]) -> None:
    seen = run(line(["a", "b"]) | {"items": items})
    assert classes(seen) == []
    render(seen)


def test_a_class_may_be_called_anything() -> None:
    names = list(dict.fromkeys(PAYLOADS))[:50]
    seen = run(line(names))
    (told,) = classes(seen)
    assert str(told["matrix"].drawing).count("<rect") == len(names) ** 2
    page = render(seen)
    reader = checked(page)
    assert "script" not in reader.tags and not re.search("[\u202a-\u202e\u2066-\u2069\u200b]", page)
