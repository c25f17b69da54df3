"""Adapters against peft's own: forward, gradients, penalties, learning rates, and the ranks that AdaLoRA ends with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import samples, work
from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from tiny import tiny_model
from transformers import AutoModelForCausalLM

from mingshi.loop import train
from mingshi.model.adapters import AdaLora, Ia3, Lora
from mingshi.model.load import Model, load
from mingshi.objectives import Sft
from mingshi.optim import Optim, Optimiser
from mingshi.types import Sample

PLACES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"lora_alpha": 12, "target_modules": PLACES, "task_type": "CAUSAL_LM"}
PAIRS: dict[str, tuple[Any, Any]] = {
    "lora": (Lora(rank=4, alpha=12), LoraConfig(r=4, **LORA)),
    "rslora": (Lora(rank=4, alpha=12, rslora=True), LoraConfig(r=4, use_rslora=True, **LORA)),
    "dora": (Lora(rank=4, alpha=12, dora=True), LoraConfig(r=4, use_dora=True, **LORA)),
    "adalora": (
        AdaLora(rank=2, first_rank=4, alpha=12),
        AdaLoraConfig(init_r=4, target_r=2, total_step=9, **LORA),
    ),
    "ia3": (Ia3(), IA3Config(task_type="CAUSAL_LM")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def pair(folder: Path, kind: str) -> tuple[Model, Any, Any]:
    """Our network and peft's, with the same numbers in every weight, and what ours asks of the loop."""
    ours, theirs = PAIRS[kind]
    wrapped: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), theirs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                shift = 1.0 if "ia3" in name or "magnitude" in name else 0.0
                parameter.copy_(shift + 0.1 * torch.randn(parameter.shape, generator=generator))
    model = load(folder, precision="float32")
    held = ours.attach(model, seed=0)
    state = {name.removeprefix("base_model.model."): value for name, value in wrapped.state_dict().items()}
    model.network.load_state_dict(state)
    return model, held, wrapped


def agree(one: torch.Tensor, other: torch.Tensor, *, within: float = 1e-6) -> None:
    assert float((one - other).norm()) <= within * float(other.norm())


@pytest.mark.parametrize("kind", PAIRS)
def test_the_forward_is_that_of_peft(folder: Path, kind: str) -> None:
    model, _, theirs = pair(folder, kind)
    text = torch.arange(3, 80)[None]
    plain = load(folder, precision="float32").network(input_ids=text).logits
    with torch.no_grad():
        found, wanted = model.network.eval()(input_ids=text).logits, theirs.eval()(input_ids=text).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert float((wanted - plain).norm()) > 0.02 * float(plain.norm())


def by_name(network: Any) -> dict[str, torch.Tensor]:
    found = ((name.removeprefix("base_model.model."), one.grad) for name, one in network.named_parameters())
    return {name: gradient for name, gradient in found if gradient is not None}


def labels(row: Sample) -> torch.Tensor:
    scored = torch.full((len(row.tokens),), -100)
    scored[torch.from_numpy(row.source).long() + 1] = torch.from_numpy(row.target).long()
    return scored[None]


@pytest.mark.parametrize("kind", PAIRS)
def test_packed_training_has_the_gradients_of_peft(folder: Path, kind: str) -> None:
    """Two rows in one stream against each by itself; the penalty of AdaLoRA is in peft's loss, and beside ours."""
    model, held, theirs = pair(folder, kind)
    rows = samples([30, 21])
    batch = Sft().collate(rows, "cpu")
    (Sft().loss(model.network, batch, None).sum / batch.weight).backward()
    penalty = held.penalty(model.network)
    if penalty is not None:
        penalty.backward()
    for row in rows:
        share = len(row.target) / batch.weight
        tokens = torch.from_numpy(row.tokens).long()[None]
        (theirs(input_ids=tokens, labels=labels(row)).loss * share).backward()
    found, wanted = by_name(model.network), by_name(theirs)
    assert found.keys() == wanted.keys() and found
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert (penalty is not None) == (kind == "adalora")


def test_the_rates_of_lora_plus_are_those_of_peft(folder: Path) -> None:
    model = load(folder, precision="float32")
    held = Lora(rank=4, up_rate=16).attach(model, seed=0)
    optimiser = Optimiser(model.network.named_parameters(), Optim(), rate=held.rate)
    optimiser.step(rate=1e-4, norm=0.0)
    theirs = create_loraplus_optimizer(model.adapter, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16)

    def rates(adam: Any) -> dict[int, float]:
        return {id(one): group["lr"] for group in adam.param_groups for one in group["params"]}

    assert rates(optimiser.adam) == pytest.approx(rates(theirs))
    assert set(rates(theirs).values()) == {1e-4, 16e-4}


def test_pissa_takes_the_principal_part(folder: Path) -> None:
    """What stays in the base is as small as what an exact decomposition leaves; peft's exact start is the same."""
    model = load(folder, precision="float32")
    Lora(rank=4, alpha=4, start="pissa").attach(model, seed=0)
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=4, target_modules=PLACES, init_lora_weights="pissa", task_type="CAUSAL_LM"),
    )
    layers = dict(theirs.base_model.model.named_modules())
    count = 0
    for name, ours in model.network.named_modules():
        if not name.endswith("_proj"):
            continue
        exact = layers[name]
        rest, best = (one.get_base_layer().weight.detach() for one in (ours, exact))
        assert float(rest.norm()) <= 1.01 * float(best.norm())
        update, wanted = (one.get_delta_weight("default").detach() for one in (ours, exact))
        agree(update + rest, wanted + best)
        assert float(update.norm()) == pytest.approx(float(wanted.norm()), rel=0.01)
        agree(ours.lora_A["default"].weight.detach().norm(dim=1), ours.lora_B["default"].weight.detach().norm(dim=0))
        count += 1
    assert count == 14


def test_adalora_ends_with_the_ranks_of_peft(folder: Path) -> None:
    """Twelve steps in a loop as peft's documentation has it, with its own loss, schedule and order of calls."""
    row = samples([40])[0]
    settings = AdaLora(rank=2, first_rank=4, alpha=8, begin=0.25, settle=0.25, every=2)
    model = load(folder, precision="float32")
    held = settings.attach(model, seed=0)
    theirs: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AdaLoraConfig(
            init_r=4, target_r=2, lora_alpha=8, target_modules=PLACES, task_type="CAUSAL_LM",
            total_step=12, tinit=3, tfinal=3, deltaT=2,
        ),
    )  # fmt: skip
    theirs.base_model.model.load_state_dict(model.network.state_dict())
    plain = work(model.network, [row], batch=1, steps=12, schedule="constant", warmup=0, clip=None)
    steps = list(train(replace(plain, adapter=held, peak=1e-2)))

    adam = torch.optim.AdamW([one for one in theirs.parameters() if one.requires_grad], lr=1e-2, weight_decay=0.0)
    tokens = torch.from_numpy(row.tokens).long()[None]
    losses = []
    for step in range(1, 13):
        loss = theirs(input_ids=tokens, labels=labels(row)).loss
        loss.backward()
        adam.step()
        theirs.base_model.update_and_allocate(step)
        adam.zero_grad()
        losses.append(float(loss.detach()))

    assert [step.loss + step.metrics["penalty"] for step in steps] == pytest.approx(losses, rel=1e-4)
    wanted = theirs.base_model.peft_config["default"].rank_pattern
    assert model.adapter.peft_config["default"].rank_pattern == wanted
    for name, one in model.network.named_parameters():
        if "lora_" in name:
            theirs_one = theirs.base_model.model.get_parameter(name)
            torch.testing.assert_close(one, theirs_one, rtol=1e-3, atol=1e-4, msg=name)
