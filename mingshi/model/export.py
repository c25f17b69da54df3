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

import numpy as np
import orjson
import torch

from mingshi.data.row_problem import RowProblem
from mingshi.data.template import ChatTemplate
from mingshi.errors import ModelError, Problem
from mingshi.model import heads
from mingshi.model import pair as pairs
from mingshi.model.adapter_files import write_adapter
from mingshi.model.adapters import fold
from mingshi.model.attention import positions
from mingshi.model.encoder import NO_TEMPLATE
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
            yield turns, _tokens(template, turns)


def _tokens(template: ChatTemplate, turns: Turns) -> list[int]:
    """The prompt of a conversation; what has no turns gets the last one's text."""
    if template.name == NO_TEMPLATE:
        return list(template.plain(turns[-1][1]).tokens)
    return template.prompt(messages_of(turns))


def _written(tokens: Sequence[int]) -> bytes:
    return ",".join(map(str, tokens)).encode()


def save(model: Model, folder: Path, *, facts: Mapping[str, Any], card: str) -> Path:
    """Write the adapter where there is one and the base is as it was, else the whole model, the adapter folded in.

    The folder appears complete or not at all.
    """
    if model.changed:
        fold(model)
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    staging.mkdir(parents=True)
    try:
        _write_weights(model, staging)
        model.tokenizer.chat_template = model.template.jinja or None
        model.tokenizer.save_pretrained(staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        files = {path.name: _hash_file(path) for path in sorted(staging.iterdir())}
        saved = {
            "format": FORMAT,
            "template": model.template.name,
            "template_sha256": model.template.fingerprint,
            "stop": sorted(model.template.stop),
            "prompts": rendered_probes(model),
            "quantised": model.quantised,
            "files": files,
            **facts,
        }
        (staging / "mingshi.json").write_bytes(orjson.dumps(saved, option=orjson.OPT_INDENT_2))
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _write_weights(model: Model, folder: Path) -> None:
    if model.classes is not None:
        _write_classifier(model, folder)
        return
    if pairs.is_pair(model.network):
        pairs.save(model.network, folder)
        return
    generation = model.network.generation_config
    generation.eos_token_id = sorted(model.template.stop)
    generation.do_sample = False
    generation.temperature = generation.top_p = generation.top_k = None
    if model.adapter is not None:
        write_adapter(model, folder, base=base_name(model))
        generation.save_pretrained(folder)  # an adapter has stop tokens of its own
    else:
        model.network.save_pretrained(folder)


def _write_classifier(model: Model, folder: Path) -> None:
    """With its configuration beside an adapter too: the labels are in it."""
    if model.adapter is not None:
        write_adapter(model, folder, base=base_name(model))
        model.network.config.save_pretrained(folder)
        return
    model.network.save_pretrained(folder)
    if not heads.pools_its_own_way(model.network):
        heads.hide_from_transformers(folder)


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
        template = load_text(folder, template=NO_TEMPLATE if saved["template"] == NO_TEMPLATE else "own").template
    except ModelError as error:
        return [*checks, Check(name="template", passed=False, detail=str(error))]
    checks.extend(_prompt_check(template, proof) for proof in saved["prompts"])
    same = sorted(template.stop) == saved["stop"]
    detail = f"{sorted(template.stop)}, recorded {saved['stop']}"
    return [*checks, Check(name="stop tokens", passed=same, detail=detail)]


def _prompt_check(template: ChatTemplate, proof: Mapping[str, Any]) -> Check:
    name = f"prompt: {proof['messages'][-1][1][:40]}"
    try:
        tokens = _tokens(template, tuple((role, content) for role, content in proof["messages"]))
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
    """How the merged model's next-token distributions compare with the attached adapter's, over the probe prompts.

    Those of a classifier are over classes; a regression's numbers count as means of normal distributions of width 1.
    """

    kl: float  # nats a token or text, mean of KL(attached || merged)
    agreement: float  # share of positions with the same most likely token or class
    positions: int


@torch.no_grad()
def _distributions(model: Model) -> torch.Tensor:
    """Log-probabilities, a row for each decision; a regression's numbers as they are."""
    if model.classes is not None:
        return _classified(model, model.classes.problem)
    rows = []
    for _, prompt in _rendered(model.template):
        tokens = torch.tensor([prompt], device=model.network.device)
        rows.append(model.network(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1))
    return torch.cat(rows)


def _classified(model: Model, problem: heads.Problem) -> torch.Tensor:
    rows = []
    for _, text in _rendered(model.template):
        segments = np.array([[0, len(text), -1]], dtype=np.int32)
        tokens = torch.tensor(text, device=model.network.device)
        places = torch.from_numpy(positions(segments)).to(tokens.device)
        rows.append(heads.logits(model.network, heads.pooled(model.network, tokens, places, segments)))
    logits_PK = torch.cat(rows)
    if problem == "multi_label":  # each class is a decision of its own
        return torch.stack([logits_PK.flatten(), -logits_PK.flatten()], dim=1).sigmoid().log()
    return logits_PK.log_softmax(-1) if problem == "single_label" else logits_PK


def _proof(attached: torch.Tensor, merged: torch.Tensor) -> MergeProof:
    if attached.shape[1] == 1:
        kl, same = (attached - merged).square() / 2, (attached - merged).abs() <= 0.01
    else:
        kl, same = (attached.exp() * (attached - merged)).sum(-1), attached.argmax(-1) == merged.argmax(-1)
    return MergeProof(kl=float(kl.mean()), agreement=float(same.float().mean()), positions=len(attached))


def merge(folder: Path, output: Path, *, precision: torch.dtype = torch.bfloat16, limit: float = 0.02) -> MergeProof:
    """Fold an adapter into its base in float32, save in `precision`, read back, and compare with the adapter attached.

    ModelError where the saved model is further than `limit` nats a token from what was trained: nothing is left
    behind then.
    """
    model = load(folder, precision="float32")
    if model.adapter is None:
        raise ModelError(Problem(file=str(folder), what="holds no adapter", mend="It is a whole model already."))
    attached = _distributions(model)
    fold(model)
    model.network.to(precision)
    saved = read_saved(folder)
    facts = {key: value for key, value in saved.items() if key in ("run", "recipe", "base")} | {"kind": "merged"}
    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else ""
    save(model, output, facts=facts, card=card)
    proof = _proof(attached, _distributions(load(output, precision="float32")))
    if not proof.kl <= limit:
        shutil.rmtree(output)
        what = f"merged, the model is {proof.kl:.4f} nats a token from what was trained (limit {limit})"
        raise ModelError(what, "Merge with --precision float32, or use the adapter as it is.")
    return proof
