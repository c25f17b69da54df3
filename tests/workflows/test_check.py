"""The health of planted data: what was planted is found, told in two languages, written down and repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from mingshi.data.formats import DataSource
from mingshi.errors import DataError, RecipeError
from mingshi.workflows import check_written
from mingshi.workflows.check import Health, check
from mingshi.workflows.check_told import described
from mingshi.workflows.repair import repair

SUBJECTS = ["the ferry", "a violin", "这家面馆", "那本小说", "the laptop", "一双跑鞋", "her garden", "地铁早班车"]
VERBS = ["pleased", "annoyed", "惊喜", "失望", "bored", "打动"]


def reviews(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Texts that are all different, with labels that their words decide."""
    rows = []
    for number in range(start, start + count):
        subject, verb = SUBJECTS[number % 8], VERBS[number % 6]
        text = (
            f"Number {number}: {subject} {verb} everybody on day {number * 7919 % 10007}, 没有例外 {number * 31 % 997}"
        )
        rows.append(
            {"text": text, "label": "good" if verb in ("pleased", "惊喜", "打动") else "bad", "city": "abc"[number % 3]}
        )
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> DataSource:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return DataSource(path=str(path), on_bad_row="skip", attributes=("city",))


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, list[DataSource]]:
    train, test = reviews(120), reviews(40, start=120)
    train[3] = {**train[3], "text": test[5]["text"], "label": test[5]["label"]}  # line 4 is line 6 of the test
    train[10] = {**train[9], "label": "bad" if train[9]["label"] == "good" else "good"}
    train[20]["text"] += " <script>alert(1)</script> mail me at anna.schmidt@firma-mueller.de"
    train.append({"text": "no label"})
    return {"train": [written(tmp_path / "train.jsonl", train)], "test": [written(tmp_path / "test.jsonl", test)]}


def kinds(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{one['check']}.{one['kind']}": one for one in told["findings"]}


def test_what_was_planted_is_found_with_its_rows(planted: Any, tmp_path: Path) -> None:
    told = check(planted, Health(protected=("city",)), output=tmp_path / "health")
    found = kinds(told)
    leak = found["leakage.equal"]
    assert leak["severity"] == "error" and leak["count"] == 1
    assert (leak["rows"][0]["line"], leak["rows"][0]["with"]["line"]) == (4, 6)
    assert {row["line"] for row in found["contradictions.labels"]["rows"]} == {10, 11}
    assert found["rows.unread"]["count"] == 1 and found["rows.unread"]["rows"][0]["line"] == 121
    assert any(one["check"] == "safety" and one["rows"][0]["line"] == 21 for one in told["findings"])
    assert told["rows"] == 160 and told["splits"]["train"]["read"] == 121 and told["splits"]["train"]["used"] == 120
    severities = [one["severity"] for one in told["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert orjson.loads((tmp_path / "health" / "findings.json").read_bytes())["rows"] == 160


def test_the_page_and_the_terminal_say_it_in_both_languages_and_run_nothing(planted: Any, tmp_path: Path) -> None:
    told = check(planted, output=tmp_path / "health", language="zh")
    page = (tmp_path / "health" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "anna.schmidt@firma-mueller.de" not in page
    for words in ("数据体检", "Data health", "同一文本有不同标签", "One text with several labels", "<mark>"):
        assert words in page
    chinese, english = ("\n".join(described(told, language=language)) for language in ("zh", "en"))
    assert "文本完全相同" in chinese and "the same text" in english
    for line in chinese.splitlines():  # a sentence that was forgotten would come out in English
        assert any("\u4e00" <= letter <= "\u9fff" for letter in line), line


def test_rows_that_were_found_can_be_dropped_and_are_then_not_found(planted: Any, tmp_path: Path) -> None:
    check(planted, output=tmp_path / "health")
    train, new = Path(planted["train"][0].path), tmp_path / "new.jsonl"
    told = repair(
        train, new, findings=tmp_path / "health" / "findings.json", drop=["leakage.equal", "contradictions", "rows"]
    )
    assert told["rows"]["written"] == 121 - 4
    again = kinds(check({**planted, "train": [DataSource(path=str(new), on_bad_row="skip")]}))
    assert not {"leakage.equal", "contradictions.labels", "rows.unread"} & again.keys()


def test_every_row_is_named_and_can_be_dropped(tmp_path: Path) -> None:
    rows = reviews(260)
    for number, row in enumerate(rows[:150]):
        row["text"] += f" write to somebody{number}@firma-mueller.de"
    train = written(tmp_path / "train.jsonl", rows + [{"text": "no label"}] * 30)
    found = kinds(check({"train": [train]}, output=tmp_path / "health"))
    (mail,) = (one for name, one in found.items() if name == "safety.email")
    assert [row["line"] for row in mail["rows"]] == list(range(1, 151))
    assert len(found["rows.unread"]["rows"]) == 30
    told = repair(
        Path(train.path), tmp_path / "new.jsonl", findings=tmp_path / "health/findings.json", drop=["safety.email"]
    )
    assert told["dropped"]["safety.email"] == 150 and told["rows"]["written"] == 140


@pytest.mark.parametrize("holds", ["run.json", "notes"])
def test_a_folder_of_somebody_else_is_refused_before_a_row_is_read(holds: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / holds).touch()
    with pytest.raises(RecipeError, match=f"holds {holds}, which would be mixed with what is written"):
        check({"train": [DataSource(path="there is none")]}, output=tmp_path / "out")
    with pytest.raises(RecipeError, match="is a file"):
        check({"train": [DataSource(path="there is none")]}, output=tmp_path / "out" / holds)


def test_what_a_person_has_accepted_outlives_a_second_check(tmp_path: Path) -> None:
    health, suspects = tmp_path / "health", [{"source": "a", "line": n, "label": "x", "suggested": "y"} for n in (1, 2)]
    told = check({"train": [written(tmp_path / "a.jsonl", reviews(20))]}, output=health)
    assert check_written.write(health, told, suspects, language="en") == ""
    lines = [orjson.loads(line) for line in (health / "suspects.jsonl").read_bytes().splitlines()]
    assert [line["accept"] for line in lines] == [None, None]
    lines[0]["accept"], lines[1]["accept"] = True, False
    (health / "suspects.jsonl").write_bytes(b"not a row\n" + b"".join(orjson.dumps(line) + b"\n" for line in lines))
    said = check_written.write(health, told, [{**suspects[0], "text": "new"}], language="en")
    assert said.startswith("1 answers in suspects.jsonl") and "suspects-before.jsonl" in said
    (line,) = (health / "suspects.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["accept"] is True
    assert b'"accept":false' in (health / "suspects-before.jsonl").read_bytes()
    check_written.claim(health)


def test_files_without_a_row_to_look_at_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [{"text": " ", "label": "a"}] * 2)
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        check({"train": [source]})


def test_a_renamed_field_that_no_row_has_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"words": "one", "mood": "a"}] * 2).path
    unlabelled = written(tmp_path / "more.jsonl", [{"words": "two"}]).path
    columns = {"text": "words", "label": "mood"}
    told = check({"train": [DataSource(path=each, columns=columns) for each in (path, unlabelled)]})
    assert told["rows"] == 3
    with pytest.raises(RecipeError, match=r"--column label=mod: no row has such a field\. There are words, mood\."):
        check({"train": [DataSource(path=path, columns={"text": "words", "label": "mod"})]})
