"""TRL's DPOTrainer on pairs that are already tokens: `python -m benchmarks.peers.trl_dpo TASK SETTING`, both JSON.

Runs in the environment that `requirements-trl.txt` describes and prints one JSON line, a `PairOutcome`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-not-found]
import torch
import trl  # type: ignore[import-not-found]

from benchmarks.pairs import pairs_fingerprint, read_pairs
from benchmarks.peers.trainer import Counted, arguments, arrange, lora, start_from, trained
from benchmarks.rows import Row
from benchmarks.side import answer
from benchmarks.task import PairOutcome, PairSetting, PairTask


class Tokenised(trl.DPOTrainer):  # type: ignore[misc]
    """The trainer as it is, but that it takes token ids where it takes texts, and times its own reference pass."""

    reference_seconds = 0.0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, *given: Any) -> Any:
        began = time.perf_counter()
        dataset = trl.DPOTrainer._precompute_ref_logps(self, *given)
        self.reference_seconds += time.perf_counter() - began
        return dataset


def build(task: PairTask, setting: PairSetting, folder: str) -> Tokenised:
    """The trainer, its LoRA weights set to those of the task; a reference that is computed first is computed here."""
    pairs = arrange(read_pairs(Path(task.rows)), lambda pair: pair.longest, task, setting)
    given = arguments(task, setting, max(pair.longest for pair in pairs), folder)
    trainer = Tokenised(
        model=task.model,
        args=trl.DPOConfig(**given, beta=task.beta, precompute_ref_log_probs=setting.precompute),
        train_dataset=datasets.Dataset.from_list([asdict(pair) for pair in pairs]),
        peft_config=lora(task),
    )
    start_from(trainer, task)
    return trainer


def count(batch: dict[str, torch.Tensor]) -> Counted:
    """Of one micro-batch: its first half are chosen answers, its second the rejected ones, each after its prompt."""
    kept, targets = batch["attention_mask"].bool(), batch["completion_mask"].bool()
    texts = [
        Row(tokens=tuple(tokens[real].tolist()), mask=tuple(mask[real].int().tolist()))
        for tokens, real, mask in zip(batch["input_ids"], kept, targets, strict=True)
    ]
    pairs = len(texts) // 2
    second_prompts = kept[pairs:] & ~targets[pairs:]
    return Counted(
        real=int(kept.sum()) - int(second_prompts.sum()),
        read=int(kept.sum()),
        processed=kept.numel(),
        trained=int(targets[:, 1:].sum()),
        rows=list(zip(texts[:pairs], texts[pairs:], strict=True)),
    )


def measure(task: PairTask, setting: PairSetting) -> PairOutcome:
    """Train and count."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(task, setting, folder)
        outcome, logs = trained(trainer, task, setting, count=count, fingerprint=pairs_fingerprint)
    return PairOutcome(
        **asdict(outcome),
        margins=[entry["rewards/margins"] for entry in logs],
        accuracies=[entry["rewards/accuracies"] for entry in logs],
        reference_seconds=trainer.reference_seconds,
    )


if __name__ == "__main__":
    answer(measure, PairTask, PairSetting)
