"""Unsloth's CPU backend on the same rows: `python -m benchmarks.peers.unsloth_sft TASK SETTING`, both JSON.

Runs in the environment that `requirements-unsloth.txt` describes. There it is TRL's SFTTrainer with a loading, a loss
in pieces and an optimiser of Unsloth's choice; it turns packing off.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import unsloth  # type: ignore[import-not-found]  # changes the others: it comes first

import trl  # type: ignore[import-not-found]  # isort: skip

from benchmarks.peers.trainer import arguments, start_from, weights
from benchmarks.peers.trl_sft import dataset, measure, ordered
from benchmarks.side import answer
from benchmarks.task import Setting, Task


def build(task: Task, setting: Setting, folder: str) -> Any:
    """The trainer, its LoRA weights set to those of the task."""
    rows = ordered(task, setting)
    longest = max(len(row.tokens) for row in rows)
    given = arguments(task, setting, longest, folder) | {"model_init_kwargs": None}
    checkpointing = "unsloth" if setting.checkpointing else False
    network, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        task.model,
        max_seq_length=given["max_length"],
        dtype=weights(task, setting),
        load_in_4bit=False,
        full_finetuning=not task.adapter,
        attn_implementation=setting.attention,
        use_gradient_checkpointing=checkpointing,
    )
    if task.adapter:
        saved = json.loads((Path(task.adapter) / "adapter_config.json").read_text())
        network = unsloth.FastLanguageModel.get_peft_model(
            network, r=saved["r"], lora_alpha=saved["lora_alpha"], use_gradient_checkpointing=checkpointing
        )
    trainer = trl.SFTTrainer(
        model=network, processing_class=tokenizer, args=trl.SFTConfig(**given), train_dataset=dataset(rows)
    )
    start_from(trainer, task)
    return trainer


if __name__ == "__main__":
    answer(partial(measure, make=build), Task, Setting)
