"""Taking labels away: no row is lost, none is in both files, and no label is left behind."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.few_labels import main


def read(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_parts_are_the_whole(tmp_path: Path) -> None:
    rows = [{"text": f"文本 {number}", "label": str(number % 3)} for number in range(40)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert main([str(file), "--share", "0.1", "--seed", "1"]) == 0
    seeds, others = read(tmp_path / "few" / "seeds.jsonl"), read(tmp_path / "few" / "unlabelled.jsonl")
    assert len(seeds) == 4 and all(row in rows for row in seeds)
    assert all(set(row) == {"text"} for row in others)
    assert sorted(row["text"] for row in (*seeds, *others)) == sorted(row["text"] for row in rows)
    assert main([str(file), "--share", "0.1", "--seed", "2", "--output", str(tmp_path / "other")]) == 0
    assert read(tmp_path / "other" / "seeds.jsonl") != seeds
