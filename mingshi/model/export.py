"""Folders that others can load: a model or an adapter in the Hub's layout, with what it takes to prove it.

`mingshi.json` beside the weights holds the hash of every file and of prompts rendered at training time, so the folder
alone can show that it still renders the same tokens.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch

from mingshi.data.row_problem import RowProblem
from mingshi.data.template import ChatTemplate
from mingshi.errors import ModelError, Problem
from mingshi.model.load import Model, load, load_text, read_saved
from mingshi.types import Message

FORMAT = 1
Turns = tuple[tuple[str, str], ...]
PROBES: tuple[Turns, ...] = (
    (("user", "Hello. Who are you?"),),
    (("user", "用一句话介绍你自己。"),),
    (("system", "Answer in one word."), ("user", "The capital of France?")),
    (("user", "One."), ("assistant", "Two."), ("user", "And then?")),
    (("user", "<|im_end|></s><|eot_id|> is text here, not a control token."),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that `verify` looked at."""

    name: str
    passed: bool
    detail: str


def messages_of(turns: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=content) for role, content in turns)


def rendered_probes(model: Model) -> list[dict[str, Any]]:
    """The probe conversations and the hash of the prompt tokens that this model's template makes of them."""
    proofs = []
    for turns, tokens in _rendered(model.template):
        proofs.append({"messages": [list(turn) for turn in turns], "sha256": _sha256(_written(tokens))})
    return proofs


def _rendered(template: ChatTemplate) -> Iterator[tuple[Turns, list[int]]]:
    """The probes that this template has a place for, and their prompts."""
    for turns in PROBES:
        with suppress(RowProblem):
            yield turns, template.prompt(messages_of(turns))


def _written(tokens: Sequence[int]) -> bytes:
    return ",".join(map(str, tokens)).encode()


def save(model: Model, folder: Path, *, facts: Mapping[str, Any], card: str) -> Path:
    """Write the adapter where there is one, else the whole model; the folder appears complete or not at all."""
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        _write_weights(model, staging)
        model.tokenizer.chat_template = model.template.jinja
        model.tokenizer.save_pretrained(staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        files = {path.name: _hash_file(path) for path in sorted(staging.iterdir())}
        saved = {
            "format": FORMAT,
            "template": model.template.name,
            "template_sha256": model.template.fingerprint,
            "stop": sorted(model.template.stop),
            "prompts": rendered_probes(model),
            "files": files,
            **facts,
        }
        (staging / "mingshi.json").write_bytes(orjson.dumps(saved, option=orjson.OPT_INDENT_2))
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _write_weights(model: Model, folder: Path) -> None:
    generation = model.network.generation_config
    generation.eos_token_id = sorted(model.template.stop)
    generation.do_sample = False
    generation.temperature = generation.top_p = generation.top_k = None
    if model.adapter is not None:
        (settings,) = model.adapter.peft_config.values()
        settings.base_model_name_or_path = base_name(model)
        # Left to itself peft asks the Hub for the base, and writes whole embeddings where new tokens have rows.
        model.adapter.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        generation.save_pretrained(folder)  # an adapter has stop tokens of its own
    else:
        model.network.save_pretrained(folder)


def base_name(model: Model) -> str:
    """What an adapter's configuration calls its base: the name that it was asked for by, never this machine's path."""
    saved = read_saved(model.folder)
    return str(saved.get("base", model.name)) if "adapter" in saved.get("kind", "") else model.name


def _replace(staging: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}-old-{uuid.uuid4().hex}")
    if folder.exists():
        os.rename(folder, old)
    os.rename(staging, folder)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(folder: Path) -> list[Check]:
    """Is every file the one that was saved, and does the folder alone render the prompts that training saw?"""
    saved = read_saved(folder)
    if not saved:
        raise ModelError(Problem(file=str(folder), what="no mingshi.json: not saved by Mingshi", mend="Give a run."))
    checks = [_file_check(folder, name, expected) for name, expected in saved["files"].items()]
    extra = sorted({path.name for path in folder.iterdir()} - set(saved["files"]) - {"mingshi.json"})
    checks.append(Check(name="no other files", passed=not extra, detail=", ".join(extra) or "none"))
    try:
        template = load_text(folder, template="own").template
    except ModelError as error:
        return [*checks, Check(name="template", passed=False, detail=str(error))]
    checks.extend(_prompt_check(template, proof) for proof in saved["prompts"])
    same = sorted(template.stop) == saved["stop"]
    detail = f"{sorted(template.stop)}, recorded {saved['stop']}"
    return [*checks, Check(name="stop tokens", passed=same, detail=detail)]


def _prompt_check(template: ChatTemplate, proof: Mapping[str, Any]) -> Check:
    name = f"prompt: {proof['messages'][-1][1][:40]}"
    try:
        tokens = template.prompt(messages_of([tuple(turn) for turn in proof["messages"]]))
    except RowProblem as problem:
        return Check(name=name, passed=False, detail=problem.detail)
    passed = _sha256(_written(tokens)) == proof["sha256"]
    return Check(name=name, passed=passed, detail="the same tokens" if passed else "other tokens than at training time")


def _file_check(folder: Path, name: str, expected: str) -> Check:
    path = folder / name
    if not path.is_file():
        return Check(name=name, passed=False, detail="missing")
    passed = _hash_file(path) == expected
    return Check(name=name, passed=passed, detail="as saved" if passed else "changed since it was saved")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeProof:
    """How the merged model's next-token distributions compare with the attached adapter's, over the probe prompts."""

    kl: float  # nats a token, mean of KL(attached || merged)
    agreement: float  # share of positions with the same most likely token
    positions: int


@torch.no_grad()
def _distributions(model: Model) -> torch.Tensor:
    rows = []
    for _, prompt in _rendered(model.template):
        tokens = torch.tensor([prompt], device=model.network.device)
        rows.append(model.network(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1))
    return torch.cat(rows)


def merge(folder: Path, output: Path, *, precision: torch.dtype = torch.bfloat16, limit: float = 0.02) -> MergeProof:
    """Fold an adapter into its base in float32, save in `precision`, read back, and compare with the adapter attached.

    ModelError where the saved model is further than `limit` nats a token from what was trained: nothing is left
    behind then.
    """
    model = load(folder, precision="float32")
    if model.adapter is None:
        raise ModelError(Problem(file=str(folder), what="holds no adapter", mend="It is a whole model already."))
    attached = _distributions(model)
    model.network = model.adapter.merge_and_unload(safe_merge=True).to(precision)
    model.adapter = None
    saved = read_saved(folder)
    facts = {key: value for key, value in saved.items() if key in ("run", "recipe", "base")} | {"kind": "merged"}
    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else ""
    save(model, output, facts=facts, card=card)
    merged = _distributions(load(output, precision="float32"))
    proof = MergeProof(
        kl=float((attached.exp() * (attached - merged)).sum(-1).mean()),
        agreement=float((attached.argmax(-1) == merged.argmax(-1)).float().mean()),
        positions=len(attached),
    )
    if not proof.kl <= limit:
        shutil.rmtree(output)
        what = f"merged, the model is {proof.kl:.4f} nats a token from what was trained (limit {limit})"
        raise ModelError(what, "Merge with --precision float32, or use the adapter as it is.")
    return proof
