"""What both sides start from: rows as tokens and masks, and one set of weights.

`python -m benchmarks.prepare REQUEST` runs in this project's environment and prints one JSON line. A process of its
own, so that the driver, which waits beside every measurement, stays small.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.encoded import texts
from benchmarks.pairs import Pair, lengthened, pairs_fingerprint, write_pairs
from benchmarks.profiles import AS_THEY_ARE, LONG_PROMPTS, cut
from benchmarks.rows import Row, fingerprint, trained_share, write_rows
from mingshi.data.formats import DataSource, read, read_rows
from mingshi.model.load import Text, load, load_text
from mingshi.model.student import first_layers, save_student
from mingshi.objectives import Dpo, Sft
from mingshi.types import Example, Objective, Reject, Sample

RANK, ALPHA = 16, 32
FULL_RATE = 2e-5  # of learning, where every weight trains

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to prepare, and where."""

    model: str
    data: str
    folder: str
    count: int  # rows wanted
    kind: Literal["sft", "dpo", "distill", "generate"] = "sft"
    longest: int = 1024  # tokens of one text: rows with more are left out, so that neither side cuts any
    seed: int = 0
    batch: int = 1  # rows of a step
    adapter: Literal["lora", "full"] = "lora"
    profile: str = AS_THEY_ARE  # of profiles.py
    layers: int = 0  # distill: those that the student has
    new_tokens: int = 0  # generate: the most of an answer


def prepare(request: Request) -> dict[str, Any]:
    """Write what both sides start from: `task` has its places, `told` what the rows are like. Raises ValueError."""
    folder = Path(request.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return {"sft": _rows, "dpo": _pairs, "distill": _taught, "generate": _prompts}[request.kind](request, folder)


def _rows(request: Request, folder: Path) -> dict[str, Any]:
    every = list(render(Path(request.data), request.model))
    if request.profile == AS_THEY_ARE:
        rows = _drawn(every, [len(row.tokens) for row in every], request)
        left_out = sum(len(row.tokens) > request.longest for row in every)
    else:
        drawn = random.Random(request.seed).sample(every, len(every))
        rows, left_out = cut(drawn, request.profile, request.count, seed=request.seed), 0
    rate = {} if request.adapter == "lora" else {"learning_rate": FULL_RATE}
    task = {"rows": str(folder / "rows.jsonl"), "adapter": _weights(request, folder), **rate}
    return {"task": task, "told": _written(rows, folder) | {"left_out": left_out}}


def _written(rows: list[Row], folder: Path) -> dict[str, Any]:
    write_rows(folder / "rows.jsonl", rows)
    return {
        "fingerprint": fingerprint((row.tokens, row.mask) for row in rows),
        "trained_share": trained_share(rows),
        "lengths": _tenths([len(row.tokens) for row in rows]),
    }


def _weights(request: Request, folder: Path) -> str:
    if request.adapter == "full":
        return ""
    write_adapter(request.model, folder / "adapter", request.seed)
    return str(folder / "adapter")


def _pairs(request: Request, folder: Path) -> dict[str, Any]:
    every = list(render_pairs(Path(request.data), request.model))
    if request.profile == LONG_PROMPTS:
        every = lengthened(every)
    pairs = _drawn(every, [pair.longest for pair in every], request)
    write_pairs(folder / "pairs.jsonl", pairs)
    told = {
        "fingerprint": pairs_fingerprint(pair.texts() for pair in pairs),
        "trained_share": sum(pair.trained for pair in pairs) / sum(pair.tokens for pair in pairs),
        "left_out": sum(pair.longest > request.longest for pair in every),
        "lengths": _tenths([pair.tokens for pair in pairs]),
        "prompt, chosen and rejected tokens": [
            round(statistics.mean(len(tokens) for tokens in column))
            for column in zip(*((pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in pairs), strict=True)
        ],
    }
    return {"task": {"rows": str(folder / "pairs.jsonl"), "adapter": _weights(request, folder)}, "told": told}


def _taught(request: Request, folder: Path) -> dict[str, Any]:
    """Rows of like length in one step, and a student: the first layers of the model, which teaches it."""
    every = list(render(Path(request.data), request.model))
    rows = sorted(_drawn(every, [len(row.tokens) for row in every], request), key=lambda row: len(row.tokens))
    steps = [rows[start : start + request.batch] for start in range(0, len(rows), request.batch)]
    random.Random(request.seed).shuffle(steps)
    student = folder / f"student-{request.layers}"
    shutil.rmtree(student, ignore_errors=True)
    whole = load(request.model)
    layers = whole.network.config.get_text_config().num_hidden_layers
    save_student(first_layers(whole, request.layers), student, of=layers, fitted=False)
    task = {"model": str(student), "teacher": request.model, "rows": str(folder / "rows.jsonl"), "adapter": ""}
    return {"task": task, "told": _written([row for step in steps for row in step], folder)}


def _prompts(request: Request, folder: Path) -> dict[str, Any]:
    """The beginnings of rows, up to their answers, and the tokens that end one."""
    text, prompts = load_text(request.model), []
    for row in render(Path(request.data), request.model):
        begin = row.mask.index(1)
        prompts.append(Row(tokens=row.tokens[:begin], mask=(0,) * begin))
    drawn = _drawn(prompts, [len(prompt.tokens) + request.new_tokens for prompt in prompts], request)
    stop = sorted(text.template.stop)
    task = {"rows": str(folder / "rows.jsonl"), "stop": stop, "new_tokens": request.new_tokens}
    return {"task": task, "told": _written(drawn, folder)}


def _drawn(every: list[Item], lengths: list[int], request: Request) -> list[Item]:
    fitting = [item for item, length in zip(every, lengths, strict=True) if length <= request.longest]
    if len(fitting) < request.count:
        raise ValueError(
            f"{request.data} has {len(fitting)} usable rows, {request.count} are needed: ask for fewer steps"
        )
    return random.Random(request.seed).sample(fitting, request.count)


def _tenths(lengths: list[int]) -> list[int]:
    ordered = sorted(lengths)
    return [ordered[len(ordered) * tenth // 10] for tenth in range(1, 10)] + [ordered[-1]]


def render(data: Path, model: str) -> Iterator[Row]:
    """Every row of a file as this project's own template and objective encode it."""
    for sample in _encoded(read(DataSource(path=str(data))), Sft(max_length=1 << 20), load_text(model)):
        yield from texts(sample)


def render_pairs(data: Path, model: str) -> Iterator[Pair]:
    """Every preference of a file likewise. Raises ValueError where an answer has tokens that are no targets.

    Where each answer is one message (LLaMA-Factory's rows), it is read as a list of one.
    """
    rows = [{name: [value] if isinstance(value, dict) else value for name, value in row.items()} for row in _raw(data)]
    columns = {"prompt": "conversations"} if "conversations" in rows[0] else {}
    examples = read_rows(rows, format="preference", name=str(data), columns=columns)
    for sample in _encoded(examples, Dpo(max_length=1 << 20), load_text(model)):
        chosen, rejected = texts(sample)
        shared = chosen.mask.index(1)
        pair = Pair(
            prompt_ids=chosen.tokens[:shared], chosen_ids=chosen.tokens[shared:], rejected_ids=rejected.tokens[shared:]
        )
        if pair.texts() != (chosen, rejected):
            raise ValueError(f"{sample.id}: an answer is not targets from its beginning to its end")
        yield pair


def _raw(data: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file, or of one of JSON lines."""
    text = data.read_text()
    rows: list[dict[str, Any]] = json.loads(text if text.startswith("[") else f"[{','.join(text.splitlines())}]")
    return rows


def _encoded(examples: Iterable[Example | Reject], objective: Objective, text: Text) -> Iterator[Sample]:
    for example in examples:
        sample = objective.encode(example, text) if isinstance(example, Example) else None
        if not isinstance(sample, Sample):
            raise ValueError(f"{example}: not every row makes one sample")
        yield sample


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
