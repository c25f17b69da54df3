"""What is merged: adapters and whole models out of folders, and whether they belong together.

All must come from one base, count tokens alike and render alike. Weights are read tensor by tensor, as they are needed.

Letters: `I` inputs, `O` outputs, `r` rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mingshi.errors import ModelError, Problem
from mingshi.model.assets import resolve
from mingshi.model.load import Text, load_text, read_saved, refuse_code
from mingshi.model.merging import LowRank

HEAD = "base_model.model."  # what peft writes before the names of a network's layers
ROWS = ".token_adapter.trainable_tokens_delta"  # of new tokens; whole rows, whatever the name says
FOLD = "Fold it into its base first: mingshi merge ADAPTER FOLDER."


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One of the models that are merged."""

    folder: Path
    base: str  # as its own files call it
    text: Text
    saved: Mapping[str, Any]  # mingshi.json, or nothing
    updates: Mapping[str, LowRank] | None  # by layer; None: a whole model
    rows: Mapping[str, torch.Tensor]  # of new tokens, by layer; an adapter's
    files: Mapping[str, Path]  # by weight; of a whole model

    def task(self, name: str, base: torch.Tensor, *, turned: bool) -> torch.Tensor | None:
        """What training added to a weight, in float32; None where it added nothing.

        `turned`: the layer keeps its weight as `[I, O]`.
        """
        if self.updates is not None:
            update = self.updates.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            return None if update is None else (update.dense().T if turned else update.dense())
        with safe_open(self.files[name], framework="pt") as stored:
            trained: torch.Tensor = stored.get_tensor(name)
            return trained.float() - base

    def size(self, name: str) -> tuple[int, ...]:
        """Of a whole model's weight."""
        with safe_open(self.files[name], framework="pt") as stored:
            return tuple(stored.get_slice(name).get_shape())

    def sha256(self) -> dict[str, str]:
        return weights_sha256(self.folder)


def read_part(folder: Path, *, base: str | None = None) -> Part:
    """A folder of an adapter or a whole model; ModelError where it cannot be merged. `base`: in place of its own."""
    if not folder.is_dir():
        raise ModelError(Problem(file=str(folder), what="there is no such folder", mend="Check the path."))
    refuse_code(folder)
    saved = read_saved(folder)
    text = load_text(folder)
    if (folder / "adapter_config.json").is_file():
        told = orjson.loads((folder / "adapter_config.json").read_bytes())
        _require_plain(folder, told, saved)
        updates, rows = _updates(folder, told)
        return Part(folder, base or str(told["base_model_name_or_path"]), text, saved, updates, rows, {})
    _refuse_classifier(folder)
    name = base or str(saved.get("base", ""))
    if not name:
        what = "does not say which base it was trained from"
        raise ModelError(Problem(file=str(folder), what=what, mend="Say it with --base."))
    return Part(folder, name, text, saved, None, {}, _stored(folder))


def _refuse_classifier(folder: Path) -> None:
    path = folder / "config.json"
    told = orjson.loads(path.read_bytes()) if path.is_file() else {}
    if any("Classification" in name for name in told.get("architectures") or ()) or "network" in told:
        what = "is a classifier, whose head knows its own labels alone"
        raise ModelError(Problem(file=str(folder), what=what, mend="Train one classifier on both sets of rows."))


def _require_plain(folder: Path, told: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Only plain LoRA is a sum `W + s B A`, and only such updates can be added up."""
    problems = []
    unfit = {
        f"a {told.get('peft_type')} adapter": told.get("peft_type") != "LORA",
        "a DoRA adapter": bool(told.get("use_dora")),
        "an adapter with biases of its own": told.get("bias", "none") != "none" or bool(told.get("lora_bias")),
        "an adapter with whole layers of its own": bool(told.get("modules_to_save")),
        "an adapter with ranks or scales by layer": bool(told.get("rank_pattern") or told.get("alpha_pattern")),
        "an adapter of parameters that are no layers": bool(told.get("target_parameters")),
        "an adapter on a base in four bits": bool(saved.get("quantised")),
    }
    for what, found in unfit.items():
        if found:
            problems.append(Problem(file=str(folder), what=f"is {what}, which cannot be added to another", mend=FOLD))
    if problems:
        raise ModelError(problems)


def _updates(folder: Path, told: Mapping[str, Any]) -> tuple[dict[str, LowRank], dict[str, torch.Tensor]]:
    """By layer: updates with their scale in them, and rows of new tokens."""
    scale = told["lora_alpha"] / (math.sqrt(told["r"]) if told.get("use_rslora") else told["r"])
    try:
        tensors = {
            key.removeprefix(HEAD): value for key, value in load_file(folder / "adapter_model.safetensors").items()
        }
    except (OSError, SafetensorError) as error:
        what = f"its weights cannot be read ({type(error).__name__})"
        raise ModelError(Problem(file=str(folder), what=what, mend="Fetch or train it again.")) from None
    updates, rows, strange = {}, {}, []
    for key, value in tensors.items():
        layer, mark, _ = key.partition(".lora_A.")
        if mark:
            updates[layer] = LowRank(value.float(), tensors[f"{layer}.lora_B.weight"].float() * scale)
        elif key.endswith(ROWS):
            rows[key.removesuffix(ROWS)] = value.float()
        elif ".lora_B." not in key:
            strange.append(key)
    if strange:
        what = f"holds {strange[0]}, which is neither A nor B of a layer"
        raise ModelError(Problem(file=str(folder), what=what, mend=FOLD))
    return updates, rows


def _stored(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stored:
            found |= dict.fromkeys(stored.keys(), path)
    return found


def require_alike(parts: Sequence[Part]) -> None:
    """ModelError names every model that has another base, tokenizer, template or set of new tokens than the first."""
    first, *others = parts
    problems = []
    for part in others:
        for field, what in _differences(first, part):
            mend = "Only models of one base that read and write alike can be merged."
            problems.append(Problem(file=str(part.folder), field=field, what=what, mend=mend))
    if problems:
        raise ModelError(problems)


def _differences(first: Part, part: Part) -> Iterator[tuple[str, str]]:
    if part.base != first.base and base_sha256(part.base) != base_sha256(first.base):
        yield "base", f"comes from {part.base}, and {first.folder} from {first.base}"
    if part.text.tokenizer_sha256 != first.text.tokenizer_sha256:
        yield "tokenizer", f"has another tokenizer than {first.folder}"
    if part.text.template.fingerprint != first.text.template.fingerprint:
        yield "template", f"renders conversations otherwise than {first.folder}"
    if {layer: len(rows) for layer, rows in part.rows.items()} != {
        layer: len(rows) for layer, rows in first.rows.items()
    }:
        yield "new tokens", f"has trained rows for other tokens than {first.folder}"


def base_sha256(name: str) -> Any:
    """What a base's weights are known by: the hashes of its files, or its name on the Hub."""
    place = resolve(name)
    return weights_sha256(place) if isinstance(place, Path) else place


def weights_sha256(folder: Path) -> dict[str, str]:
    """Of each file of weights."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
