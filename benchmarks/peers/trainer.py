"""What every trainer of the peer is given here: the task's rows, arguments and weights, a clock and a counter.

The trainers are used as their documentation shows; around them are only a clock at the end of each step and a collator
that counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import accelerate  # type: ignore[import-untyped]
import peft
import torch
import transformers
import trl  # type: ignore[import-not-found]
from safetensors.torch import load_file
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.task import Outcome, Setting, Task, resident_bytes

MEGA_BATCH = 50  # transformers sorts by length within 50 steps' rows, where a file is long enough

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was in one micro-batch."""

    real: int  # tokens that are not padding, a prompt that two answers have in common once
    read: int  # tokens that are not padding
    processed: int  # tokens with padding
    trained: int  # tokens that count in the loss
    rows: list[Any]  # for the fingerprint


class Counter:
    """The trainer's collator, and what went through it, one entry for each micro-batch."""

    def __init__(self, collator: Any, count: Callable[[dict[str, torch.Tensor]], Counted]):
        self.collator = collator
        self.count = count
        self.counted: list[Counted] = []

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.collator(examples)
        self.counted.append(self.count(batch))
        return batch

    @property
    def rows(self) -> list[Any]:
        """Of all micro-batches."""
        return [row for counted in self.counted for row in counted.rows]


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


def arrange(rows: list[Item], length: Callable[[Item], int], task: Task, setting: Setting) -> list[Item]:
    """The rows in the order in which the trainer takes them.

    Grouping is transformers' own, as `train_sampling_strategy="group_by_length"` does it on a long file: on the few
    rows of a measurement the trainer would sort within smaller groups and pad more. It is applied to the warm-up and
    to the timed rows apart, so that both sides time the same rows.
    """
    if not setting.grouped:
        return rows
    first = task.warm_up * task.batch
    return [row for part in (rows[:first], rows[first:]) if part for row in _group(part, length, task.batch)]


def _group(rows: list[Item], length: Callable[[Item], int], batch: int) -> list[Item]:
    generator = torch.Generator().manual_seed(0)
    lengths = [length(row) for row in rows]
    order = get_length_grouped_indices(lengths, batch, MEGA_BATCH, generator)  # type: ignore[no-untyped-call]
    return [rows[index] for index in order]


def arguments(task: Task, setting: Setting, longest: int, folder: str) -> dict[str, Any]:
    """What a configuration is told: the task, the setting and what writes files; the rest is left at its defaults."""
    return {
        "output_dir": folder,
        "max_steps": task.warm_up + task.steps,
        "per_device_train_batch_size": setting.micro_batch,
        "gradient_accumulation_steps": task.batch // setting.micro_batch,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": task.clip,
        "max_length": max(1024, longest),
        "train_sampling_strategy": "sequential",
        "model_init_kwargs": {"dtype": weights(task, setting), "attn_implementation": setting.attention},
        "bf16": setting.autocast,
        "gradient_checkpointing": setting.checkpointing,
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "seed": 0,
    }


def weights(task: Task, setting: Setting) -> str:
    """What the network is loaded in: small updates are lost in bfloat16, so weights that train are float32."""
    return setting.weights if task.adapter else "float32"


def lora(task: Task) -> peft.LoraConfig | None:
    """The shape of the task's adapter; None where every weight trains."""
    if not task.adapter:
        return None
    saved = json.loads((Path(task.adapter) / "adapter_config.json").read_text())
    return peft.LoraConfig(
        r=saved["r"],
        lora_alpha=saved["lora_alpha"],
        lora_dropout=saved["lora_dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def start_from(trainer: Any, task: Task) -> None:
    """Set the LoRA weights, where there are any, to those of the task. Raises ValueError if they do not fit."""
    if not task.adapter:
        return
    result: Any = peft.set_peft_model_state_dict(
        trainer.model, load_file(Path(task.adapter) / "adapter_model.safetensors")
    )
    if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
        raise ValueError("the adapter of the task does not fit the peer's modules")


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight that the optimiser moves."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def trained(
    trainer: Any,
    task: Task,
    setting: Setting,
    *,
    count: Callable[[dict[str, torch.Tensor]], Counted],
    fingerprint: Callable[[list[Any]], str],
) -> tuple[Outcome, list[dict[str, float]]]:
    """Train and count; what the trainer logged of each step comes second."""
    trainer.remove_callback(transformers.PrinterCallback)
    clock, counter = Clock(), Counter(trainer.data_collator, count)
    trainer.add_callback(clock)
    trainer.data_collator = counter
    before, loaded = trained_weights(trainer.model), resident_bytes()
    trainer.train()
    peak = resident_bytes("VmHWM")
    after = trained_weights(trainer.model)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    pieces = task.batch // setting.micro_batch
    outcome = Outcome(
        fingerprint=fingerprint(counter.rows),
        seconds=[after - before for before, after in zip(clock.times, clock.times[1:], strict=False)],
        real=fold([counted.real for counted in counter.counted], pieces),
        processed=fold([counted.processed for counted in counter.counted], pieces),
        read=fold([counted.read for counted in counter.counted], pieces),
        written=fold([counted.read for counted in counter.counted], pieces),
        trained=fold([counted.trained for counted in counter.counted], pieces),
        losses=[entry["loss"] for entry in logs],
        gradient_norms=[entry["grad_norm"] for entry in logs],
        change=max(float((after[name] - before[name]).abs().max()) for name in before),
        loaded_bytes=loaded,
        peak_bytes=peak,
        versions={module.__name__: module.__version__ for module in (trl, transformers, peft, accelerate, torch)},
        settings={name: str(value) for name, value in asdict(setting).items()},
    )
    return outcome, logs


def fold(counts: Sequence[int], pieces: int) -> list[int]:
    """Micro-batch counts summed into step counts."""
    return [sum(counts[start : start + pieces]) for start in range(0, len(counts), pieces)]
