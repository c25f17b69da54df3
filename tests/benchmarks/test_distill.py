"""Distillation side by side with a plain loop: both sides learn the same."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace

import pytest
from tiny import tiny_model

from benchmarks.distill import CONTEST, comparison, first_losses, summarise, tell
from benchmarks.ours_distill import loading_timed, run_ours
from benchmarks.peers.plain_distill import run
from benchmarks.prepare import Request, prepare
from benchmarks.side_by_side import parser
from benchmarks.summary import GIB
from benchmarks.task import DistillOutcome, DistillTask, LoopSetting
from mingshi.model import teachers

ROWS = [
    {"instruction": f"Count to {number}.", "output": " ".join(map(str, range(1, number + 1)))}
    for number in range(2, 14)
]
ONE = DistillOutcome(
    fingerprint="abc",
    seconds=[9.0, 2.0, 4.0, 1.0, 3.0],
    real=[100] * 5,
    processed=[120] * 5,
    read=[90] * 5,
    written=[100] * 5,
    trained=[10] * 5,
    losses=[4.0, 3.0, 2.0, 1.0, 2.0],
    gradient_norms=[0.5] * 5,
    change=0.001,
    loaded_bytes=GIB,
    peak_bytes=2 * GIB,
    teacher_seconds=3.0,
)
TASK = DistillTask(model="tiny", rows="rows", adapter="", teacher="tiny", warm_up=1, steps=2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[DistillTask, str]:
    place = tmp_path_factory.mktemp("distill")
    data = place / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    request = Request(
        model=str(tiny_model(place / "tiny")),
        data=str(data),
        folder=str(place),
        count=12,
        kind="distill",
        batch=4,
        layers=1,
    )
    made = prepare(request)
    given = DistillTask(**made["task"], warm_up=1, steps=2, batch=4, learning_rate=0.01)
    return given, made["told"]["fingerprint"]


@pytest.mark.parametrize("selected", [False, True])
def test_both_sides_learn_the_same(task: tuple[DistillTask, str], selected: bool) -> None:
    given, fingerprint = task
    ours, theirs = run_ours(given), run(given, LoopSetting(micro_batch=2, selected=selected))
    assert ours.fingerprint == theirs.fingerprint == fingerprint
    assert (ours.real, ours.trained) == (theirs.real, theirs.trained)
    assert len(ours.losses) == 5 and ours.real[1:3] == ours.real[3:5]
    assert ours.losses[0] == pytest.approx(theirs.losses[0], rel=5e-3)
    assert ours.losses == pytest.approx(theirs.losses, rel=0.05)
    assert ours.losses[-1] < ours.losses[1]
    assert ours.teacher_seconds > 0 == theirs.teacher_seconds


def test_a_teacher_that_is_asked_first_counts_for_the_timed_rows() -> None:
    summary = summarise([ONE], TASK)
    assert summary.all_epochs.median == 10.0 + 3.0 * 2 / 3
    assert summary.later_epochs.median == 4.0
    assert summary.epoch_losses == (2.5, 1.5)
    assert (summary.padding, summary.sharing) == pytest.approx((120 / 90, 0.9))


def test_a_peer_is_compared_with_the_teacher_and_without() -> None:
    peer = replace(ONE, seconds=[9.0, 8.0, 8.0, 8.0, 8.0], teacher_seconds=0.0, peak_bytes=4 * GIB)
    sides = {"ours": [ONE], "loop": [peer]}
    (sentence,) = comparison({name: summarise(side, TASK) for name, side in sides.items()}, sides)
    assert sentence.startswith(
        "loop: 2.67 times its speed over all epochs, 4.00 times once the teacher was asked, 0.50"
    )
    told = tell(sides, TASK, "abc", 0.0)
    assert not told.faults and "mean loss, epoch 2" in told.table


def test_a_side_that_begins_with_another_loss_is_named() -> None:
    other = replace(ONE, losses=[5.0, *ONE.losses[1:]])
    assert first_losses({"ours": [ONE], "loop": [ONE]}) == []
    assert first_losses({"ours": [ONE], "loop": [other]}) == ["loop began with a loss of 5.0000, not 4.0000"]


def test_the_command_asks_for_layers() -> None:
    chosen = parser(CONTEST).parse_args(["--layers", "3"])
    assert (chosen.layers, chosen.steps, chosen.batch) == (3, TASK.steps * 4, asdict(TASK)["batch"])


def test_what_a_teacher_takes_to_load_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "load", lambda seconds: time.sleep(seconds))
    honest = teachers.load
    with loading_timed() as seconds:
        teachers.load(0.02)
        teachers.load(0.01)
    assert len(seconds) == 2 and sum(seconds) >= 0.03
    assert teachers.load is honest
