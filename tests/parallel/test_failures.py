"""When one process fails, all end, in time, and it is named; a signal to one stops all of them in good order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from parallel.scenes import FULL, place_in, play, run_of, said, selected, sft, written

from mingshi import checkpoint

SECONDS = 60.0  # from the fault to the last end
QUICK = (6.0, 8.0)  # seconds without work, and without a beat, instead of more than half a minute each
FAULTS: dict[str, dict[str, Any]] = {
    "raise-prepare": {"process": 1, "where": "prepare", "at": 1, "how": "raise"},
    "raise-step": {"process": 1, "where": "step", "at": 3, "how": "raise"},
    "raise-validate": {"process": 0, "where": "validate", "at": 1, "how": "raise"},
    "raise-save": {"process": 0, "where": "save", "at": 2, "how": "raise"},
    "kill-step": {"process": 1, "where": "step", "at": 3, "how": "kill"},
    "kill-first": {"process": 0, "where": "step", "at": 3, "how": "kill"},
    "kill-save": {"process": 0, "where": "save", "at": 2, "how": "kill"},
    "sleep-prepare": {"process": 0, "where": "prepare", "at": 1, "how": "sleep"},
    "sleep-step": {"process": 1, "where": "step", "at": 3, "how": "sleep"},
    "stop-step": {"process": 1, "where": "step", "at": 3, "how": "stop"},
}


ORDINARY = ("raise-step", "kill-first", "sleep-prepare")
NAMES = [*ORDINARY, *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS if name not in ORDINARY)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_in(tmp_path_factory.mktemp("failures"))


@pytest.fixture(scope="module")
def ended(place: Path, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    scenes: list[dict[str, Any]] = []
    for (name,) in sorted(selected(request, "name")):
        fault = FAULTS[name]
        recipe = written(place, name, sft(place, adapter=FULL, steps=6))
        scenes.append({"name": name, "count": 2, "recipe": recipe, "fault": fault, "patience": QUICK})
    fault = {"process": 0, "where": "validate", "at": 1, "how": "term"}
    recipe = written(place, "term-validate", sft(place, adapter=FULL, steps=6))
    scenes.append({"name": "term-validate", "count": 2, "recipe": recipe, "fault": fault})
    return play(place, scenes)


@pytest.mark.parametrize("name", NAMES)
def test_one_failure_ends_all_and_is_named(name: str, place: Path, ended: dict[str, dict[str, Any]]) -> None:
    told, fault = ended[name], FAULTS[name]
    words = [said(place, name, number) for number in (0, 1)]
    assert all(code not in (0, None) for code in told["codes"]), (told, words)
    assert told["seconds"] < SECONDS
    assert f"process {fault['process']} of 2" in "".join(words), words
    assert "Traceback" not in "".join(words)
    if fault["process"] == 1:
        run = run_of(place, name)
        assert run.status == "failed" and "process 1 of 2" in run.run["summary"]["error"]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_stands(name: str, place: Path, ended: dict[str, dict[str, Any]]) -> None:
    saved = sorted((place / name).glob("checkpoints/stage-0/step-*"))
    for path in saved:
        checkpoint.verify(path)
    if FAULTS[name]["where"] in ("step", "save"):
        assert saved


def test_a_signal_while_one_process_measures_stops_all(place: Path, ended: dict[str, dict[str, Any]]) -> None:
    assert ended["term-validate"]["codes"] == [75, 75]
    assert run_of(place, "term-validate").status == "preempted"
    assert said(place, "term-validate", 1) == ""
