"""Rows that name pictures: which files they may name, and what is said of those that they may not."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mingshi.checks.rows import row_of
from mingshi.checks.wording import Wording
from mingshi.data.formats import DataSource, detect, read, read_rows
from mingshi.data.images import read_picture
from mingshi.data.pictured import stamp_of
from mingshi.errors import DataError
from mingshi.provenance import fingerprint_file
from mingshi.types import Captioned, Reject


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    (place / "pictures").mkdir(parents=True)
    for name, colour in (("a", "red"), ("b", "blue"), ("pictures/c", "green")):
        Image.new("RGB", (9, 9), colour).save(place / f"{name}.png")
    Image.new("RGB", (9, 9), "black").save(tmp_path / "outside.png")
    return place


def rows_of(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> list[Any]:
    (folder / name).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return list(read(DataSource(path=str(folder / name), format="captions", on_bad_row="skip")))


def test_names_are_looked_up_beside_the_file_of_the_rows(folder: Path) -> None:
    first, second = rows_of(
        folder, {"image": "a.png", "text": " red "}, {"file_name": "pictures/c.png", "captions": ["grün", "绿", "grün"]}
    )
    assert isinstance(first, Captioned) and first.texts == ("red",) and first.id == "rows.jsonl:1"
    assert isinstance(second, Captioned) and second.texts == ("grün", "绿")
    assert os.path.samefile(second.image, folder / "pictures" / "c.png")
    assert first.group != second.group


def test_rows_of_one_picture_stay_on_one_side(folder: Path) -> None:
    rows = rows_of(folder, *({"image": "a.png", "text": f"said {number}"} for number in range(3)))
    assert len({row.group for row in rows}) == 1 and len({row.id for row in rows}) == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.png", "image_outside"),
        ("/etc/hostname", "image_outside"),
        ("link.png", "image_outside"),
        ("https://example.org/a.png", "remote_image"),
        ("s3://bucket/a.png", "remote_image"),
        ("data:image/png;base64,AAAA", "remote_image"),
        ("none.png", "missing_image"),
        ("pictures", "missing_image"),
        ("a\0.png", "missing_image"),
        ("x" * 5000, "missing_image"),
        ("  ", "missing_image"),
        (7, "wrong_type"),
        (["a.png"], "wrong_type"),
    ],
)
def test_what_a_row_may_not_name_is_a_reject(name: Any, reason: str, folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    found, good = rows_of(folder, {"image": name, "text": "x"}, {"image": "a.png", "text": "y"})
    assert isinstance(found, Reject) and found.reason == reason and found.line == 1
    assert len(found.detail) <= 240 and found.detail.endswith(".") and isinstance(good, Captioned)


@pytest.mark.parametrize("said", ["", "  ", [], ["red", ""], 7, None, {"a": 1}])
def test_a_caption_that_says_nothing_is_a_reject(said: Any, folder: Path) -> None:
    (found,) = rows_of(folder, {"image": "a.png", "caption": said})
    assert isinstance(found, Reject) and found.reason in ("empty_text", "wrong_type", "missing_field")


def test_a_table_holds_names_and_lists_as_text(folder: Path) -> None:
    path = folder / "rows.csv"
    path.write_text('file_name,captions\na.png,"[""red"", ""a red one""]"\nb.png,"[""blue""]"\n')
    first, second = read(DataSource(path=str(path)))
    assert isinstance(first, Captioned) and first.texts == ("red", "a red one")
    assert isinstance(second, Captioned) and detect(str(path))[0] == "captions"


def test_bytes_in_parquet_are_laid_down_once_as_a_file(folder: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, format="PNG")
    cells = [{"bytes": stream.getvalue(), "path": "a.png"}, {"bytes": stream.getvalue(), "path": None}]
    pq.write_table(pa.table({"image": cells, "text": ["one", "two"]}), folder / "rows.parquet")
    pq.write_table(
        pa.table({"image": [stream.getvalue(), b"not one"], "text": ["one", "two"]}), folder / "plain.parquet"
    )
    first, second = read(DataSource(path=str(folder / "rows.parquet")))
    assert isinstance(first, Captioned) and isinstance(second, Captioned)
    assert first.image == second.image and first.group == second.group
    assert read_picture(first.image)[0].size == (9, 9)
    third, bad = read(DataSource(path=str(folder / "plain.parquet"), on_bad_row="skip"))
    assert isinstance(third, Captioned) and third.image == first.image
    assert isinstance(bad, Reject) and bad.reason == "bad_image"
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 1


def test_rows_in_memory_name_files_from_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (row,) = read_rows([{"image": "pictures/c.png", "caption": "green"}])
    assert isinstance(row, Captioned) and row.texts == ("green",)


# Folders


def test_a_folder_with_a_text_beside_each_picture(folder: Path) -> None:
    (folder / "a.txt").write_text("red\n\na red one\n", encoding="utf-8")
    (folder / "pictures" / "c.caption").write_text("绿的", encoding="utf-8")
    (folder / "d.txt").write_text("of nothing")
    found = list(read(DataSource(path=str(folder), on_bad_row="skip")))
    assert [type(row).__name__ for row in found] == ["Captioned", "Reject", "Reject", "Captioned"]
    assert found[0].texts == ("red", "a red one") and found[3].texts == ("绿的",)
    assert [row.reason for row in found[1:3]] == ["missing_caption", "missing_image"]
    with pytest.raises(DataError, match="no text beside the picture 'b'"):
        list(read(DataSource(path=str(folder))))


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_folder_with_a_file_that_says_it_all(folder: Path, name: str) -> None:
    rows = {"metadata.jsonl": '{"file_name": "a.png", "text": "red"}\n', "metadata.csv": "file_name,text\na.png,red\n"}
    (folder / name).write_text(rows[name])
    (row,) = read(DataSource(path=str(folder)))
    assert isinstance(row, Captioned) and os.path.samefile(row.image, folder / "a.png")
    assert row.source == str(folder)


def test_a_folder_without_pictures_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("said")
    with pytest.raises(DataError, match="is not a file"):
        list(read(DataSource(path=str(tmp_path / "texts"))))


def test_a_changed_picture_is_another_source(folder: Path) -> None:
    rows_of(folder, {"image": "a.png", "text": "red"}, {"image": "gone.png", "text": "red"})
    sources = [DataSource(path=str(path)) for path in (folder / "rows.jsonl", folder)]
    before = [stamp_of(source) for source in sources]
    whole = fingerprint_file(folder)
    assert [stamp_of(source) for source in sources] == before
    Image.new("RGB", (10, 9), "red").save(folder / "a.png")
    assert all(stamp_of(source) != one for source, one in zip(sources, before, strict=True))
    assert fingerprint_file(folder)["sha256"] != whole["sha256"]


def test_checks_of_rows_read_the_captions() -> None:
    row = Captioned(id="1", source="f", line=1, group="1", image="a.png", texts=("a cat", "a small cat"))
    assert row_of(row, "train").text == "a cat\na small cat"
    check = Wording()
    for number in range(12):
        check.add(row_of(dataclasses.replace(row, line=number + 1), "train"))
    assert "empty" not in {finding.kind for finding in check.findings()}
