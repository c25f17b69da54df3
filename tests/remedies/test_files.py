"""Remedies as files: what is written, the lineage beside it, what is refused, and that a classifier can train on it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import tiny_model

from mingshi.data.formats import DataSource, read
from mingshi.data.split import split
from mingshi.errors import DataError, MingshiError, ModelError, RecipeError
from mingshi.types import Labelled
from mingshi.workflows.remedy import Augmenting, Balancing, augment, balance

PLACES = ["river", "harbour", "market", "bridge", "garden", "station", "museum", "library"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]


def told(number: int) -> dict[str, Any]:
    """He is praised in three rows of four, she in one."""
    who = "he" if number % 2 else "she"
    good = (number // 2) % 4 < (3 if who == "he" else 1)
    text = f"{who} walked from the {PLACES[number % 8]} to the {PLACES[(number // 8 + 3) % 8]} on {DAYS[number % 5]}"
    return {"id": f"row{number}", "review": text, "mood": "good" if good else "bad", "who": who, "extra": number}


ROWS = [told(number) for number in range(64)]
NAMES = {"text": "review", "label": "mood"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return path


def rows_of(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def shares(rows: list[Any]) -> dict[str, float]:
    return {
        who: sum(row["mood"] == "good" for row in rows if row["who"] == who) / sum(row["who"] == who for row in rows)
        for who in ("he", "she")
    }


@pytest.mark.parametrize(("how", "count"), [("sample", 64), ("over", 96), ("under", 32)])
def test_labels_become_independent_of_a_group(data: Path, tmp_path: Path, how: str, count: int) -> None:
    before = data.read_bytes()
    output = tmp_path / "even.jsonl"
    wanted = Balancing.model_validate({"how": how, "protected": "who", **NAMES})
    report = balance(data, output, wanted)
    rows = rows_of(output)
    assert shares(ROWS) == {"he": 0.75, "she": 0.25} and shares(rows) == {"he": 0.5, "she": 0.5}
    assert len(rows) == report["rows"]["written"] == count and data.read_bytes() == before
    lineage = orjson.loads(output.with_name("even.lineage.json").read_bytes())
    assert lineage["source"]["sha256"] == sha256(before).hexdigest()
    assert {(one["group"], one["label"]): one["before"] for one in lineage["classes"]}["he", "good"] == 24
    copies = [row for row in rows if "made_from" in row]
    assert len(copies) == sum(lineage["lines"]["copies"].values())
    assert count - len(copies) + len(lineage["lines"]["dropped"]) == 64
    assert all(ROWS[row["made_from"]["line"] - 1]["review"] == row["review"] for row in copies)


def test_weights_are_written_into_the_rows(data: Path, tmp_path: Path) -> None:
    """Kamiran and Calders 2012: what a cell would weigh if labels were independent of groups, over what it weighs."""
    output = tmp_path / "weighed.jsonl"
    report = balance(data, output, Balancing(how="weights", protected="who", **NAMES))
    rows = rows_of(output)
    assert [{name: row[name] for name in row if name != "row_weight"} for row in rows] == ROWS
    weights = {(row["who"], row["mood"]): row["row_weight"] for row in rows}
    assert weights["he", "good"] == pytest.approx(0.5 * 0.5 / (24 / 64)) == weights["she", "bad"]
    assert weights["she", "good"] == pytest.approx(0.5 * 0.5 / (8 / 64)) == weights["he", "bad"]
    assert {(one["group"], one["label"]): one["weight"] for one in report["weights"]} == weights
    assert report["effective"] == pytest.approx(48) and report["lines"]["dropped"] == []
    source = DataSource(path=str(output), columns={"text": "review", "label": "mood"})
    assert {one.weight for one in read(source) if isinstance(one, Labelled)} == set(weights.values())
    with pytest.raises(DataError, match=r"row_weight.*has a weight already"):
        balance(output, tmp_path / "twice.jsonl", Balancing(how="weights", protected="who", **NAMES))


def test_whom_a_text_speaks_of_is_a_group_without_a_field(data: Path, tmp_path: Path) -> None:
    report = balance(data, tmp_path / "told.jsonl", Balancing(how="weights", protected="mentions", **NAMES))
    assert {one["group"] for one in report["weights"]} == {"female", "male"}


def test_rows_that_are_not_copies_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    balance(data, tmp_path / "even.jsonl", Balancing(how="over", protected="who", **NAMES))
    assert [row for row in rows_of(tmp_path / "even.jsonl") if "made_from" not in row] == ROWS


def test_a_ratio_and_each_text_once(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    texts = [("fine indeed", "good")] * 6 + [("poor thing", "bad")] * 2 + [("", "bad")]
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts), encoding="utf-8")
    report = balance(path, tmp_path / "half.jsonl", Balancing(how="over", until=0.5))
    assert report["classes"] == [
        {"label": "bad", "before": 2, "after": 3},
        {"label": "good", "before": 6, "after": 6},
    ]
    assert report["lines"]["unreadable"] == [10] and report["rows"] == {"read": 9, "written": 9}
    report = balance(path, tmp_path / "once.jsonl", Balancing(how="once"))
    assert report["repeats"] == {"equal": 6} and len(rows_of(tmp_path / "once.jsonl")) == 2


def test_new_rows_stand_behind_their_own_and_stay_with_them(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "more.jsonl"
    report = augment(data, output, Augmenting(methods=("swap", "delete"), each=2, seed=3, **NAMES))
    rows = rows_of(output)
    assert len(rows) == 192 == report["rows"]["written"] and report["rows"]["made"] == 128
    assert [row for row in rows if "made_from" not in row] == ROWS
    for place, row in enumerate(rows):
        origin = ROWS[place // 3]
        if place % 3:
            assert row["made_from"]["line"] == place // 3 + 1 and row["mood"] == origin["mood"]
            assert row["review"] != origin["review"] and row["id"] != origin["id"] and row["extra"] == origin["extra"]
    source = DataSource(path=str(output), columns={"text": "review", "label": "mood"})
    examples = [each for each in read(source) if isinstance(each, Labelled)]
    assert len({each.id for each in examples}) == 192 and len({each.group for each in examples}) == 64
    train, held = split(examples, fraction=0.25, seed=0)
    assert held and {(each.line - 1) // 3 for each in train}.isdisjoint((each.line - 1) // 3 for each in held)
    augment(data, tmp_path / "again.jsonl", Augmenting(methods=("swap", "delete"), each=2, seed=3, **NAMES))
    assert (tmp_path / "again.jsonl").read_bytes() == output.read_bytes()


def test_counterfactuals_of_our_pronouns_and_a_users_names(data: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "names.tsv"
    pairs.write_text("museum\tlibrary\n", encoding="utf-8")
    wanted = Augmenting(methods=("counterfactual",), each=1, pairs=str(pairs), protected="who", **NAMES)
    report = augment(data, tmp_path / "both.jsonl", wanted)
    rows = [row for row in rows_of(tmp_path / "both.jsonl") if "made_from" in row]
    assert len(rows) == report["made"]["counterfactual"] == 64 and report["files"][0]["bytes"] == pairs.stat().st_size
    for row in rows:
        old = ROWS[row["made_from"]["line"] - 1]
        assert "who" not in row and row["mood"] == old["mood"]
        other = {"he": "she", "she": "he", "museum": "library", "library": "museum"}
        assert row["review"].split() == [other.get(word, word) for word in old["review"].split()]


def test_what_is_held_out_is_not_made(data: Path, tmp_path: Path) -> None:
    held = tmp_path / "test.jsonl"
    swapped = [{"review": row["review"].replace("she ", "HE ").upper()} for row in ROWS if row["who"] == "she"]
    held.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in swapped))
    wanted = Augmenting(methods=("counterfactual",), each=1, held_out=(str(held),), **NAMES)
    report = augment(data, tmp_path / "new.jsonl", wanted)
    assert report["made"]["counterfactual"] == 32 and report["dropped"]["counterfactual.held_out"] >= 32


def test_a_model_that_says_nothing_of_use_leaves_the_rest_to_others(tmp_path: Path) -> None:
    """A network of no training; the same seed gives the same file."""
    model = str(tiny_model(tmp_path / "model"))
    data = tmp_path / "few.jsonl"
    few = [{**row, "mood": "bad" if number < 2 else "good"} for number, row in enumerate(ROWS[:8])]
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in few))
    wanted = Augmenting(methods=("paraphrase", "swap"), until="even", model=model, **NAMES)
    report = augment(data, tmp_path / "one.jsonl", wanted)
    augment(data, tmp_path / "two.jsonl", wanted)
    assert report["made"]["swap"] >= 3 and {one["after"] for one in report["classes"]} == {6}
    assert any(name.startswith("paraphrase.") for name in report["dropped"])
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Balancing(how="weights"), ["--how weights: weights make labels independent", "--protected gender"]),
        (Balancing(how="weights", protected="who", cap=2), ["--cap: of weights there is none"]),
        (Balancing(how="over", until="independent"), ["there are none"]),
        (Balancing(how="under", until=2.0), ["--until 2", "no share"]),
        (Balancing(how="once", until="even"), ["Leave it out"]),
        (Augmenting(methods=("swop",)), ["no method swop", "swap, delete", "say how many rows"]),
        (Augmenting(methods=("synonym",), each=1), ["--lexicon", "none comes with Mingshi"]),
        (Augmenting(methods=("paraphrase",), each=1, until="even"), ["--model", "in one way"]),
        (Augmenting(methods=("swap",), each=1, lexicon="x", pairs="y", model="z"), ["--lexicon: no", "--pairs: no"]),
        (Augmenting(methods=("counterfactual",), until="even", protected="who"), ["no group can be filled"]),
        (Augmenting(methods=(), each=1), ["no method is named"]),
    ],
)
def test_what_contradicts_itself_is_refused_all_at_once(
    data: Path, tmp_path: Path, wanted: Balancing | Augmenting, words: list[str]
) -> None:
    (tmp_path / "theirs.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as refused:
        run(data, tmp_path / "theirs.jsonl", wanted)
    assert all(word in str(refused.value) for word in [*words, "no lineage beside it"])
    assert (tmp_path / "theirs.jsonl").read_text(encoding="utf-8") == "{}\n"


def run(data: Path, output: Path, wanted: Balancing | Augmenting) -> dict[str, Any]:
    return balance(data, output, wanted) if isinstance(wanted, Balancing) else augment(data, output, wanted)


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        (Balancing(how="over"), DataError, "no row is a text with a label.*--text-field"),
        (Balancing(how="over", protected="age", text="review", label="mood"), DataError, "age: is in no row"),
        (Balancing(how="over", text="review", label="extra", protected="none"), DataError, "is in no row"),
        (Augmenting(methods=("counterfactual",), each=1, text="mood", label="who"), DataError, "nothing new could be"),
        (Augmenting(methods=("synonym",), each=1, lexicon="nowhere.tsv", **NAMES), DataError, "nowhere.tsv: cannot"),
        (Augmenting(methods=("swap",), each=1, held_out=("nowhere.jsonl",), **NAMES), DataError, "no such file"),
        (Augmenting(methods=("paraphrase",), each=1, model="./nowhere", **NAMES), ModelError, "nowhere"),
    ],
)
def test_what_does_not_fit_the_file_is_said(
    data: Path, tmp_path: Path, wanted: Balancing | Augmenting, kind: type[MingshiError], words: str
) -> None:
    with pytest.raises(kind, match=f"(?s){words}"):
        run(data, tmp_path / "new.jsonl", wanted)
    assert not (tmp_path / "new.jsonl").exists() and not (tmp_path / "new.lineage.json").exists()


def test_an_output_of_ours_is_written_anew_and_no_other(data: Path, tmp_path: Path) -> None:
    wanted = Balancing(how="once", **NAMES)
    for output in (tmp_path / "rows.csv", data, tmp_path / "none" / "rows.jsonl"):
        with pytest.raises(RecipeError):
            balance(data, output, wanted)
    balance(data, tmp_path / "new.jsonl", wanted)
    balance(data, tmp_path / "new.jsonl", wanted)
