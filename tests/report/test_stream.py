"""What a page says of several stages: a triangle of numbers, lines, gates in words, and rows that were remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mingshi.continual.remembered import Remembered, write_memory
from mingshi.record import Run
from mingshi.report.page import render
from mingshi.report.stream import stream


def score(value: float, low: float | str = "NaN", high: float | str = "NaN") -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "count": 9, "signature": "s"}


def run(folder: Path, **fields: Any) -> Run:
    recipe = {"stages": [{}, {}]}
    values = {"id": "x", "recipe": recipe, **fields}
    return Run(folder=folder, status="done", run=values, data={}, steps=[], evals=[], findings=[])


def told(metric: str = "choice.accuracy") -> dict[str, Any]:
    rows = [
        {"old": score(0.1), "new<b>": score(0.2, 0.15, 0.25)},
        {"old": score(0.9, 0.8, 1.0), "new<b>": score(0.3)},
        {"old": score(0.4), "new<b>": score(0.7)},
    ]
    tasks = {"old": {"stage": 0, "metrics": {}}, "new<b>": {"stage": 1, "metrics": {}}}
    return {"tasks": tasks, "matrix": rows, "metrics": dict.fromkeys(tasks, metric), "transfer": []}


def test_a_run_of_one_stage_says_nothing(tmp_path: Path) -> None:
    assert stream(run(tmp_path)) is None


def test_the_map_has_a_cell_for_each_time_and_task_and_says_which_are_not_taught(tmp_path: Path) -> None:
    found = stream(run(tmp_path, forgetting=told()))
    assert found is not None and found["memory"] is None and found["gates"] == []
    heat, lines = found["figures"]
    drawn = str(heat.drawing)
    assert drawn.count("<rect") == 6 + 2 and drawn.count('class="framed"') == 2
    assert drawn.count('class="miss') == 3, "before both stages, and the second task after the first"
    assert 'class="hit heat8"' in drawn and "0.90" in drawn and "new&lt;b&gt;" in drawn
    assert str(lines.drawing).count("<circle") == 6 and len(lines.legend) == 2


def test_of_nats_less_is_darker(tmp_path: Path) -> None:
    found = stream(run(tmp_path, forgetting=told("perplexity.nats_per_token")))
    assert found is not None
    drawn = str(found["figures"][0].drawing)
    assert 'class="hit heat0"' in drawn and 'class="miss heat8"' in drawn, "0.9 is the worst and 0.1 the best"


def test_gates_are_told_in_both_languages(tmp_path: Path) -> None:
    fall = {"task": "old", "metric": "choice.accuracy", "refused": True, "fall": score(0.5, 0.3, 0.7)}
    gates = [
        {"stage": 0, "forget": 0.05, "refused": False, "falls": []},
        {"stage": 1, "forget": 0.05, "refused": True, "falls": [fall, fall | {"refused": False}]},
    ]
    found = stream(run(tmp_path, gates=gates))
    assert found is not None
    (good, passed), (grave, refused) = found["gates"]
    assert (good, grave) == ("good", "error") and "Stage 1 passed" in passed.en
    assert (
        refused.en == "Stage 2 was refused, and its weights put back: old, accuracy, fell by 0.500 (0.300, 0.700); "
        "0.05 is allowed."
    )
    assert "阶段 2 未过关卡" in refused.zh


def test_what_was_remembered_is_counted_and_shown(tmp_path: Path) -> None:
    rows = [
        Remembered(
            stage=1,
            taught=0,
            task="old",
            row=n,
            id=str(n),
            source="a.jsonl",
            line=n + 1,
            why="drawn at random",
            text=f"<b>{n}",
            answer="yes" if n < 3 else None,
            kept="" if n < 3 else "its own is empty",
        )
        for n in range(30)
    ]
    write_memory(tmp_path, 1, rows)
    found = stream(run(tmp_path))
    assert found is not None
    ((stage, task, count, own),) = found["memory"]["counts"]
    assert (stage.en, task, count, own) == ("stage 2", "old", "30", "3")
    assert len(found["memory"]["examples"]) == 12 and found["memory"]["others"] == 18
    page = render(run(tmp_path, forgetting=told()))
    assert "&lt;b&gt;0" in page and "<b>0" not in page and "What was remembered" in page
