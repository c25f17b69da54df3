"""TRL's SFTTrainer on rows that are already tokens: `python -m benchmarks.peers.trl_sft TASK SETTING`, both JSON.

Runs in the environment that `requirements-trl.txt` describes and prints one JSON line, an `Outcome`. The trainer is
used as its documentation shows; around it are only a clock at the end of each step and a collator that counts.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate  # type: ignore[import-untyped]
import datasets  # type: ignore[import-not-found]
import peft
import torch
import transformers
import trl  # type: ignore[import-not-found]
from safetensors.torch import load_file
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.rows import Row, fingerprint, read_rows
from benchmarks.task import Outcome, Setting, Task, resident_bytes

MEGA_BATCH = 50  # transformers sorts by length within 50 steps' rows, where a file is long enough


class Counter:
    """The trainer's collator, and what went through it, one entry for each micro-batch."""

    def __init__(self, collator: Any):
        self.collator = collator
        self.real: list[int] = []
        self.processed: list[int] = []
        self.trained: list[int] = []
        self.rows: list[tuple[list[int], list[int]]] = []

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.collator(examples)
        self.real.append(int(batch["attention_mask"].sum()))
        self.processed.append(batch["input_ids"].numel())
        self.trained.append(int((batch["labels"][:, 1:] != -100).sum()))
        for tokens, labels, kept in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            length = int(kept.sum())
            self.rows.append((tokens[:length].tolist(), (labels[:length] != -100).tolist()))
        return batch


class Clock(transformers.TrainerCallback):
    """When training began and when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the end of a step."""
        self.times.append(time.perf_counter())


def arrange(rows: list[Row], task: Task, setting: Setting) -> list[Row]:
    """The rows in the order in which the trainer takes them.

    Grouping is transformers' own, as `train_sampling_strategy="group_by_length"` does it on a long file: on the few
    rows of a measurement the trainer would sort within smaller groups and pad more. It is applied to the warm-up and
    to the timed rows apart, so that both sides time the same rows.
    """
    if not setting.grouped:
        return rows
    first = task.warm_up * task.batch
    return [row for part in (rows[:first], rows[first:]) if part for row in _group(part, task.batch)]


def _group(rows: list[Row], batch: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    lengths = [len(row.tokens) for row in rows]
    order = get_length_grouped_indices(lengths, batch, MEGA_BATCH, generator)  # type: ignore[no-untyped-call]
    return [rows[index] for index in order]


def configuration(task: Task, setting: Setting, longest: int, folder: str) -> trl.SFTConfig:
    """SFTConfig's defaults but for the task, the setting and what writes files."""
    return trl.SFTConfig(
        output_dir=folder,
        max_steps=task.warm_up + task.steps,
        per_device_train_batch_size=setting.micro_batch,
        gradient_accumulation_steps=task.batch // setting.micro_batch,
        learning_rate=task.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=task.clip,
        max_length=max(1024, longest),
        train_sampling_strategy="sequential",
        model_init_kwargs={"dtype": setting.weights, "attn_implementation": setting.attention},
        bf16=setting.autocast,
        gradient_checkpointing=setting.checkpointing,
        use_cpu=True,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        seed=0,
    )


def build(task: Task, setting: Setting, folder: str) -> trl.SFTTrainer:
    """The trainer, its LoRA weights set to those of the task."""
    rows = arrange(read_rows(Path(task.rows)), task, setting)
    dataset = datasets.Dataset.from_dict(
        {"input_ids": [list(row.tokens) for row in rows], "labels": [row.labels() for row in rows]}
    )
    saved = json.loads((Path(task.adapter) / "adapter_config.json").read_text())
    trainer = trl.SFTTrainer(
        model=task.model,
        args=configuration(task, setting, max(len(row.tokens) for row in rows), folder),
        train_dataset=dataset,
        peft_config=peft.LoraConfig(
            r=saved["r"],
            lora_alpha=saved["lora_alpha"],
            lora_dropout=saved["lora_dropout"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    weights = load_file(Path(task.adapter) / "adapter_model.safetensors")
    result: Any = peft.set_peft_model_state_dict(trainer.model, weights)
    if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
        raise ValueError("the adapter of the task does not fit the peer's modules")
    return trainer


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight that the optimiser moves."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def measure(task: Task, setting: Setting) -> Outcome:
    """Train and count. Raises ValueError if the saved LoRA weights do not fit."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(task, setting, folder)
        trainer.remove_callback(transformers.PrinterCallback)
        clock, counter = Clock(), Counter(trainer.data_collator)
        trainer.add_callback(clock)
        trainer.data_collator = counter
        before, loaded = trained_weights(trainer.model), resident_bytes()
        trainer.train()
        peak = resident_bytes("VmHWM")
    after = trained_weights(trainer.model)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    pieces = task.batch // setting.micro_batch
    return Outcome(
        fingerprint=fingerprint(counter.rows),
        seconds=[after - before for before, after in zip(clock.times, clock.times[1:], strict=False)],
        real=fold(counter.real, pieces),
        processed=fold(counter.processed, pieces),
        trained=fold(counter.trained, pieces),
        losses=[entry["loss"] for entry in logs],
        gradient_norms=[entry["grad_norm"] for entry in logs],
        change=max(float((after[name] - before[name]).abs().max()) for name in before),
        loaded_bytes=loaded,
        peak_bytes=peak,
        versions={module.__name__: module.__version__ for module in (trl, transformers, peft, accelerate, torch)},
        settings={name: str(value) for name, value in asdict(setting).items()},
    )


def fold(counts: list[int], pieces: int) -> list[int]:
    """Micro-batch counts summed into step counts."""
    return [sum(counts[start : start + pieces]) for start in range(0, len(counts), pieces)]


def main() -> None:
    """Read the task and the setting from the command line; what the libraries print goes to standard error."""
    task, setting = Task(**json.loads(sys.argv[1])), Setting(**json.loads(sys.argv[2]))
    with contextlib.redirect_stdout(sys.stderr):
        outcome = measure(task, setting)
    print(outcome.dumps())


if __name__ == "__main__":
    main()
