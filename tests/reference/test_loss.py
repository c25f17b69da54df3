"""One optimiser step against transformers' own loss: each row alone, unpacked, eager attention, sums over one total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import FAMILIES, network, samples, work
from peft import LoraConfig, get_peft_model
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from mingshi.data.plan import micro_batches
from mingshi.loop import Work, train
from mingshi.model.adapters import Full, Lora
from mingshi.model.load import load
from mingshi.model.lora_linear import fuse
from mingshi.types import Sample, Step

LENGTHS = [40, 9, 33, 64, 21, 300, 5, 17, 28, 50, 12]  # the last window of eight holds three
BATCH = 8
SPLITS = (1, 2, 4, 8)
RELATIVE = 1e-5

Gradients = dict[str, torch.Tensor]


def budget_for(rows: Sequence[Sample], streams: int) -> int:
    """The fewest tokens a stream may have for a step of these rows to be cut into so many."""
    lengths = [len(row.tokens) for row in rows]
    budget = next(size for size in range(1, sum(lengths) + 1) if len(micro_batches(lengths, size)) <= streams)
    assert len(micro_batches(lengths, budget)) == streams
    return budget


def steps_without_updates(stage: Work) -> list[tuple[Step, Gradients]]:
    """Every step's numbers and gradients, all from the same weights."""
    held: list[Gradients] = []

    def keep(*, rate: float, norm: float) -> None:
        held.append({weight.name: weight.master.grad.clone() for weight in stage.optimiser.weights})
        stage.optimiser.clear()

    stage.optimiser.step = keep  # type: ignore[method-assign]
    return list(zip(train(stage), held, strict=True))


def labels(row: Sample) -> torch.Tensor:
    marked = np.full(len(row.tokens), -100, dtype=np.int64)
    marked[row.source + 1] = row.target
    return torch.from_numpy(marked)[None]


def reference(net: Any, rows: Sequence[Sample]) -> tuple[float, Gradients]:
    """What transformers says: `network(input_ids, labels)` of each row, summed over the step's trained tokens."""
    net.zero_grad(set_to_none=True)
    total = sum(len(row.target) for row in rows)
    loss = 0.0
    for row in rows:
        ids = torch.from_numpy(row.tokens.astype(np.int64))[None]
        part = net(input_ids=ids, labels=labels(row), num_items_in_batch=total, use_cache=False).loss
        part.backward()
        loss += float(part.detach())
    return loss, {name: one.grad for name, one in net.named_parameters() if one.grad is not None}


def compare(found: tuple[Step, Gradients], wanted: tuple[float, Gradients]) -> None:
    (step, gradients), (loss, references) = found, wanted
    assert step.loss == pytest.approx(loss, rel=RELATIVE)
    assert gradients.keys() == references.keys()
    for name, gradient in gradients.items():
        off, size = float((gradient - references[name]).norm()), float(references[name].norm())
        assert off <= RELATIVE * size, f"{name}: off by {off / size:.2e}"
    norm = torch.stack([value.norm() for value in references.values()]).norm()
    assert step.gradient_norm == pytest.approx(float(norm), rel=RELATIVE)


def lora(net: Any) -> Any:
    """peft's LoRA with both matrices away from zero, the same for the same network."""
    wrapped = get_peft_model(net, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return net


def pair(family: str, adapter: str) -> tuple[Any, Any]:
    """Ours, and the reference with the very same weights."""
    ours, theirs = network(family), network(family, implementation="eager")
    for net in (ours, theirs):
        net.requires_grad_(adapter == "full")
        if adapter == "lora":
            lora(net)
    if adapter == "lora":
        assert fuse(ours) > 0
    theirs.train()
    return ours, theirs


def check(family: str, adapter: str, splits: Sequence[int]) -> None:
    ours, theirs = pair(family, adapter)
    rows = samples(LENGTHS)
    plan = work(ours, rows, batch=BATCH).plan
    chosen = [[rows[int(index)] for index in plan.indices(step)] for step in range(plan.steps)]
    assert [len(step) for step in chosen] == [8, 3]
    wanted = [reference(theirs, step) for step in chosen]
    for streams in splits:
        budget = budget_for(chosen[0], streams)
        found = steps_without_updates(work(ours, rows, batch=BATCH, budget=budget, clip=None))
        assert [step.ids for step, _ in found] == [tuple(row.id for row in step) for step in chosen]
        for one, other in zip(found, wanted, strict=True):
            compare(one, other)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_every_split_of_a_step_has_the_loss_and_gradients_of_transformers(adapter: str) -> None:
    check("llama", adapter, SPLITS)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("llama", "gpt2")])
def test_lora_of_every_family_has_the_loss_and_gradients_of_peft(family: str) -> None:
    check(family, "lora", (2,))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama"])
def test_every_family_has_the_loss_and_gradients_of_transformers(family: str) -> None:
    check(family, "full", (2,))


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_a_loaded_model_has_the_loss_and_gradients_of_transformers(family: str, adapter: str, tmp_path: Path) -> None:
    """With all that loading does to a network for the sake of speed and memory."""
    tokenizer = tiny_tokenizer()
    network(family, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").train()
    model = load(tmp_path, precision="float32")
    assert model.packs
    if adapter == "lora":
        lora(theirs.requires_grad_(False))
        Lora(rank=4).attach(model, seed=0)
        values = dict(theirs.named_parameters())
        for name, parameter in model.network.named_parameters():
            parameter.data = values[name].detach().clone()
    else:
        Full().attach(model, seed=0)
    rows = samples(LENGTHS)[:BATCH]
    (found,) = steps_without_updates(work(model.network, rows, batch=BATCH, budget=200, clip=None))
    compare(found, reference(theirs, rows))


def test_weighted_tokens_have_the_gradients_of_a_weighted_sum() -> None:
    ours, theirs = pair("qwen2", "full")
    generator = np.random.default_rng(0)
    rows = [replace(row, weight=generator.random(len(row.weight)).astype(np.float32)) for row in samples(LENGTHS[:4])]
    (found,) = steps_without_updates(work(ours, rows, batch=4, budget=64, clip=None))
    total = sum(float(row.weight.sum(dtype=np.float64)) for row in rows)
    loss = torch.zeros(())
    for row in rows:
        logits = theirs(input_ids=torch.from_numpy(row.tokens.astype(np.int64))[None]).logits[0]
        logp = logits.log_softmax(-1)[row.source, row.target]
        loss = loss - (logp * torch.from_numpy(row.weight)).sum() / total
    loss.backward()
    compare(found, (float(loss.detach()), {name: one.grad for name, one in theirs.named_parameters()}))


def test_a_split_that_averages_averages_would_be_seen() -> None:
    """The rows are unequal enough for the classic mistake to be far outside the tolerance."""
    _, theirs = pair("llama", "full")
    rows = samples(LENGTHS)
    whole, _ = reference(theirs, rows[:BATCH])
    halves = [reference(theirs, rows[:4])[0], reference(theirs, rows[4:BATCH])[0]]
    assert abs(sum(halves) / 2 - whole) > 1e-3 * whole
