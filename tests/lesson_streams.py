"""Streams of tiny tasks: two that share an encoder's classes, and two that share a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

WORDS = {"good": ("quick brown", "say hello"), "bad": ("lazy dog", "春眠不觉晓")}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))


def labelled(place: Path) -> None:
    """`first` calls quick good and lazy bad; `second` speaks of other words, and calls the first one's by each other's
    name, so that what was learnt first is unlearnt."""
    first = [{"text": f"the {WORDS[name][n % 2]} {n}", "label": name} for n in range(40) for name in WORDS]
    turned = {"good": "bad", "bad": "good"}
    second = [{"text": row["text"], "label": turned[str(row["label"])]} for row in first]
    for name, rows in (("first", first), ("second", second)):
        write(place / f"{name}.jsonl", rows[:60])
        write(place / f"{name}-test.jsonl", [row | {"text": f"{row['text']}!"} for row in rows[60:]])


def source(name: str, form: str = "labelled") -> list[dict[str, Any]]:
    return [{"path": f"{name}.jsonl", "format": form}]


def classifying(base: Path, *changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Two stages over `labelled`; each of `changes` goes into its stage."""
    stages = [
        {
            "data": source(name),
            "validation": 0,
            "objective": {"kind": "classify", "labels": ["bad", "good"], "max_length": 64},
            "adapter": {"kind": "full"},
            "optim": {"learning_rate": 3e-3},
            "batch": 10,
            "epochs": 4,
            "checkpoint": 3,
        }
        | change
        for name, change in zip(("first", "second"), changes or ({}, {}), strict=True)
    ]
    tasks = [
        {"name": name, "data": source(f"{name}-test"), "evals": [{"kind": "classification"}], "stage": stage}
        for stage, name in enumerate(("first", "second"))
    ]
    return {"model": str(base), "output": "run", "precision": "float32", "stages": stages, "tasks": tasks} | fields


def answering(base: Path, *changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Two stages of conversations: `numbers` and `colours`."""
    stages = [
        {
            "data": source(name, "instruct"),
            "validation": 0,
            "adapter": {"kind": "lora", "rank": 4},
            "optim": {"learning_rate": 1e-2},
            "batch": 8,
            "epochs": 2,
            "checkpoint": 2,
        }
        | change
        for name, change in zip(("numbers", "colours"), changes or ({}, {}), strict=True)
    ]
    return {"model": str(base), "output": "run", "precision": "float32", "stages": stages} | fields


def conversations(place: Path) -> None:
    numbers = [{"instruction": f"Say the number {n}.", "output": f"The number is {n}."} for n in range(24)]
    colours = [{"instruction": f"Colour {n}?", "output": f"It is blue, {n} times over."} for n in range(24)]
    for name, rows in (("numbers", numbers), ("colours", colours)):
        write(place / f"{name}.jsonl", rows)
