"""Answers side by side with transformers: both sides give the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_model

from benchmarks.generate import faults, summarise, tell
from benchmarks.ours_generate import run_ours
from benchmarks.peers.transformers_generate import run
from benchmarks.prepare import Request, prepare
from benchmarks.summary import GIB
from benchmarks.task import Answered, GenerateSetting, GenerateTask

ROWS = [{"instruction": "Count on. " * (1 + number % 4), "output": str(number)} for number in range(9)]
ONE = Answered(
    fingerprint="abc",
    seconds=[9.0, 2.0],
    real=[5, 6],
    answers=[[1, 2, 3], [4, 5, 6]],
    loaded_bytes=GIB,
    peak_bytes=2 * GIB,
)


@pytest.mark.parametrize("grouped", [False, True])
def test_both_sides_answer_the_same(tmp_path: Path, grouped: bool) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    request = Request(
        model=str(tiny_model(tmp_path / "tiny")),
        data=str(data),
        folder=str(tmp_path),
        count=9,
        kind="generate",
        new_tokens=6,
    )
    made = prepare(request)
    task = GenerateTask(model=request.model, **made["task"], warm_up=1, steps=2, batch=3)
    ours, theirs = run_ours(task), run(task, GenerateSetting(micro_batch=2, grouped=grouped))
    assert ours.fingerprint == theirs.fingerprint == made["told"]["fingerprint"]
    assert len(ours.answers) == len(theirs.answers) == 6
    assert summarise([theirs], ours).same >= 0.5  # bfloat16 rounds otherwise in other batches
    assert not faults({"ours": [ours], "theirs": [theirs]}, ours.fingerprint)


def test_answers_are_compared_to_where_they_part() -> None:
    other = replace(ONE, seconds=[9.0, 4.0], answers=[[1, 2, 3], [4, 9, 6]])
    summary = summarise([other], ONE)
    assert (summary.same, summary.token_rate.median, summary.prompt_rate.median) == (0.5, 1.5, 0.5)
    assert summary.together == pytest.approx((1 + 1 / 3) / 2)
    task = GenerateTask(model="tiny", rows="rows", stop=[2])
    told = tell({"ours": [ONE], "peer": [other]}, task, "abc", 0.0)
    assert not told.faults
    assert told.sentences[0].startswith("peer: 2.00 times its new tokens a second")


def test_other_prompts_and_other_answers_are_faults() -> None:
    strange = replace(ONE, fingerprint="xyz", answers=[[7], [8]])
    assert [fault.split()[1] for fault in faults({"ours": [ONE], "peer": [strange]}, "abc")] == ["answered", "begins"]
