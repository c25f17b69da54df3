"""The figures that a benchmark reports."""

from __future__ import annotations

import datetime
from dataclasses import asdict, replace

import pytest

from benchmarks.summary import GIB, Told, comparison, curve_distance, faults, mean_loss, note, peers, summarise, table
from benchmarks.task import Outcome

ONE = Outcome(
    fingerprint="abc",
    seconds=[9.0, 2.0, 4.0],
    real=[100, 100, 200],
    processed=[150, 150, 300],
    read=[100, 90, 160],
    written=[100, 100, 200],
    trained=[50, 10, 30],
    losses=[3.0, 2.0, 1.0],
    gradient_norms=[0.5, 0.4, 0.6],
    change=0.001,
    loaded_bytes=GIB,
    peak_bytes=4 * GIB,
    versions={"trl": "1.16.0"},
    settings={"micro_batch": "8"},
)


def test_rates_count_real_tokens_of_the_timed_steps_alone() -> None:
    summary = summarise([ONE], warm_up=1)
    assert summary.real_rate.median == 300 / 6
    assert summary.trained_rate.median == 40 / 6
    assert summary.first_step.median == 9.0
    assert summary.step_seconds.median == 3.0
    assert summary.padding == 450 / 250
    assert summary.sharing == 250 / 300
    assert summary.peak.median == 4.0


def test_rounds_give_a_median_and_their_range() -> None:
    slower, slowest = replace(ONE, seconds=[9.0, 4.0, 6.0]), replace(ONE, seconds=[9.0, 10.0, 10.0])
    spread = summarise([ONE, slowest, slower], warm_up=1).real_rate
    assert (spread.low, spread.median, spread.high) == (15, 30, 50)


def test_mean_loss_weighs_steps_by_their_trained_tokens() -> None:
    assert mean_loss(ONE, warm_up=1) == pytest.approx((2.0 * 10 + 1.0 * 30) / 40)


def test_loss_curves_are_compared_only_where_steps_hold_the_same_tokens() -> None:
    assert curve_distance(replace(ONE, losses=[3.0, 2.1, 1.0]), ONE) == pytest.approx(0.05)
    assert curve_distance(replace(ONE, real=[200, 100, 100]), ONE) is None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (replace(ONE, fingerprint="xyz"), "other tokens or masks"),
        (replace(ONE, gradient_norms=[0.5, 0.0, 0.6]), "without a gradient"),
        (replace(ONE, gradient_norms=[0.5, float("nan"), 0.6]), "without a gradient"),
        (replace(ONE, change=0.0), "changed no weight"),
        (replace(ONE, losses=[3.0, 2.0]), "logged 2"),
    ],
)
def test_a_side_that_did_other_work_is_named(broken: Outcome, words: str) -> None:
    assert not faults({"ours": [ONE]}, "abc")
    (fault,) = faults({"ours": [ONE], "peer": [ONE, broken]}, "abc")
    assert fault.startswith("peer") and words in fault


def test_each_peer_is_compared_with_ours_in_a_sentence() -> None:
    peer = replace(ONE, seconds=[9.0, 5.0, 10.0], peak_bytes=8 * GIB)
    sides = {"ours": [ONE], "defaults": [peer]}
    (sentence,) = comparison({name: summarise(side, 1) for name, side in sides.items()}, sides)
    assert sentence.startswith("defaults: 2.50 times its real tokens a second, 0.50 of its peak memory")


def test_peers_come_with_their_distance_from_ours() -> None:
    turned = replace(ONE, real=[200, 100, 100])
    assert list(peers({"first": [ONE], "ours": [ONE], "second": [turned]})) == [
        ("first", "curves within 0.00% of each other"),
        ("second", "examples in another order"),
    ]
    assert not list(peers({"first": [ONE]}))


def test_the_note_has_the_table_and_the_curves_but_no_folders() -> None:
    summaries = {"ours": summarise([ONE], 1)}
    rendered = table(summaries, limit=100.0)
    assert "| share of the matrix-product limit | 50% |" in rendered
    report = {
        "machine": {"threads": "2"},
        "task": {"model": "tiny", "rows": "/somewhere/rows.jsonl", "adapter": "/somewhere/adapter"},
        "rows": {"fingerprint": "abc"},
        "roof": {"gigaflops": 300.0},
        "sides": {"ours": [asdict(ONE)]},
    }
    told = Told(summaries=summaries, table=rendered, sentences=["a sentence"], faults=[])
    page = note("LoRA fine-tuning, side by side with TRL", report, told, datetime.date(2026, 1, 2))
    assert page.startswith("# LoRA fine-tuning, side by side with TRL (2026-01-02)")
    assert rendered in page and "* a sentence" in page
    assert "3.0000, 2.0000, 1.0000" in page
    assert "somewhere" not in page
