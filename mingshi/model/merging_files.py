"""Models of one base, merged into a folder like one that training leaves.

Adapters merged by a weighted sum become an adapter: exactly, of the sum of their ranks, or of a chosen rank with what
that loses. All else becomes a whole model. The weights meet in float32.

Tied embeddings are one weight and are merged once. Rows that adapters trained for new tokens are averaged by weight:
they are tokens' places, and a sum of two would be nowhere near either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mingshi.errors import ModelError, Problem, RecipeError
from mingshi.model import export
from mingshi.model.adapter_files import insert
from mingshi.model.adapter_targets import new_rows, placement
from mingshi.model.adapters import fold
from mingshi.model.load import Model, Text, load, load_text
from mingshi.model.merging import LowRank, Merge, merged, nearest, side_by_side, truncated
from mingshi.model.merging_parts import HEAD, ROWS, Part, base_sha256, read_part, require_alike

TEMPLATES = ("auto", "own", "turns", "zh-instruction", "alpaca")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What came out."""

    folder: Path
    kind: str  # adapter, or merged: a whole model
    base: str
    rank: int | None  # of an adapter
    truncation: float | None  # of a chosen rank: |update - what is kept| / |update|, over all layers (Frobenius)
    weights: tuple[float, ...]


def merge_folders(
    folders: Sequence[Path],
    output: Path,
    how: Merge,
    *,
    base: str | None = None,
    precision: torch.dtype = torch.bfloat16,
) -> Merged:
    """Merge adapters or whole models of one base into a new folder.

    RecipeError where the folder is not new or the settings do not fit; ModelError where the models do not belong
    together. `precision` is what a whole model is saved in; an adapter stays float32.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise RecipeError(Problem(file=str(output), what="is there already", mend="Choose another folder."))
    output.parent.mkdir(parents=True, exist_ok=True)
    if how.weights is not None and len(how.weights) != len(folders):
        what = f"{len(how.weights)} weights for {len(folders)} models"
        raise ModelError(Problem(field="weights", what=what, mend="Give each model one."))
    parts = [read_part(folder, base=base) for folder in folders]
    require_alike(parts)
    adapters = all(part.updates is not None for part in parts)
    if how.method in ("cat", "svd") and not adapters:
        what = f"{how.method} is for adapters, and one of these is a whole model"
        raise ModelError(Problem(field="method", what=what, mend="Use average, arithmetic, ties or dare."))
    if how.rank is not None and not adapters:
        what = "the update of a whole model is not of low rank"
        raise ModelError(Problem(field="rank", what=what, mend="Leave rank out."))
    facts = {"base": parts[0].base, "merged": _lineage(parts, how)}
    if adapters and (how.linear or how.rank is not None):
        return _as_adapter(parts, output, how, facts)
    return _as_model(parts, output, how, facts, precision)


def _lineage(parts: Sequence[Part], how: Merge) -> dict[str, Any]:
    """Which models, by the hashes of their weights, and how: what makes the merge again."""
    weights = how.factors(len(parts))
    return {
        **how.model_dump(mode="json"),
        "base_files": base_sha256(parts[0].base),
        "parts": [
            {"name": part.folder.name, "run": part.saved.get("run"), "factor": weight, "files": part.sha256()}
            for part, weight in zip(parts, weights, strict=True)
        ],
    }


def _carrier(part: Part) -> Model:
    """The base, with the tokenizer and the template of what was trained from it, and places for its new tokens."""
    name = part.base
    wanted = part.text.tokenizer_sha256
    for template in dict.fromkeys((str(part.saved.get("template", "auto")), *TEMPLATES)):
        try:
            fits = load_text(name, template=template).tokenizer_sha256 == wanted
        except ModelError:  # this template does not go with this tokenizer
            continue
        if fits:
            model = load(name, precision="float32", device="cpu", template=template)
            break
    else:
        what = f"has another tokenizer than its base {name}"
        raise ModelError(Problem(file=str(part.folder), what=what, mend="Say which base it has with --base."))
    if model.classes is not None:
        raise ModelError(f"{name} is a classifier", "Merge language models.")
    fold(model)
    model.text = Text(name, part.text.tokenizer, part.text.template, model.text.new_tokens)
    return model


# Adapters


def _as_adapter(parts: Sequence[Part], output: Path, how: Merge, facts: Mapping[str, Any]) -> Merged:
    updates, loss = _merged_updates(parts, how)
    rank = max(update.rank for update in updates.values())
    model = _carrier(parts[0])
    _attach(model, {layer: _padded(update, rank) for layer, update in updates.items()}, _mean_rows(parts, how))
    kept = {"truncation": loss, "rank": rank}
    export.save(model, output, facts={**facts, "kind": "adapter", **kept}, card=_card(parts, how, "adapter"))
    return Merged(
        folder=output,
        kind="adapter",
        base=parts[0].base,
        rank=rank,
        truncation=loss,
        weights=tuple(how.factors(len(parts))),
    )


def _merged_updates(parts: Sequence[Part], how: Merge) -> tuple[dict[str, LowRank], float | None]:
    """By layer; and what a chosen rank loses, as a share of the whole update's norm."""
    each = [part.updates or {} for part in parts]
    weights = how.factors(len(parts))
    generator = torch.Generator().manual_seed(how.seed)
    rank = how.rank
    if how.method == "svd" and rank is None:
        rank = max(update.rank for updates in each for update in updates.values())
    found, lost, whole = {}, 0.0, 0.0
    for layer in sorted({layer for updates in each for layer in updates}):
        here = [(updates[layer], weight) for updates, weight in zip(each, weights, strict=True) if layer in updates]
        if rank is None:
            found[layer] = side_by_side([update for update, _ in here], [weight for _, weight in here])
            continue
        if how.linear:
            joined = side_by_side([update for update, _ in here], [weight for _, weight in here])
            found[layer], one_lost, one_whole = truncated(joined, rank)
        else:
            shape = here[0][0].dense()
            tasks = [updates[layer].dense() if layer in updates else torch.zeros_like(shape) for updates in each]
            found[layer], one_lost, one_whole = nearest(merged(tasks, how, generator), rank)
        lost, whole = lost + one_lost, whole + one_whole
    return found, None if rank is None else (lost / whole) ** 0.5 if whole else 0.0


def _padded(update: LowRank, rank: int) -> LowRank:
    """The same update, of this rank: a layer that fewer adapters change gets zeros."""
    more = rank - update.rank
    down_rI, up_Or = update
    return LowRank(
        torch.cat([down_rI, down_rI.new_zeros(more, down_rI.shape[1])]),
        torch.cat([up_Or, up_Or.new_zeros(len(up_Or), more)], dim=1),
    )


def _mean_rows(parts: Sequence[Part], how: Merge) -> dict[str, torch.Tensor]:
    shares = how.shares(len(parts))
    return {
        layer: sum((share * part.rows[layer] for part, share in zip(parts, shares, strict=True)), torch.tensor(0.0))
        for layer in parts[0].rows
    }


def _attach(model: Model, updates: Mapping[str, LowRank], rows: Mapping[str, torch.Tensor]) -> None:
    """Put updates of one rank onto the base as an adapter; ModelError where it has no such layers."""
    from peft import LoraConfig, set_peft_model_state_dict

    layers = dict(model.network.named_modules())
    absent = [layer for layer, update in updates.items() if not _has_room(layers.get(layer), update)]
    places = new_rows(model)
    if absent or set(places) != set(rows):
        what = (
            f"has no layer {absent[0]} of this size" if absent else "has other new tokens than what was trained from it"
        )
        raise ModelError(Problem(file=model.name, what=what, mend="Is it the base of all of them?"))
    rank = next(iter(updates.values())).rank
    insert(model, LoraConfig(r=rank, lora_alpha=rank, **placement(model.network, list(updates))), places, seed=0)
    state = {f"{HEAD}{layer}.lora_A.weight": update.down_rI.contiguous() for layer, update in updates.items()}
    state |= {f"{HEAD}{layer}.lora_B.weight": update.up_Or.contiguous() for layer, update in updates.items()}
    state |= {f"{HEAD}{layer}{ROWS}": values for layer, values in rows.items()}
    told = set_peft_model_state_dict(model.adapter, state)
    assert not told.unexpected_keys, told.unexpected_keys


def _has_room(layer: Any, update: LowRank) -> bool:
    return layer is not None and sorted(layer.weight.shape) == sorted((len(update.up_Or), update.down_rI.shape[1]))


# Whole models


@torch.no_grad()
def _as_model(
    parts: Sequence[Part], output: Path, how: Merge, facts: Mapping[str, Any], precision: torch.dtype
) -> Merged:
    from transformers.pytorch_utils import Conv1D

    model = _carrier(parts[0])
    generator = torch.Generator().manual_seed(how.seed)
    turned = {f"{name}.weight" for name, layer in model.network.named_modules() if isinstance(layer, Conv1D)}
    weights = dict(model.network.named_parameters())  # tied ones once
    _require_weights(parts, model)
    for name in sorted(weights):
        base = weights[name].float()
        tasks = [part.task(name, base, turned=name in turned) for part in parts]
        if any(task is not None for task in tasks):
            full = [torch.zeros_like(base) if task is None else task for task in tasks]
            weights[name].copy_(base + merged(full, how, generator))
    _place_rows(model, _mean_rows(parts, how))
    model.changed = True
    model.network.to(precision)
    export.save(model, output, facts={**facts, "kind": "merged"}, card=_card(parts, how, "model"))
    return Merged(
        folder=output,
        kind="merged",
        base=parts[0].base,
        rank=None,
        truncation=None,
        weights=tuple(how.factors(len(parts))),
    )


def _require_weights(parts: Sequence[Part], model: Model) -> None:
    """ModelError for every whole model that has other weights than the base: untied, of another size, or foreign."""
    weights = dict(model.network.named_parameters())
    known = set(model.network.state_dict())
    problems = []
    for part in parts:
        if part.updates is not None:
            layers = dict(model.network.named_modules())
            absent = [name for name, update in part.updates.items() if not _has_room(layers.get(name), update)]
            strange: list[str] = []
        else:
            absent = [name for name in weights if name not in part.files]
            strange = [name for name in part.files if name not in known]
        for name, what in [(name, "lacks") for name in absent[:1]] + [(name, "has") for name in strange[:1]]:
            told = f"{what} {name}, and its base {model.name} {'has it' if what == 'lacks' else 'does not'}"
            problems.append(Problem(file=str(part.folder), what=told, mend="Say which base it has with --base."))
        for name in weights if part.updates is None and not absent else ():
            if (size := part.size(name)) != (wanted := tuple(weights[name].shape)):
                told = f"{name} is of size {size}, and its base's of {wanted}"
                problems.append(Problem(file=str(part.folder), what=told, mend="Say which base it has with --base."))
                break
    if problems:
        raise ModelError(problems)


def _place_rows(model: Model, rows: Mapping[str, torch.Tensor]) -> None:
    tokens = torch.tensor(model.text.new_tokens, dtype=torch.long)
    for layer, values in rows.items():
        model.network.get_submodule(layer).weight[tokens] = values


def _card(parts: Sequence[Part], how: Merge, kind: str) -> str:
    names = [
        f"* `{part.folder.name}`, times {factor:g}" for part, factor in zip(parts, how.factors(len(parts)), strict=True)
    ]
    head = ["---", f"base_model: {parts[0].base}", f"library_name: {'peft' if kind == 'adapter' else 'transformers'}"]
    head += ["pipeline_tag: text-generation", "tags: [mingshi, merge]", "---", f"# A merge by {how.method}", ""]
    tail = [
        "",
        "`mingshi.json` holds the hashes of what was merged and of every file; `mingshi verify` checks them.",
        "",
    ]
    return "\n".join([*head, f"Task vectors from `{parts[0].base}`:", "", *names, *tail])
