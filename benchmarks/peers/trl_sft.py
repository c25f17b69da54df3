"""TRL's SFTTrainer on rows that are already tokens: `python -m benchmarks.peers.trl_sft TASK SETTING`, both JSON.

Runs in the environment that `requirements-trl.txt` describes and prints one JSON line, an `Outcome`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-not-found]
import torch
import trl  # type: ignore[import-not-found]

from benchmarks.peers.trainer import Counted, arguments, arrange, lora, start_from, trained
from benchmarks.rows import Row, fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import Outcome, Setting, Task


def ordered(task: Task, setting: Setting) -> list[Row]:
    """The rows in the order in which the trainer takes them."""
    return arrange(read_rows(Path(task.rows)), lambda row: len(row.tokens), task, setting)


def dataset(rows: Sequence[Row]) -> Any:
    """As the trainer takes them where tokens and labels are made already."""
    return datasets.Dataset.from_dict(
        {"input_ids": [list(row.tokens) for row in rows], "labels": [row.labels() for row in rows]}
    )


def build(task: Task, setting: Setting, folder: str) -> trl.SFTTrainer:
    """The trainer, its LoRA weights set to those of the task."""
    rows = ordered(task, setting)
    trainer = trl.SFTTrainer(
        model=task.model,
        args=trl.SFTConfig(**arguments(task, setting, max(len(row.tokens) for row in rows), folder)),
        train_dataset=dataset(rows),
        peft_config=lora(task),
    )
    start_from(trainer, task)
    return trainer


def count(batch: dict[str, torch.Tensor]) -> Counted:
    """Of one micro-batch."""
    rows = []
    for tokens, labels, kept in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(kept.sum())
        rows.append((tokens[:length].tolist(), (labels[:length] != -100).tolist()))
    return Counted(
        real=int(batch["attention_mask"].sum()),
        read=int(batch["attention_mask"].sum()),
        processed=batch["input_ids"].numel(),
        trained=int((batch["labels"][:, 1:] != -100).sum()),
        rows=rows,
    )


def measure(task: Task, setting: Setting, *, make: Callable[[Task, Setting, str], Any] = build) -> Outcome:
    """Train and count what `make` builds."""
    with tempfile.TemporaryDirectory() as folder:
        outcome, _ = trained(make(task, setting, folder), task, setting, count=count, fingerprint=fingerprint)
    return outcome


if __name__ == "__main__":
    answer(measure, Task, Setting)
