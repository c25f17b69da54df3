"""transformers' `generate` on the same prompts: `python -m benchmarks.peers.transformers_generate TASK SETTING`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.peers.padded import padded
from benchmarks.rows import Row, fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import Answered, GenerateSetting, GenerateTask, resident_bytes


def answers(network: Any, rows: Sequence[Row], task: GenerateTask, setting: GenerateSetting) -> list[list[int]]:
    """Of each prompt, without the token that ended it."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].tokens) if setting.grouped else place)
    made: dict[int, list[int]] = {}
    greedy = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=task.new_tokens, eos_token_id=task.stop, pad_token_id=task.stop[0]
    )
    for start in range(0, len(rows), setting.micro_batch):
        places = order[start : start + setting.micro_batch]
        tokens_NT, kept_NT, _ = padded([rows[place] for place in places], left=True)
        written = network.generate(tokens_NT, attention_mask=kept_NT, generation_config=greedy)
        for place, tokens in zip(places, written[:, tokens_NT.shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(tokens) if token in task.stop), len(tokens))
            made[place] = tokens[:end]
    return [made[place] for place in range(len(rows))]


def run(task: GenerateTask, setting: GenerateSetting) -> Answered:
    """Answer the warm-up's prompts, and then the others, each pass timed."""
    loader: Any = transformers.AutoModelForCausalLM  # its functions carry no types
    network = loader.from_pretrained(task.model, dtype=torch.bfloat16, attn_implementation=setting.attention).eval()
    rows, first = read_rows(Path(task.rows)), task.warm_up * task.batch
    loaded, seconds, made = resident_bytes(), [], []
    for part in (rows[:first], rows[first:]):
        began = time.perf_counter()
        made.append(answers(network, part, task, setting))
        seconds.append(time.perf_counter() - began)
    return Answered(
        fingerprint=fingerprint((row.tokens, row.mask) for row in rows),
        seconds=seconds,
        real=[sum(map(len, part)) for part in made],
        answers=made[1],
        loaded_bytes=loaded,
        peak_bytes=resident_bytes("VmHWM"),
        versions={"transformers": transformers.__version__, "torch": torch.__version__},
        settings={name: str(value) for name, value in asdict(setting).items()},
    )


if __name__ == "__main__":
    answer(run, GenerateTask, GenerateSetting)
