"""TRL's SFTTrainer on rows that are already tokens: `python -m benchmarks.peers.trl_sft TASK SETTING`, both JSON.

Runs in the environment that `requirements-trl.txt` describes and prints one JSON line, an `Outcome`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets  # type: ignore[import-not-found]
import torch
import trl  # type: ignore[import-not-found]

from benchmarks.peers.trainer import Counted, answer, arguments, arrange, lora, start_from, trained
from benchmarks.rows import fingerprint, read_rows
from benchmarks.task import Outcome, Setting, Task


def build(task: Task, setting: Setting, folder: str) -> trl.SFTTrainer:
    """The trainer, its LoRA weights set to those of the task."""
    rows = arrange(read_rows(Path(task.rows)), lambda row: len(row.tokens), task, setting)
    dataset = datasets.Dataset.from_dict(
        {"input_ids": [list(row.tokens) for row in rows], "labels": [row.labels() for row in rows]}
    )
    trainer = trl.SFTTrainer(
        model=task.model,
        args=trl.SFTConfig(**arguments(task, setting, max(len(row.tokens) for row in rows), folder)),
        train_dataset=dataset,
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
        processed=batch["input_ids"].numel(),
        trained=int((batch["labels"][:, 1:] != -100).sum()),
        rows=rows,
    )


def measure(task: Task, setting: Setting) -> Outcome:
    """Train and count."""
    with tempfile.TemporaryDirectory() as folder:
        outcome, _ = trained(build(task, setting, folder), task, setting, count=count, fingerprint=fingerprint)
    return outcome


if __name__ == "__main__":
    answer(Task, Setting, measure)
