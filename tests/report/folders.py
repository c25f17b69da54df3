"""Run folders as a run would leave them, made up: done, interrupted, diverged, Chinese, hostile."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import orjson

Files = dict[str, Any]

RECIPE = {
    "model": "smollm2-135m",
    "output": "runs/docstrings",
    "seed": 0,
    "template": "auto",
    "stages": [
        {
            "data": [{"path": "data/train.jsonl", "format": "instruct"}],
            "validation": 0.05,
            "objective": {"kind": "sft"},
            "adapter": {"kind": "lora", "rank": 16, "alpha": 32.0},
            "optim": {"learning_rate": 0.0002, "schedule": "cosine", "warmup": 0.05, "clip": 1.0},
            "batch": 16,
            "epochs": 2.0,
            "evaluate": 25,
        }
    ],
    "evals": [{"kind": "perplexity"}, {"kind": "generation", "metrics": ["rouge"]}],
}
PROMPTS = [
    ("def clamp(value, low, high):\n    return max(low, min(high, value))", "Return value limited to low and high."),
    (
        "def first(iterable, default=None):\n    return next(iter(iterable), default)",
        "Return the first item of the iterable.",
    ),
    (
        "def is_dir(self):\n    return self._stat is not None and S_ISDIR(self._stat.st_mode)",
        "Whether this path is a directory.",
    ),
    ("def flatten(rows):\n    return [cell for row in rows for cell in row]", "Flatten one level of nesting."),
    (
        "def close(self):\n    self._file.close()\n    self._closed = True",
        "Close the file. May be called more than once.",
    ),
    ("def median(data):\n    data = sorted(data)\n    ...", "Return the median (middle value) of numeric data."),
    ("def unquote(string):\n    ...", "Replace %xx escapes by their single-character equivalent."),
    ("def walk(node):\n    ...", "Recursively yield all descendant nodes in the tree starting at node."),
    ("def never(shown):\n    ...", "The ninth sample."),
]
ZH_PROMPTS = [
    ("指令:把下面这句话改写成书面语。\n输入:这事儿咱们回头再说吧。\n输出:", "此事容后再议。"),
    ("指令:用一句话介绍一下北京。\n输出:", "北京是中华人民共和国的首都，也是全国的政治、文化和国际交往中心。"),
    ("指令:把“学而时习之，不亦说乎”译成白话文。\n输出:", "学了知识又按时温习，不也是很愉快的事吗？"),
]


def score(value: float, half: float, count: int, signature: str) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "count": count, "signature": signature}


def finding(kind: str, severity: str, count: int, message: str, lines: list[int]) -> dict[str, Any]:
    rows = [{"source": "data/train.jsonl", "line": line} for line in lines]
    named = {"check": "tokens", "kind": kind, "severity": severity, "count": count}
    return named | {"message": message, "rows": rows, "remedy": ""}


def steps(count: int, *, seed: int = 0, start: float = 2.45, end: float = 1.85) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    made = []
    for number in range(1, count + 1):
        progress = number / count
        rate = 2e-4 * (min(1.0, progress / 0.05) if progress < 0.05 else 0.5 * (1 + math.cos(math.pi * progress)))
        loss = end + (start - end) * math.exp(-5 * progress) + chance.gauss(0, 0.11)
        tokens = chance.randint(3100, 4500)
        made.append(
            {
                "stage": 0,
                "number": number,
                "epoch": round(2 * progress, 4),
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": 0.9 + 1.4 * math.exp(-9 * progress) + abs(chance.gauss(0, 0.15)),
                "tokens": tokens,
                "trained": int(tokens * 0.31),
                "seconds": tokens / chance.uniform(440, 515),
                "ids": [f"row-{number}-{index}" for index in range(16)],
            }
        )
    return made


def evaluations(count: int, prompts: list[tuple[str, str]]) -> list[dict[str, Any]]:
    signature = "perplexity|nats_per_token|template=turns|max_length=512|precision=bf16"
    made = []
    for step in range(0, count + 1, 25):
        loss = 1.9 + 0.56 * math.exp(-5 * step / count) + 0.0009 * max(0, step - 175)
        when = "before" if step == 0 else "during"
        scores = {"nats_per_token": score(loss, 0.05, 240, signature)}
        line = {"stage": 0, "step": step, "when": when, "data": "validation", "kind": "perplexity", "scores": scores}
        seen = {"nats_per_token": score(1.62 + 0.84 * math.exp(-3 * step / count), 0.04, 240, signature)}
        made += [line, line | {"data": "train-sample", "scores": seen}]
    losses = {"before": 2.412, "after": 1.871}
    rouges = {"before": 0.118, "after": 0.312}
    for when in ("before", "after"):
        step = 0 if when == "before" else count
        shared = {"stage": 0, "step": step, "when": when, "data": "test"}
        perplexity = {
            "nats_per_token": score(losses[when], 0.07, 480, signature),
            "perplexity": score(math.exp(losses[when]), 0.8, 480, signature),
        }
        generation = {
            "rougeL": score(rouges[when], 0.021, 200, "rouge-score 0.1.2, stemmer off, greedy, 64 tokens"),
            "exact_match": score(
                0.0 if when == "before" else 0.045, 0.0 if when == "before" else 0.028, 200, "nfc, strip"
            ),
        }
        samples = [
            {
                "prompt": prompt,
                "prediction": reference if when == "after" else (prompt + "\n\n") * 2,
                "reference": reference,
                "scores": {"rougeL": 0.91 if when == "after" else 0.08},
            }
            for prompt, reference in prompts
        ]
        made.append({**shared, "kind": "perplexity", "scores": perplexity, "samples": []})
        made.append({**shared, "kind": "generation", "scores": generation, "samples": samples})
    return made


def fit(count: int = 240) -> dict[str, Any]:
    """The verdict that goes with `evaluations`."""
    changes = {
        "training_change": (-0.80, 0.05),
        "validation_change": (-0.497, 0.041),
        "validation_since_best": (0.058, 0.017),
        "validation_late": (0.041, 0.015),
        "gap": (0.284, 0.061),
        "gap_grown": (0.303, 0.063),
    }
    evidence = {name: score(value, half, 240, "") for name, (value, half) in changes.items()}
    told = {"verdict": "overfitting", "because": "rises", "since": 175, "first": 0, "last": count, "items": 240}
    return told | {"evidence": evidence}


def done(count: int = 240) -> Files:
    """A run that went well: 240 steps of LoRA on docstrings."""
    chance = random.Random(1)
    lengths = [min(512, int(chance.lognormvariate(5.2, 0.6))) for _ in range(1920)]
    run = {
        "format": 1,
        "id": "7f3c9a52e0b14c6d9a5e1f0b2c3d4e5f",
        "name": "docstrings",
        "status": "done",
        "created": "2026-03-14T09:15:02Z",
        "finished": "2026-03-14T09:48:40Z",
        "seconds": 2018.4,
        "memory": [{"stream": 4096, "estimate": {"total": 4.46e9}, "measured": 5.13e9}],
        "command": ["mingshi", "train", "recipes/docstrings.yaml", "--set", "stages.0.batch=16"],
        "recipe": RECIPE,
        "versions": {
            "mingshi": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
            "peft": "0.21.2",
        },
        "code": {"commit": "9f2c1e07c1d2a3b44c55d66e77f8899aabbccdde", "dirty": False, "sha256": "c0ffee" + "0" * 58},
        "machine": {
            "processor": "Xeon",
            "system": "Linux x86_64",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 25276514304,
        },
        "seed": 0,
        "model": {
            "name": "smollm2-135m",
            "parameters": 139_400_000,
            "trainable": 4_884_480,
            "template": "turns",
            "precision": "bfloat16",
            "files": {"model.safetensors": "ab" * 32, "config.json": "cd" * 32, "tokenizer.json": "ef" * 32},
        },
        "fit": [fit(count)],
        "summary": {
            "stages": [{"best_step": 175, "steps": count, "stopped_early": False}],
            "differences": {
                "perplexity.nats_per_token": {
                    "value": -0.541,
                    "low": -0.602,
                    "high": -0.483,
                    "count": 480,
                    "signature": "",
                },
                "perplexity.perplexity": {"value": -4.66, "low": -5.31, "high": -4.02, "count": 480, "signature": ""},
                "generation.rougeL": {"value": 0.194, "low": 0.17, "high": 0.219, "count": 200, "signature": ""},
                "generation.exact_match": {"value": 0.045, "low": 0.02, "high": 0.075, "count": 200, "signature": ""},
            },
        },
    }
    data = {
        "sources": [
            {
                "role": "train",
                "path": "data/train.jsonl",
                "sha256": "12" * 32,
                "bytes": 2_431_871,
                "format": "instruct",
                "rows": 2041,
                "used": 2025,
                "rejected": {"too_long": 11, "missing_field": 4, "bad_json": 1},
                "examples": [
                    {
                        "line": 88,
                        "reason": "bad_json",
                        "detail": "Not JSON: expected a comma at column 301. Mend the line.",
                    },
                    {"line": 417, "reason": "missing_field", "detail": "There is no output. Add one, or drop the row."},
                    {"line": 902, "reason": "too_long", "detail": "1,533 tokens; the limit is 512. Raise max_length."},
                ],
            },
            {
                "role": "test",
                "path": "data/test.jsonl",
                "sha256": "34" * 32,
                "bytes": 402_112,
                "format": "instruct",
                "rows": 480,
                "used": 480,
                "rejected": {},
                "examples": [],
            },
        ],
        "stages": [
            {
                "tokens": 912_345,
                "trained": 281_220,
                "samples": 1920,
                "max_length": 512,
                "lengths": lengths,
                "cut": 11,
            }
        ],
    }
    findings = [
        finding("unknown_tokens", "note", 3, "Three rows hold characters that the tokenizer spells in bytes.", [12]),
        finding("truncated", "warning", 66, "66 of 1920 samples reach max_length 512 and may be cut.", [31, 77])
        | {"remedy": "Set max_length to 1024, or drop these rows."},
    ]
    return {
        "run.json": run,
        "data.json": data,
        "steps.jsonl": steps(count),
        "evals.jsonl": evaluations(count, PROMPTS),
        "findings.json": findings,
    }


def interrupted() -> Files:
    """Killed at step 61: nothing after it, and a last line cut short (`write` sees to that)."""
    files = done()
    files["run.json"] |= {"status": "running", "finished": None, "summary": {}}
    files["steps.jsonl"] = files["steps.jsonl"][:61]
    files["evals.jsonl"] = [e for e in files["evals.jsonl"] if e["step"] <= 61 and e["when"] != "after"]
    return files


def diverged() -> Files:
    """The loss blew up at step 40; JSON writes what is not finite as null."""
    files = done()
    files["run.json"] |= {"status": "diverged", "summary": {}}
    rows = files["steps.jsonl"][:40]
    for index in range(30, 39):
        rows[index]["loss"] *= 1.35 ** (index - 29)
        rows[index]["gradient_norm"] *= 2.6 ** (index - 29)
    rows[39] |= {"loss": None, "gradient_norm": None}
    files["steps.jsonl"] = rows
    files["evals.jsonl"] = [e for e in files["evals.jsonl"] if e["step"] <= 25 and e["when"] != "after"]
    files["findings.json"] = [finding("not_finite", "error", 1, "The gradient norm of step 40 is not finite.", [640])]
    return files


def chinese() -> Files:
    """Chinese data, two stages, and no difference that the intervals would bear."""
    files = done()
    run = files["run.json"] = copy.deepcopy(files["run.json"])
    run["name"] = "书面语改写-第二版"
    run["recipe"]["stages"].append(copy.deepcopy(run["recipe"]["stages"][0]) | {"steps": 80, "epochs": None})
    run["recipe"]["stages"][0]["data"][0]["path"] = "data/训练集.jsonl"
    run["summary"]["stages"].append({"best_step": 50, "steps": 80, "stopped_early": True})
    differences = run["summary"]["differences"]
    differences["perplexity.nats_per_token"] |= {"value": -0.012, "low": -0.041, "high": 0.019}
    differences["generation.rougeL"] |= {"value": -0.031, "low": -0.052, "high": -0.011}
    files["evals.jsonl"] = evaluations(240, ZH_PROMPTS)
    after = [entry for entry in files["evals.jsonl"] if entry["when"] == "after"]
    after[0]["scores"]["nats_per_token"] |= {"value": 2.4, "low": 2.33, "high": 2.47}
    after[1]["scores"]["rougeL"] |= {"value": 0.087, "low": 0.07, "high": 0.11}
    files["steps.jsonl"] += [step | {"stage": 1} for step in steps(80, seed=3, start=1.9, end=1.7)]
    source = files["data.json"]["sources"][0]
    source |= {"path": "data/训练集.jsonl", "rows": 2050}
    source["examples"][1]["detail"] = "没有 output 字段。请补上，或删除这一行。"
    return files


def hostile(payloads: list[str]) -> Files:
    """Every text that a run takes from outside is a payload."""
    files = done(12)
    del files["run.json"]["fit"]
    files["evals.jsonl"] = [line for line in files["evals.jsonl"] if line["data"] != "train-sample"]
    turn = iter(payloads * 400)

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        kept = ("before", "after", "during", "test", "validation", "perplexity", "generation", "warning")
        return next(turn) if isinstance(value, str) and value not in kept else value

    for name in files:
        files[name] = poisoned(files[name])
    sources = files["data.json"]["sources"]
    sources[0]["rejected"] = dict.fromkeys(payloads, 1)
    files["run.json"]["model"]["files"] = {payload: payload for payload in payloads}
    files["run.json"]["versions"] = {payload: payload for payload in payloads}
    files["run.json"]["summary"]["differences"] = {}
    texts = {"verdict": payloads[0], "because": payloads[0], "since": payloads[0]}
    evidence = {name: {"value": payloads[0], "low": payloads[0]} for name in (*fit()["evidence"], payloads[0])}
    files["run.json"]["fit"] = [fit() | {"evidence": evidence, "since": payloads[0]}, texts, *payloads]
    for entry in files["evals.jsonl"]:
        entry["scores"] |= {payload: score(0.5, 0.1, 10, payload) for payload in payloads}
    files["evals.jsonl"][-1]["samples"] = [
        {"prompt": payload, "prediction": payload, "reference": payload, "scores": {payload: 0.5}}
        for payload in payloads[:8]
    ]
    return files


def write(files: Files, folder: Path, *, torn: bool = False) -> Path:
    """Put the files into `folder`; `torn` leaves half a line at the end of the logs, as a kill may."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name.endswith(".jsonl"):
            lines = b"".join(orjson.dumps(line) + b"\n" for line in content)
            (folder / name).write_bytes(lines + (b'{"stage": 0, "num' if torn else b""))
        else:
            (folder / name).write_bytes(orjson.dumps(content))
    return folder
