"""The card on overfitting and the figures beside it, in both languages."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from markupsafe import escape
from report import folders

from mingshi.checks.fit import Because, Verdict
from mingshi.record import Run, read_run
from mingshi.report.curves import gap_figure, loss_figure
from mingshi.report.fit import EVIDENCE, card, verdicts
from mingshi.report.page import render
from mingshi.report.summary import Interval, stages
from mingshi.report.words import WORDS


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(folders.write(folders.done(), tmp_path))


def plain(text: str) -> str:
    return text.replace("_", "")


def test_every_verdict_and_every_reason_has_its_words() -> None:
    assert {key for key in WORDS if key.startswith("fit.")} == {f"fit.{plain(name)}" for name in get_args(Verdict)}
    for kind in ("because", "next"):
        assert {key for key in WORDS if key.startswith(f"{kind}.")} == {
            f"{kind}.{plain(name)}" for name in get_args(Because)
        }
    assert {f"evidence.{plain(name)}" for name in EVIDENCE} <= set(WORDS)


@pytest.mark.parametrize("because", get_args(Because))
def test_every_reason_can_be_told_from_its_record(because: str) -> None:
    told = card(folders.fit() | {"because": because})
    assert told is not None
    assert "{" not in "".join((*told.because, *told.next, *told.verdict, *told.note))
    broken = card(folders.fit() | {"because": because, "evidence": {}, "since": None})
    assert broken is not None and broken.evidence == []


def test_the_card_gives_verdict_numbers_and_next_step_in_both_languages(run: Run) -> None:
    told = card(folders.fit())
    assert told is not None and told.severity == "warning"
    assert told.verdict == ("Overfitting from step 175", "自第 175 步起过拟合")
    assert "rose by +0.058 (95 % +0.041 to +0.075)" in told.because.en
    assert "上升 +0.058（95% +0.041 至 +0.075）" in told.because.zh
    page = render(run)
    for text in (*told.verdict, *told.because, *told.next):
        assert escape(text) in page
    assert page.index(told.verdict.en) < page.index("Learning rate</span>")


def test_programs_get_the_same_words(run: Run) -> None:
    (told,) = verdicts(run)
    made = card(folders.fit())
    assert told is not None and made is not None
    assert told["verdict"] == "overfitting" and told["since"] == 175
    assert told["said"] == {"en": made.because.en, "zh": made.because.zh}
    assert told["next"] == {"en": made.next.en, "zh": made.next.zh}


@pytest.mark.parametrize(
    "odd", [None, 3, "overfitting", [], {}, {"verdict": "fine", "because": "rises"}, {"verdict": 1}]
)
def test_an_odd_record_has_no_card_and_a_page(odd: Any, tmp_path: Path) -> None:
    assert card(odd) is None
    files = copy.deepcopy(folders.done(12))
    files["run.json"]["fit"] = odd if isinstance(odd, list) else [odd]
    run = read_run(folders.write(files, tmp_path))
    assert "Overfitting" not in render(run)
    assert verdicts(run) in ([], [None])


def test_a_gap_is_the_difference_with_the_interval_of_two_sets_of_rows() -> None:
    gap = Interval(value=1.9, low=1.8, high=2.1).less(Interval(value=1.6, low=1.5, high=1.65))
    assert gap.value == pytest.approx(0.3)
    assert gap.low == pytest.approx(0.3 - (0.1**2 + 0.05**2) ** 0.5)
    assert gap.high == pytest.approx(0.3 + (0.2**2 + 0.1**2) ** 0.5)


def test_both_courses_and_the_gap_are_drawn_with_their_numbers(run: Run) -> None:
    (stage,) = stages(run)
    assert [step for step, _ in stage.sample] == [step for step, _ in stage.validation]
    loss = loss_figure(stage)
    assert [style for style, _ in loss.legend] == ["raw", "smooth", "sample", "validation"]
    assert len(re.findall('<circle class="sample"', loss.drawing)) == len(stage.sample)
    gap = gap_figure(stage)
    assert gap is not None and len(gap.rows) == len(stage.sample) == len(re.findall("<circle", gap.drawing))
    step, held = stage.validation[-1]
    seen = dict(stage.sample)[step]
    assert gap.rows[-1][3].startswith(f"{held.value - seen.value:.4f} (")
    assert 'class="zero"' in gap.drawing


def test_a_stage_measured_on_held_out_rows_alone_has_no_gap(tmp_path: Path) -> None:
    files = folders.done(50)
    files["evals.jsonl"] = [line for line in files["evals.jsonl"] if line["data"] != "train-sample"]
    (stage,) = stages(read_run(folders.write(files, tmp_path)))
    assert gap_figure(stage) is None
    assert [style for style, _ in loss_figure(stage).legend] == ["raw", "smooth", "validation"]


def test_the_losses_of_other_objectives_are_drawn_under_their_own_name(tmp_path: Path) -> None:
    files = folders.done(50)
    files["data.json"]["stages"][0] |= {"headline": "loss", "higher_is_better": False}
    for line in files["evals.jsonl"]:
        if line["data"] in ("validation", "train-sample"):
            line["scores"] = {
                "loss": line["scores"]["nats_per_token"],
                "reward_accuracy": line["scores"]["nats_per_token"],
            }
    (stage,) = stages(read_run(folders.write(files, tmp_path)))
    assert stage.metric == "loss" and len(stage.validation) == len(stage.sample) == 3
    assert loss_figure(stage).title == WORDS["curves.plain"]


def test_the_measurement_before_training_is_not_called_the_lowest(tmp_path: Path) -> None:
    files = folders.done(50)
    files["evals.jsonl"] = [line for line in files["evals.jsonl"] if line["data"] != "test"]
    files["evals.jsonl"][0] |= {"when": "during", "scores": {"nats_per_token": folders.score(0.1, 0.01, 240, "")}}
    files["run.json"]["summary"]["differences"] = {}
    assert "lowest at step 50" in render(read_run(folders.write(files, tmp_path)))
