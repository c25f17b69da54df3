"""Each command with and without --json: results on standard output, and nothing else there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from .conftest import ROOT, Command, Place, Said, by_process, recipe_text


def document(said: Said) -> Any:
    """The one JSON document that standard output is; orjson refuses anything before or after it."""
    assert said.code == 0, said
    return orjson.loads(said.out)


def test_train_ends_in_one_json_document_and_tells_its_progress_on_standard_error(place: Place) -> None:
    told = document(place.made)
    assert told["status"] == "done" and Path(told["folder"]) == place.run and Path(told["report"]).is_file()
    assert set(told["scores"]) == {"before", "after", "difference"}
    assert "perplexity.nats_per_token" in told["scores"]["after"]
    assert "Loading" in place.made.err and "step 3/3" in place.made.err and "40 rows" not in place.made.out


def test_train_in_words_names_the_run_and_its_report(place: Place, mingshi: Command, tmp_path: Path) -> None:
    said = mingshi("train", place.recipe, "--output", tmp_path / "run", "--set", "stages.0.steps=1")
    assert said.code == 0 and [line.split()[0] for line in said.out.splitlines()][-2:] == ["run", "report"]
    assert str(tmp_path / "run" / "report.html") in said.out and "Loading" in said.err


def test_train_without_a_recipe_chooses_the_format_and_says_so(place: Place, mingshi: Command, tmp_path: Path) -> None:
    output = tmp_path / "新 run #1: a"
    sets = ("--set", "stages.0.steps=1", "--set", "stages.0.batch=4")
    said = mingshi("train", "--model", place.model, "--data", place.rows, "--output", output, *sets, "--json")
    assert document(said)["folder"] == str(output) and (output / "run.json").is_file()
    assert "is read as instruct: 20 of the first 20 rows have instruction and output" in said.err


def test_train_resume_of_a_finished_run_says_so(place: Place, mingshi: Command) -> None:
    said = mingshi("train", place.recipe, "--resume", "--json")
    assert document(said) == document(place.made) and "finished" in said.err


def test_preview(place: Place, mingshi: Command, tmp_path: Path) -> None:
    (row,) = document(mingshi("preview", place.recipe, "-n", 1, "--json"))
    assert row["line"] == 1 and {"text", "weight", "reason"} == set(row["tokens"][0])
    assert any(token["weight"] for token in row["tokens"])
    said = mingshi("preview", "--model", place.model, "--data", place.rows, "-n", 1)
    assert said.code == 0 and "rows.jsonl:1" in said.out and "is read as instruct" in said.err
    said = mingshi("preview", place.recipe, "--html", tmp_path / "页.html")
    assert said.code == 0 and "<html" in (tmp_path / "页.html").read_text(encoding="utf-8")


def test_plan(place: Place, mingshi: Command) -> None:
    told = document(mingshi("plan", place.recipe, "--json"))
    assert told["stages"][0]["steps"] == 3 and told["test_rows"] == 4
    assert sum(source["rows"] for source in told["sources"]) == 44
    said = mingshi("plan", place.recipe)
    assert said.code == 0 and "3 steps at learning rate 0.0002" in said.out


def test_eval(place: Place, mingshi: Command) -> None:
    few = ("--limit", 2, "--max-new-tokens", 4)
    told = document(mingshi("eval", place.run, place.rows, *few, "--json"))
    assert told["rows"] == 40 and told["metrics"]["generation.rougeL"]["count"] == 2
    said = mingshi("eval", place.run, place.rows, "--no-generation")
    value = f"{told['metrics']['perplexity.nats_per_token']['value']:.4f}"
    assert said.code == 0 and value in said.out and "generation" not in said.out


def test_predict(place: Place, mingshi: Command, tmp_path: Path) -> None:
    rows = document(mingshi("predict", place.run, place.rows, "--max-new-tokens", 2, "--json"))
    assert len(rows) == 40 and set(rows[0]) == {"id", "prompt", "prediction", "reference", "finished"}
    said = mingshi("predict", place.run, place.rows, "--max-new-tokens", 2)
    assert said.code == 0 and [orjson.loads(line) for line in said.out.splitlines()] == rows
    file = tmp_path / "答.jsonl"
    said = mingshi("predict", place.run, place.rows, "--max-new-tokens", 2, "--output", file)
    assert said.out == "" and "40 answers written" in said.err
    assert [orjson.loads(line) for line in file.read_bytes().splitlines()] == rows


def test_chat(place: Place, mingshi: Command) -> None:
    said = mingshi("chat", place.run, "Say the number 3.", "--max-new-tokens", 3)
    answer = document(mingshi("chat", place.run, "Say the number 3.", "--max-new-tokens", 3, "--json"))
    assert said.code == 0 and answer == {"answer": said.out.removesuffix("\n")}


def test_chat_as_a_conversation_ends_with_its_input(
    place: Place, mingshi: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["One?", "Two?"])

    def asked(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", asked)
    said = mingshi("chat", place.run, "--max-new-tokens", 2)
    assert said.code == 0 and said.out.count("\n") >= 2 and "Ctrl-D" in said.err


def test_merge_makes_a_model_that_is_used_like_any_other(place: Place, mingshi: Command, tmp_path: Path) -> None:
    told = document(mingshi("merge", place.run, tmp_path / "whole", "--precision", "float32", "--json"))
    assert told["kl"] < 1e-6 and told["agreement"] == 1.0 and told["positions"] > 0
    assert mingshi("verify", tmp_path / "whole").code == 0
    said = mingshi("merge", place.run / "adapter", tmp_path / "again", "--precision", "float32")
    assert said.code == 0 and "100.0%" in said.out


def test_runs(place: Place, mingshi: Command, tmp_path: Path) -> None:
    (run,) = document(mingshi("runs", place.folder, "--json"))
    assert run["fit"] == ["too_small"]
    assert run["status"] == "done" and run["folder"] == str(place.run) and run["loss"] > 0
    said = mingshi("runs", place.folder)
    assert said.code == 0 and "done" in said.out.splitlines()[1]
    assert document(mingshi("runs", tmp_path, "--json")) == []
    assert mingshi("runs", tmp_path).out == "no runs here\n"


def test_report(place: Place, mingshi: Command) -> None:
    page = place.run / "report.html"
    page.unlink()
    told = document(mingshi("report", place.run, "--json"))
    assert told["report"] == str(page) and page.is_file()
    assert [fit["verdict"] for fit in told["fit"]] == ["too_small"] and told["fit"][0]["next"]["zh"]
    said = mingshi("report", place.run, "--lang", "zh")
    assert said.out.strip() == str(page) and 'lang="zh' in page.read_text(encoding="utf-8")


def test_verify_passes_on_what_was_saved_and_fails_on_what_was_changed(
    place: Place, mingshi: Command, tmp_path: Path
) -> None:
    said = mingshi("verify", place.run)
    assert said.code == 0 and "FAILED" not in said.out and said.out.count("ok ") > 5
    assert document(mingshi("verify", place.run, "--json"))["passed"] is True
    changed = tmp_path / "adapter"
    changed.mkdir()
    for file in (place.run / "adapter").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    (changed / "README.md").write_text("changed")
    said = mingshi("verify", changed)
    assert said.code == 4 and "FAILED  README.md: changed" in said.out and said.err == ""
    said = mingshi("verify", changed, "--json")
    assert said.code == 4 and orjson.loads(said.out)["passed"] is False


# As processes


HELP = """
import sys
sys.argv = ["mingshi", "--help"]
from mingshi.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "transformers", "numpy", "pydantic", "rich") if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("[]\n"), done
    assert all(name in done.stdout for name in ("train", "preview", "plan", "eval", "predict", "chat", "merge"))


def test_a_bare_command_shows_the_help() -> None:
    assert by_process() == by_process("--help")


def test_a_closed_pipe_is_no_error(place: Place) -> None:
    """`mingshi … | head`: a reader that leaves is told nothing, and leaves no traceback."""
    for number in range(300):
        folder = place.folder / "many" / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_bytes((place.run / "run.json").read_bytes())
    command = f"{sys.executable} -m mingshi runs {place.folder / 'many'} --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == "[\n  {\n    " and done.stderr == "", done


def test_an_answer_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "名师").mkdir()
    (tmp_path / "名师" / "run.json").write_text("broken")
    said = by_process("runs", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert said.code == 0 and "\\u540d\\u5e08" in said.out and "unreadable" in said.out and said.err == ""


def test_without_any_signal_the_allocator_restarts_the_command_once(place: Place, tmp_path: Path) -> None:
    """The arguments arrive as they were, however odd."""
    data = tmp_path / "行 'a' $b.jsonl"
    data.write_bytes(place.rows.read_bytes())
    recipe = tmp_path / "r.yaml"
    recipe.write_text(recipe_text(place.model, place.rows, tmp_path / "run"), encoding="utf-8")
    said = by_process("predict", place.run, data, "--max-new-tokens", "1", "--json")
    assert len(document(said)) == 40
