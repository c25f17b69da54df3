"""What the run folder promises: one owner, whole lines, no secrets, no absolute paths, resume of the same run only."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mingshi import provenance, record
from mingshi.errors import DataError, RecipeError, ResourceError
from mingshi.record import Record, list_runs, read_run, resume_conflicts
from mingshi.types import Score, Scores, Step

STAGE = {
    "data": [{"path": "data/train.jsonl", "format": "instruct", "weight": 1.0}],
    "validation": 0.05,
    "objective": {"kind": "sft", "max_length": 512},
    "adapter": {"kind": "lora", "rank": 16, "dropout": 0.1},
    "optim": {"learning_rate": 2e-4, "schedule": "cosine", "warmup": 0.05, "clip": 1.0},
    "batch": 16,
    "epochs": 2.0,
    "early_stopping": None,
    "checkpoint": 10,
}
RECIPE = {
    "model": "smollm2-135m",
    "output": "runs/a",
    "seed": 3,
    "template": "auto",
    "precision": "auto",
    "stream": 4096,
    "stages": [STAGE],
    "test": [],
    "evals": [{"kind": "perplexity"}],
    "keep": 1,
}


def create(folder: Path, *, resume: bool = False, recipe: dict[str, Any] | None = None) -> Record:
    return Record.create(
        folder, recipe=RECIPE if recipe is None else recipe, command=["mingshi", "train"], resume=resume
    )


def step(number: int, loss: float = 1.5) -> Step:
    return Step(
        number=number,
        epoch=0.1,
        loss=loss,
        learning_rate=1e-4,
        gradient_norm=0.3,
        tokens=10,
        trained=5,
        seconds=0.1,
        ids=("a", "b"),
    )


def scores(value: float) -> Scores:
    return Scores(
        scores={"loss": Score(value=value, low=0, high=9, count=2, signature="s")}, items={"loss": [1.0, 2.0]}
    )


def write_eval(run: Record, value: float, *, stage: int = 0, at: int = 0, when: str = "during") -> None:
    run.write_eval(stage=stage, step=at, when=when, data="validation", kind="perplexity", scores=scores(value))


# A run, written and read -----------------------------------------------------------------------------------------


def test_a_finished_run_reads_back_as_it_was(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        for number in (1, 2, 3):
            run.write_step(step(number, loss=1 / number), stage=0)
        write_eval(run, 0.7, at=3)
        run.write_json("data.json", {"sources": []})
        run.write_json("findings.json", [])
        run.update(model={"name": "smollm2-135m", "files": {}}, device="cpu")
        run.finish("done", {"note": "well"})
    read = read_run(tmp_path / "run")
    assert (read.status, read.run["summary"], read.run["device"]) == ("done", {"note": "well"}, "cpu")
    assert [line["loss"] for line in read.steps] == [1.0, 1 / 2, 1 / 3]
    assert read.steps[0]["ids"] == ["a", "b"] and read.steps[0]["stage"] == 0
    assert read.evals[0]["scores"]["loss"]["value"] == 0.7 and read.evals[0]["items"] == {"loss": [1.0, 2.0]}
    assert read.run["recipe"] == RECIPE
    assert read.run["seed"] == 3 and read.run["format"] == 1 and len(read.run["id"]) == 32
    assert read.run["created"].endswith("Z") and read.run["finished"] >= read.run["created"]
    assert read.run["scores"] == {"validation.perplexity.loss": 0.7}


def test_the_record_says_what_ran_and_on_what(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        fields = run.fields
    assert fields["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "peft", "numpy"} <= fields["versions"].keys()
    assert len(fields["code"]["sha256"]) == 64
    assert fields["machine"]["memory_bytes"] > 1 << 20 and fields["machine"]["cores"] >= 1
    assert fields["command"] == ["mingshi", "train"]


def test_the_code_fingerprint_follows_a_git_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "provenance.py").write_text("a = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.code().keys() == {"sha256"}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    clean = provenance.code()
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (package / "provenance.py").write_text("a = 22\n")
    dirty = provenance.code()
    assert dirty["dirty"] is True and dirty["sha256"] != clean["sha256"]


def test_numbers_that_are_not_finite_are_neither_hidden_nor_lost(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        for number, loss in enumerate([math.nan, math.inf, -math.inf], start=1):
            run.write_step(step(number, loss=loss), stage=0)
        write_eval(run, math.nan)
    text = (tmp_path / "run" / "steps.jsonl").read_text()
    assert "null" not in text
    assert all(json.loads(line)["loss"] in ("NaN", "Infinity", "-Infinity") for line in text.splitlines())
    read = read_run(tmp_path / "run")
    assert [str(line["loss"]) for line in read.steps] == ["nan", "inf", "-inf"]
    assert math.isnan(read.evals[0]["scores"]["loss"]["value"])


def test_half_a_last_line_is_left_out_when_reading_and_repaired_on_resume(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        for number in (1, 2):
            run.write_step(step(number), stage=0)
    file = tmp_path / "run" / "steps.jsonl"
    whole = file.read_bytes()
    for length in range(len(whole) // 2 + 1, len(whole)):
        file.write_bytes(whole[:length])
        assert [line["number"] for line in read_run(tmp_path / "run").steps] == [1]
    with create(tmp_path / "run", resume=True) as run:
        run.truncate_after(stage=0, step=1)
        run.write_step(step(2), stage=0)
    assert file.read_bytes() == whole


def test_resuming_leaves_no_step_and_no_evaluation_twice(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        write_eval(run, 9.0, when="before")
        for stage, last in ((0, 3), (1, 5)):
            for number in range(1, last + 1):
                run.write_step(step(number), stage=stage)
                write_eval(run, number, stage=stage, at=number)
    with create(tmp_path / "run", resume=True) as run:
        assert run.resumed
        write_eval(run, 8.0, when="before")
        run.truncate_after(stage=1, step=2)
        assert run.fields["scores"]["validation.perplexity.loss"] == 2
        run.write_step(step(3), stage=1)
    read = read_run(tmp_path / "run")
    assert [(line["stage"], line["number"]) for line in read.steps] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    befores = [line["scores"]["loss"]["value"] for line in read.evals if line["when"] == "before"]
    assert befores == [8.0]
    assert len(read.evals) == 1 + 3 + 2
    with create(tmp_path / "run", resume=True) as run:  # no checkpoint of stage 1: all of it is done again
        run.truncate_after(stage=0, step=3)
    assert [(line["stage"], line["number"]) for line in read_run(tmp_path / "run").steps] == [(0, 1), (0, 2), (0, 3)]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    with create(tmp_path / "run") as run:
        run.write_step(step(1), stage=0)
        size = (tmp_path / "run" / "steps.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, limits[1]))
        try:
            with pytest.raises(ResourceError, match=r"steps\.jsonl: cannot be written: the disk is full"):
                run.write_step(step(2), stage=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        run.write_step(step(3), stage=0)
    assert [line["number"] for line in read_run(tmp_path / "run").steps] == [1, 3]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failed_rewrite_leaves_the_older_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with create(tmp_path / "run") as run:
        before = (tmp_path / "run" / "run.json").read_bytes()
        monkeypatch.setattr(os, operation, fail)
        with pytest.raises(ResourceError, match=r"run\.json.*No space left"):
            run.update(device="cuda")
        monkeypatch.undo()
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_damaged_a_newer_and_a_missing_record_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a run folder"):
        read_run(tmp_path)
    create(tmp_path / "run").__exit__()
    fields = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**fields, "format": 4}))
    with pytest.raises(DataError, match="format 4 is newer than 1"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_run(tmp_path / "run")


# One folder, one run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["done", "failed", "preempted", None])
def test_a_used_folder_needs_resume_and_says_so(tmp_path: Path, status: str | None) -> None:
    with create(tmp_path / "run") as run:
        if status:
            run.finish(status, {})
    with pytest.raises(RecipeError, match=rf"{status or 'interrupted'}.*--resume.*another `output`"):
        create(tmp_path / "run")
    with create(tmp_path / "run", resume=True) as again:
        assert (again.id, again.fields["created"]) == (run.id, run.fields["created"])
        assert again.fields["status"] == "running" and len(again.fields["resumes"]) == 1


def test_a_folder_of_other_things_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    for resume in (False, True):
        with pytest.raises(RecipeError, match=r"not a run's \(thesis\.txt\).*another `output`"):
            create(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resume_where_nothing_is_yet_begins(tmp_path: Path) -> None:
    with create(tmp_path / "new", resume=True) as run:
        assert not run.resumed


def test_seconds_add_up_over_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    with create(tmp_path / "run") as run:
        clock[0] += 7
        run.finish("preempted", {})
    clock[0] = 5.0
    with create(tmp_path / "run", resume=True) as run:
        clock[0] += 2
        run.finish("done", {})
    assert read_run(tmp_path / "run").run["seconds"] == 9.0


def test_runs_are_listed_with_what_matters(tmp_path: Path) -> None:
    for name, loss in (("a", 0.5), ("deep/b", 0.25)):
        with create(tmp_path / name) as run:
            run.write_step(step(1, loss), stage=0)
            write_eval(run, loss)
            run.finish("done", {})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("{")
    found = {line.folder.name: line for line in list_runs(tmp_path)}
    assert {name: line.status for name, line in found.items()} == {"a": "done", "b": "done", "c": "unreadable"}
    assert found["b"].loss == 0.25 and found["b"].scores == {"validation.perplexity.loss": 0.25}
    assert found["b"].model == "smollm2-135m"
    assert list_runs(tmp_path / "nowhere") == []


# Resuming the same run ------------------------------------------------------------------------------------------------


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [leaf for key, inner in items for leaf in places(inner, (*place, key))] or [place]


def changed(place: tuple[Any, ...]) -> dict[str, Any]:
    recipe = json.loads(json.dumps(RECIPE))
    parent = recipe
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = "something else"
    return recipe


MAY = {("output",), ("keep",), ("evals", 0, "kind"), ("stages", 0, "checkpoint")}


@pytest.mark.parametrize("place", places(RECIPE), ids=lambda place: ".".join(map(str, place)))
def test_every_field_of_a_recipe_is_either_free_or_must_match(place: tuple[Any, ...]) -> None:
    problems = resume_conflicts(RECIPE, changed(place))
    assert [problem.field for problem in problems] == ([] if place in MAY else [".".join(map(str, place))])


def test_all_differences_are_listed_old_to_new(tmp_path: Path) -> None:
    create(tmp_path / "run").__exit__()
    new = {**RECIPE, "seed": 4, "novelty": True, "stages": [{**STAGE, "batch": 32}, STAGE]}
    with pytest.raises(RecipeError) as caught:
        create(tmp_path / "run", resume=True, recipe=new)
    lines = str(caught.value).splitlines()
    assert "seed: was 3 when this run began, and is 4 now. Put it back to resume" in lines[0]
    assert any(line.startswith("stages.0.batch: was 16") and "is 32 now" in line for line in lines)
    assert any(line.startswith("novelty: was not set") for line in lines)
    assert any(line.startswith("stages.1.batch: was not set") for line in lines)


NEW = [(None, 0), ([], 0), ({}, 0), (False, 0), (0, 0), (0.1, 1), (["gender"], 1)]


@pytest.mark.parametrize(("now", "conflicts"), NEW)
def test_a_field_that_came_later_does_not_conflict_while_it_is_empty(now: Any, conflicts: int) -> None:
    assert len(resume_conflicts(RECIPE, {**RECIPE, "stages": [{**STAGE, "novelty": now}]})) == conflicts


def test_what_was_emptied_conflicts() -> None:
    full = {**RECIPE, "novelty": ["gender"], "setting": {"share": 0.1}}
    problems = resume_conflicts(full, {**RECIPE, "novelty": [], "setting": None})
    assert {problem.field for problem in problems} == {"novelty.0", "setting.share"}


def test_a_run_in_a_moved_folder_resumes(tmp_path: Path) -> None:
    recipe = {**RECIPE, "model": str(tmp_path / "models" / "m"), "output": str(tmp_path / "run")}
    create(tmp_path / "run", recipe=recipe).__exit__()
    (tmp_path / "run").rename(tmp_path / "moved")
    with create(tmp_path / "moved", recipe={**recipe, "output": str(tmp_path / "moved")}, resume=True) as run:
        assert run.resumed


def test_files_and_folders_are_fingerprinted_and_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.json", "sub/b.json", "c.txt"):
        (tmp_path / name).write_text(name)
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.json", "sub/b.json")}
    assert record.hash_folder(tmp_path, ["*.json", "**/*.json"]) == expected
    mark = record.fingerprint_file(tmp_path / "a.json")
    assert mark == {"path": "a.json", "sha256": expected["a.json"], "bytes": 6}
    (tmp_path / "a.json").write_text("another")
    assert record.fingerprint_file(tmp_path / "a.json")["sha256"] == hashlib.sha256(b"another").hexdigest()


def test_the_record_is_read_and_written_without_torch() -> None:
    program = "import sys, mingshi.record, mingshi.signals; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(record.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode == 0
