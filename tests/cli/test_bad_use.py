"""What is asked of a model that it cannot do, and rows that ask without an answer."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from mingshi.data.formats import DataSource, read
from mingshi.types import Chat

from .conftest import Command, Place, Said, is_one_error

FEW = ("--max-new-tokens", "2")
COMPARED = [
    {"prompt": f"Why {number}?", "answers": ["yes it is", "not at all"], "ranks": [1, 2]} for number in range(9)
]


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    def write(name: str, values: Sequence[Mapping[str, Any] | str]) -> Path:
        lines = (value if isinstance(value, str) else json.dumps(value) for value in values)
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def classifier(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells `a` from `b`."""
    from mingshi.recipe import parse
    from mingshi.run import execute

    folder = tmp_path_factory.mktemp("classifier")
    labelled = "".join(f'{{"text": "text {number}", "label": "{"ab"[number % 2]}"}}\n' for number in range(6))
    (folder / "labels.jsonl").write_text(labelled)
    stage = {"data": [{"path": str(folder / "labels.jsonl")}], "objective": {"kind": "classify", "max_length": 64}}
    stage |= {"steps": 1, "validation": 0, "adapter": {"kind": "lora", "rank": 2}}
    execute(parse({"model": str(place.model), "output": str(folder / "run"), "stages": [stage]}))
    return folder / "run"


def answers(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said
    return [orjson.loads(line) for line in said.out.splitlines()]


# Rows to be answered


@pytest.mark.parametrize(
    ("value", "prompt", "reference"),
    [
        ({"prompt": "Why?"}, [("user", "Why?")], None),
        ({"prompt": "Why?", "system": "Short."}, [("system", "Short."), ("user", "Why?")], None),
        ({"messages": [{"role": "user", "content": "Why?"}]}, [("user", "Why?")], None),
        ({"prompt": "Why?", "chosen": "so", "rejected": "no"}, [("user", "Why?")], "so"),
        (COMPARED[0], [("user", "Why 0?")], None),
        ({"prompt": "Why?", "completion": "so"}, [("user", "Why?")], "so"),
    ],
)
def test_whatever_asks_is_answered_and_the_answer_says_what_was_asked(
    value: dict[str, Any],
    prompt: list[tuple[str, str]],
    reference: str | None,
    place: Place,
    rows: Any,
    mingshi: Command,
) -> None:
    (row,) = answers(mingshi("predict", place.run, rows("rows.jsonl", [value]), *FEW))
    assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == prompt
    assert row.get("reference") == reference and row["id"] == "rows.jsonl:1"


def test_tools_of_a_question_reach_the_template(rows: Any) -> None:
    from mingshi.data.formats.questions import read_to_answer

    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    path = rows("rows.jsonl", [{"messages": [{"role": "user", "content": "What time?"}], "tools": tools}])
    (example,) = read_to_answer(DataSource(path=str(path)))
    assert isinstance(example, Chat) and list(example.tools) == tools and len(example.messages) == 1


def test_questions_that_cannot_be_used_are_named_or_skipped(place: Place, rows: Any, mingshi: Command) -> None:
    from mingshi.data.formats.questions import read_to_answer

    path = rows("rows.jsonl", [{"prompt": "Why?"}, {"prompt": " "}, "{oops", {"prompt": "Why?", "completion": "so"}])
    said = mingshi("predict", place.run, path, *FEW)
    lines = said.err.splitlines()
    assert said.code == 3 and said.out == "" and lines[0].startswith(f"error: {path}:2: prompt: an empty prompt.")
    assert lines[1].startswith(f"error: {path}:3: invalid JSON") and lines[2] == "2 problems"
    skipped = list(read_to_answer(DataSource(path=str(path), on_bad_row="skip")))
    assert [type(one).__name__ for one in skipped] == ["Chat", "Reject", "Reject", "Chat"]
    assert isinstance(skipped[3], Chat) and skipped[3].messages[-1].content == "so"


def test_answers_can_be_trained_on(place: Place, rows: Any, mingshi: Command, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    assert (
        mingshi("predict", place.run, rows("rows.jsonl", [{"prompt": "Why?"}] * 2), *FEW, "--output", output).code == 0
    )
    lines = output.read_text().replace('"prediction":"\\n\\n"', '"prediction":"so"').splitlines()
    written = rows("written.jsonl", lines)
    first = next(iter(read(DataSource(path=str(written), columns={"completion": "prediction"}))))
    assert isinstance(first, Chat) and [message.role for message in first.messages] == ["user", "assistant"]


def test_answers_never_take_the_place_of_the_rows_and_a_wrong_place_is_told_first(
    place: Place, rows: Any, mingshi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mingshi.use.open_model")  # nothing is computed
    monkeypatch.setattr("mingshi.use.open_model", None, raising=False)
    path = rows("rows.jsonl", [{"prompt": "Why?"}])
    before = path.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    for name in ("rows.jsonl", "link.jsonl"):
        said = mingshi("predict", place.run, path, "--output", tmp_path / name)
        assert is_one_error(said, 2, (name, "is the file of the rows", "--output")) and path.read_bytes() == before
    said = mingshi("predict", place.run, path, "--output", tmp_path / "no" / "file")
    assert is_one_error(said, 2, ("no such file or directory",))


# A model and rows of another kind


def test_rows_that_a_classifier_cannot_be_measured_on_are_counted(
    classifier: Path, rows: Any, mingshi: Command
) -> None:
    path = rows("rows.jsonl", [{"text": "one", "label": "a"}, {"text": "two", "label": "zebra"}])
    said = mingshi("eval", classifier, path)
    assert said.code == 0 and "rows.jsonl: 2 rows = 1 used, 1 unknown_label" in said.err
    said = mingshi("eval", classifier, rows("odd.jsonl", [{"text": "two", "label": "zebra"}]))
    assert is_one_error(said, 3, ("odd.jsonl: no row is left to be scored: 1 unknown_label. Line 1:", "'zebra'"))


def test_a_model_is_not_measured_on_rows_of_another_kind(
    place: Place, classifier: Path, rows: Any, mingshi: Command
) -> None:
    labels = rows("labels.jsonl", [{"text": "one", "label": "a"}])
    said = mingshi("eval", place.run, labels)
    assert is_one_error(said, 3, ("labels.jsonl: holds rows of the format labelled", "is a language model"))
    said = mingshi("eval", classifier, rows("chat.jsonl", [{"prompt": "Why?", "completion": "so"}]))
    assert is_one_error(said, 3, ("chat.jsonl: holds rows of the format instruct", "is a classifier", "`label`"))


def test_plain_texts_are_measured_by_what_they_can_be_measured_by(place: Place, rows: Any, mingshi: Command) -> None:
    said = mingshi("eval", place.run, rows("texts.jsonl", [{"text": "one two three"}] * 3))
    assert said.code == 0 and "perplexity" in said.out and "generation" not in said.out


def test_a_classifier_says_of_which_text_it_speaks(classifier: Path, rows: Any, mingshi: Command) -> None:
    (row,) = answers(mingshi("predict", classifier, rows("texts.jsonl", [{"text": "one two"}])))
    assert row["text"] == "one two" and row["prediction"] in ("a", "b")


# Pairs


def test_pairs_in_a_relative_folder_are_named_once(
    rows: Any, mingshi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows("rows.jsonl", COMPARED)
    said = mingshi("pairs", "rows.jsonl", "--output", "made/out", "--no-balance")
    assert said.code == 0 and "train    made/out/train.jsonl" in said.out.splitlines()
    assert json.loads((tmp_path / "made/out/pairs.json").read_text())["files"]["train"]["path"] == "train.jsonl"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([{"prompt": "Why?", "answers": ["so"], "scores": [1]}], "none of 1 rows has two different answers"),
        ([{"prompt": "Why?", "answer": "so", "score": 1}], "none of 1 rows has two different answers"),
        ([{"prompt": "Why?", "answers": ["", " "], "scores": [1, 2]}], "none of 1 rows has two different answers"),
        ([{"prompt": "Why?", "answers": ["so", "no"], "scores": [1, 1]}], "1 tie. Give the answers of a prompt diff"),
        (
            [{"prompt": "Why?", "answers": ["it is what it is", "it is what it is."], "scores": [1, 2]}],
            "near_equal. Give answers that",
        ),
        ([{"prompt": "Why?", "answers": ["so it is", "no"], "scores": [2, 1]}], "1 unbalanced. Take --no-balance"),
    ],
)
def test_no_pair_at_all_is_told_with_file_and_mend(
    values: list[dict[str, Any]], words: str, rows: Any, mingshi: Command, tmp_path: Path
) -> None:
    said = mingshi("pairs", rows("rows.jsonl", values), "--output", tmp_path / "out")
    assert is_one_error(said, 3, ("rows.jsonl: none of 1", words)) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--samples", "--temperature", "--top-p", "--max-new-tokens", "--prompts"])
def test_options_of_a_model_without_one_are_refused(option: str, rows: Any, mingshi: Command, tmp_path: Path) -> None:
    said = mingshi("pairs", rows("rows.jsonl", COMPARED), "--output", tmp_path / "out", option, "1")
    assert is_one_error(said, 2, (f"{option} is given, and there is no --model",))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--score", "judge", "--judge", "{folder}/none"), 4, ("none: there is no such folder",)),
        (("--score", "judge", "--judge", "{classifier}"), 4, ("is a classifier and writes nothing",)),
        (("--model", "{classifier}"), 4, ("is a classifier and writes nothing",)),
        (("--output", "{folder}/rows.jsonl/out"), 2, ("cannot be made",)),
        (("--output", "/dev/null"), 2, ("is a file",)),
        ((), 3, ("rows.jsonl:1: has no answer to compare with, and the score is rougeL",)),
    ],
)
def test_what_would_fail_after_the_sampling_is_told_before_it(
    options: Sequence[str],
    code: int,
    words: Sequence[str],
    place: Place,
    classifier: Path,
    rows: Any,
    mingshi: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mingshi.workflows.sampling.generate", None)
    path = rows("rows.jsonl", [{"prompt": "Why?"}] if not options else [{"prompt": "Why?", "completion": "so"}])
    given = [word.format(folder=tmp_path, classifier=classifier) for word in options]
    said = mingshi("pairs", path, "--model", place.run, "--output", tmp_path / "out", *given)
    assert is_one_error(said, code, words) and not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_half_of_the_pairs(
    rows: Any, mingshi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "pairs.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    path = rows("rows.jsonl", COMPARED)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        said = mingshi("pairs", path, "--output", tmp_path / "out", "--no-balance")
    assert is_one_error(said, 6, ("no space left",)) and list((tmp_path / "out").iterdir()) == []
    assert mingshi("pairs", path, "--output", tmp_path / "out", "--no-balance").code == 0
