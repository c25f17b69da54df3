"""What both sides start from: rows as tokens and masks, and one set of LoRA weights.

`python -m benchmarks.prepare REQUEST` runs in this project's environment and prints one JSON line. A process of its
own, so that the driver, which waits beside every measurement, stays small.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.rows import Row, fingerprint, trained_share, write_rows
from mingshi.data.formats import DataSource, read
from mingshi.model.load import load_text
from mingshi.objectives import Sft
from mingshi.types import Reject, Sample

RANK, ALPHA = 16, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to prepare, and where."""

    model: str
    data: str
    folder: str
    count: int  # rows wanted
    longest: int = 1024  # rows with more tokens are left out, so that neither side cuts any
    seed: int = 0


def prepare(request: Request) -> dict[str, Any]:
    """Write `rows.jsonl` and the adapter; return their places and what the rows are like. Raises ValueError."""
    folder = Path(request.folder)
    folder.mkdir(parents=True, exist_ok=True)
    every = list(render(Path(request.data), request.model))
    fitting = [row for row in every if len(row.tokens) <= request.longest]
    if len(fitting) < request.count:
        raise ValueError(
            f"{request.data} has {len(fitting)} usable rows, {request.count} are needed: ask for fewer steps"
        )
    rows = random.Random(request.seed).sample(fitting, request.count)
    write_rows(folder / "rows.jsonl", rows)
    write_adapter(request.model, folder / "adapter", request.seed)
    lengths = sorted(len(row.tokens) for row in rows)
    return {
        "rows": str(folder / "rows.jsonl"),
        "adapter": str(folder / "adapter"),
        "fingerprint": fingerprint((row.tokens, row.mask) for row in rows),
        "trained_share": trained_share(rows),
        "left_out": len(every) - len(fitting),
        "lengths": [lengths[len(lengths) * tenth // 10] for tenth in range(1, 10)] + [lengths[-1]],
    }


def render(data: Path, model: str) -> Iterator[Row]:
    """Every row of a file as this project's own template and objective encode it."""
    text, objective = load_text(model), Sft(max_length=1 << 20)
    for example in read(DataSource(path=str(data))):
        sample = objective.encode(example, text) if not isinstance(example, Reject) else None
        if not isinstance(sample, Sample):
            raise ValueError(f"{data}: not every row makes one sample")
        mask = [0] * len(sample.tokens)
        for place in (sample.source + 1).tolist():
            mask[place] = 1
        yield Row(tokens=tuple(sample.tokens.tolist()), mask=tuple(mask))


def write_adapter(model: str, folder: Path, seed: int) -> None:
    """A PEFT adapter on every linear layer but the head: A drawn from the seed as PEFT draws it, B zero."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))  # type: ignore[no-untyped-call]
    settings = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(network, settings)
    weights = {name: _initial(name, weight) for name, weight in peft.get_peft_model_state_dict(adapted).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    adapted.peft_config["default"].save_pretrained(str(folder))


def _initial(name: str, like: torch.Tensor) -> torch.Tensor:
    weight = torch.zeros(like.shape, dtype=torch.float32)
    if "lora_A" in name:
        torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
    return weight


if __name__ == "__main__":
    print(json.dumps(prepare(Request(**json.loads(sys.argv[1])))))
