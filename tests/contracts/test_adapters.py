"""What every adapter keeps to, over the table of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import samples, work
from tiny import tiny_model

from mingshi.errors import ModelError
from mingshi.loop import train
from mingshi.model import export
from mingshi.model.adapters import ADAPTERS, Lora, trainable
from mingshi.model.load import Model, load
from mingshi.objectives import Sft
from mingshi.types import Chat, Message

LENGTHS = [30, 12, 25, 18]
CHATS = [
    Chat(
        id=str(number),
        source="",
        line=number,
        group="",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Say a number. " * number),
            Message(role="assistant", content=f"{number} and {number + 1}"),
        ),
    )
    for number in range(1, 5)
]
TEXT = torch.arange(3, 60)[None]

Loaded = Callable[..., Model]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template: its turns are marked with tokens that it has yet to learn."""
    return tiny_model(tmp_path_factory.mktemp("bare"), template=None)


@torch.no_grad()
def logits(model: Model) -> torch.Tensor:
    model.network.eval()
    found: torch.Tensor = model.network(input_ids=TEXT).logits
    return found


def trained(model: Model, *, steps: int = 3) -> None:
    """On conversations as its own template renders them."""
    rows = [Sft().encode(chat, model.text) for chat in CHATS]
    list(train(work(model.network, rows, batch=4, steps=steps)))


def attached(place: Path, kind: str, *, seed: int = 0, **fields: Any) -> tuple[Model, Any]:
    model = load(place, precision="float32")
    adapter = ADAPTERS[kind](**fields)
    adapter.attach(model, seed=seed)
    return model, adapter


@pytest.mark.parametrize("kind", ADAPTERS)
def test_attached_it_leaves_the_function_unchanged(folder: Path, kind: str) -> None:
    before = logits(load(folder, precision="float32"))
    model, _ = attached(folder, kind)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_all_of_its_weights_get_a_gradient_and_no_others_do(folder: Path, kind: str) -> None:
    """LoRA's A gets none in the first step, where B is zero: so the second is looked at."""
    model, _ = attached(folder, kind)
    stage = work(model.network, samples(LENGTHS), batch=4, steps=2)
    steps = train(stage)
    next(steps)
    held: dict[str, torch.Tensor] = {}

    def keep(*, rate: float, norm: float) -> None:
        held.update({weight.name: weight.master.grad for weight in stage.optimiser.weights})

    stage.optimiser.step = keep  # type: ignore[method-assign]
    next(steps)
    expected = {name for name, one in model.network.named_parameters() if one.requires_grad}
    assert held.keys() == expected
    assert trainable(model.network)[0] == sum(one.numel() for one in held.values())
    assert all(bool(gradient.any()) for gradient in held.values())
    frozen = [one for one in model.network.parameters() if not one.requires_grad]
    assert all(one.grad is None for one in frozen)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_steps_change_all_of_its_weights_and_no_others(folder: Path, kind: str) -> None:
    model, _ = attached(folder, kind)
    before = {name: one.detach().clone() for name, one in model.network.named_parameters()}
    trained(model)
    for name, one in model.network.named_parameters():
        assert torch.equal(one, before[name]) != one.requires_grad, name


@pytest.mark.parametrize("kind", ADAPTERS)
def test_merged_it_computes_the_same(folder: Path, kind: str) -> None:
    model, adapter = attached(folder, kind)
    trained(model)
    before = logits(model)
    adapter.merge(model)
    assert model.adapter is None
    assert not any("lora" in name for name, _ in model.network.named_modules())
    assert float((logits(model) - before).norm() / before.norm()) < 1e-5


@pytest.mark.parametrize("place", ["folder", "bare"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_saved_and_loaded_it_is_bit_for_bit_the_same(place: str, kind: str, tmp_path: Path, request: Any) -> None:
    model, _ = attached(request.getfixturevalue(place), kind)
    untrained = logits(model)
    trained(model)
    saved = export.save(model, tmp_path / "saved", facts={}, card="")
    again = load(saved, precision="float32")
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), untrained)
    assert again.template.jinja == model.template.jinja
    assert again.template.stop == model.template.stop


@pytest.mark.parametrize("kind", ADAPTERS)
def test_another_one_attached_later_starts_from_what_was_learnt(folder: Path, kind: str, tmp_path: Path) -> None:
    """The next stage, or a model that was asked for by its adapter's folder."""
    model, _ = attached(folder, kind)
    trained(model)
    learnt = logits(model)
    saved = export.save(model, tmp_path / "saved", facts={}, card="")
    again = load(saved, precision="float32")
    Lora(rank=2).attach(again, seed=1)
    assert float((logits(again) - learnt).norm() / learnt.norm()) < 1e-5


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_seed_alone_decides_where_it_starts(folder: Path, kind: str) -> None:
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(starts))
        model, _ = attached(folder, kind, seed=seed)
        starts.append({name: one for name, one in model.network.named_parameters() if one.requires_grad})
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    same = all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])
    assert same == (kind == "full")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_its_default_rate_says_why(kind: str) -> None:
    rate, reason = ADAPTERS[kind]().default_learning_rate()
    assert 0 < rate < 1 and reason


def test_a_target_that_is_not_there_names_those_that_are(folder: Path) -> None:
    model = load(folder, precision="float32")
    with pytest.raises(ModelError) as caught:
        Lora(targets=("q_proj", "query", "lm_head")).attach(model, seed=0)
    told = str(caught.value)
    assert "query, lm_head" in told and "q_proj" not in told.split(", and")[0]
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in told
    assert not any("lora" in name for name, _ in model.network.named_modules())


def test_targets_get_an_update_and_nothing_else_does(folder: Path) -> None:
    model, _ = attached(folder, "lora", targets=("q_proj", "v_proj"))
    names = {
        name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.network.named_parameters() if "lora_" in name
    }
    assert names == {"q_proj", "v_proj"}


def untie(place: Path) -> Path:
    """The same model with a head of its own."""
    model = load(place, precision="float32")
    network = type(model.network)._from_config(
        type(model.network.config)(**model.network.config.to_dict() | {"tie_word_embeddings": False})
    )
    network.save_pretrained(place)
    return place


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_train_with_lora_and_survive_a_reload(tmp_path: Path, tied: bool) -> None:
    base = tiny_model(tmp_path / "base", template=None)
    if not tied:
        untie(base)
    model, _ = attached(base, "lora", rank=4)
    new = list(model.text.new_tokens)
    assert len(new) == 4 and set(new) <= set(model.tokenizer.all_special_ids)
    rows = model.network.get_input_embeddings().weight.shape[0]
    assert rows == len(model.tokenizer) == load(base, precision="float32").network.config.vocab_size

    before = [layer.weight.detach().clone() for layer in heads(model)]
    trained(model)
    others = [row for row in range(rows) if row not in new]
    for layer, start in zip(heads(model), before, strict=True):
        assert torch.equal(layer.weight[others], start[others])
        assert not bool((layer.weight[new] == start[new]).all(-1).any())
    assert torch.equal(heads(model)[0].weight, heads(model)[1].weight) == tied

    saved = export.save(model, tmp_path / "saved", facts={}, card="")
    again = load(saved, precision="float32")
    assert again.template.name == "own" and again.text.new_tokens == ()
    ask = (Message(role="user", content="Hello?"),)
    assert again.template.prompt(ask) == model.template.prompt(ask)
    assert again.template.stop == model.template.stop
    prompt = torch.tensor([model.template.prompt(ask)])
    with torch.no_grad():
        assert torch.equal(again.network.eval()(input_ids=prompt).logits, model.network.eval()(input_ids=prompt).logits)
    assert again.network.config.tie_word_embeddings == tied


def heads(model: Model) -> list[Any]:
    return [model.network.get_input_embeddings(), model.network.get_output_embeddings()]


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_cost_their_own_rows_and_no_more(tmp_path: Path, tied: bool) -> None:
    from safetensors.torch import load_file

    base = tiny_model(tmp_path / "base", template=None)
    if not tied:
        untie(base)
    tensors = {}
    for template in ("turns", "zh-instruction"):
        model = load(base, precision="float32", template=template)
        Lora(rank=4).attach(model, seed=0)
        saved = export.save(model, tmp_path / template, facts={}, card="")
        tensors[template] = load_file(saved / "adapter_model.safetensors")
    more = {name: tuple(one.shape) for name, one in tensors["turns"].items() if name not in tensors["zh-instruction"]}
    assert list(more.values()) == [(4, 32)] * (1 if tied else 2)
    size = sum(one.numel() for one in tensors["turns"].values())
    assert size - sum(one.numel() for one in tensors["zh-instruction"].values()) == 4 * 32 * len(more)


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_are_merged_with_the_rest(tmp_path: Path, tied: bool) -> None:
    base = tiny_model(tmp_path / "base", template=None)
    if not tied:
        untie(base)
    model, adapter = attached(base, "lora", rank=4)
    trained(model)
    ids = torch.tensor([[*model.text.new_tokens, 5, 6, 7]])
    with torch.no_grad():
        before = model.network.eval()(input_ids=ids).logits
        adapter.merge(model)
        assert float((model.network(input_ids=ids).logits - before).norm() / before.norm()) < 1e-5
    saved = export.save(model, tmp_path / "merged", facts={}, card="")
    assert torch.equal(logits(load(saved, precision="float32")), logits(model))
    if tied:
        assert heads(model)[0].weight is heads(model)[1].weight
