"""Which layers an adapter takes, what it refuses, and what only one of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import logits, model_of, network, staged
from pydantic import ValidationError

from mingshi.errors import ModelError
from mingshi.loop import train
from mingshi.model import export
from mingshi.model.adapter_targets import linears, resolve
from mingshi.model.adapters import ADAPTERS, AdaLora, Bias, Full, Ia3, LastLayers, Lora, fold
from mingshi.model.heads import Classes
from mingshi.model.load import Model, load


def training(model: Model) -> list[str]:
    return [name for name, one in model.network.named_parameters() if one.requires_grad]


# Targets


def test_targets_are_ends_of_paths_or_patterns() -> None:
    net = network("llama")
    every = resolve(net, "all-linear")
    assert len(every) == 14 and not any("lm_head" in path for path in every)
    assert resolve(net, ("q_proj", "mlp.up_proj")) == [one for one in every if one.endswith(("q_proj", "up_proj"))]
    assert resolve(net, ("model.layers.1.*",)) == [one for one in every if ".1." in one]
    assert resolve(net, ("*.self_attn.[qk]_proj",)) == [one for one in every if one.endswith(("q_proj", "k_proj"))]
    assert resolve(net, ("*.1.mlp.*", "*.1.mlp.up_proj")) == [one for one in every if ".1.mlp" in one]
    assert resolve(net, ("model.layers.0.mlp.up_proj",)) == ["model.layers.0.mlp.up_proj"]


@pytest.mark.parametrize("wrong", ["proj", "query", "lm_head", "layers.1", "*.mlp", "embed_tokens"])
def test_a_target_that_is_not_there_names_those_that_are(wrong: str) -> None:
    model = model_of(network("llama"))
    with pytest.raises(ModelError) as caught:
        Lora(rank=2, targets=("q_proj", wrong)).attach(model, seed=0)
    told = str(caught.value)
    assert f"adapter.targets names {wrong}, and" in told
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in told and "layers.0" in told
    assert model.adapter is None and not any("lora" in name for name, _ in model.network.named_modules())


@pytest.mark.parametrize("adapter", [Lora(rank=3, targets=("model.layers.1.*",)), Lora(rank=3, targets=("k_proj",))])
def test_only_targets_get_an_update(adapter: Lora) -> None:
    model = model_of(network("llama"))
    wanted = resolve(model.network, adapter.targets)
    adapter.attach(model, seed=0)
    assert sorted({name.split(".lora_")[0] for name in training(model)}) == sorted(wanted)


def test_the_conv1d_layers_of_gpt2_are_linear_layers() -> None:
    net = network("gpt2")
    assert {path.rpartition(".")[2] for path in linears(net)} == {"c_attn", "c_proj", "c_fc"}
    assert resolve(net, ("mlp.c_proj",)) == [f"transformer.h.{layer}.mlp.c_proj" for layer in range(2)]


@pytest.mark.parametrize(
    "adapter",
    [
        Lora(),
        Lora(dora=True),
        Lora(start="pissa"),
        Lora(targets=("mlp.c_proj",)),
        AdaLora(),
        Ia3(),
        LastLayers(),
        Bias(),
    ],
)
def test_gpt2_trains_and_is_merged(adapter: Any) -> None:
    model = model_of(network("gpt2"))
    start = logits(model)
    held = adapter.attach(model, seed=0)
    assert float((logits(model) - start).norm() / start.norm()) < 1e-5
    steps = list(train(staged(model, held)))
    assert steps[-1].loss < steps[0].loss
    end = logits(model)
    fold(model)
    assert float((logits(model) - end).norm() / end.norm()) < 1e-5


@pytest.mark.parametrize(
    ("adapter", "field"),
    [(Lora(rank=17), "adapter.rank"), (AdaLora(rank=14), "adapter.first_rank"), (Lora(rank=33), "adapter.rank")],
)
def test_a_rank_above_the_smallest_side_is_refused(adapter: Any, field: str) -> None:
    model = model_of(network("llama"))
    with pytest.raises(ModelError, match=rf"{field} is \d+, and the smallest side of model\..*k_proj is 16"):
        adapter.attach(model, seed=0)
    assert model.adapter is None
    Lora(rank=32, targets=("q_proj", "up_proj")).attach(model, seed=0)


def test_rank_stabilised_scaling_is_the_usual_one_at_rank_16() -> None:
    scales = []
    for adapter in (Lora(), Lora(rslora=True), Lora(rank=4), Lora(rank=4, rslora=True)):
        model = model_of(network("llama"))
        adapter.attach(model, seed=0)
        scales.append(model.network.model.layers[0].self_attn.q_proj.scaling["default"])
    assert scales == [2.0, 2.0, 2.0, 4.0]


def test_a_lora_of_twice_the_rank_stands_for_pissa_in_a_folder(folder: Path, tmp_path: Path) -> None:
    """Untrained, it is an update of nothing: so the base in its folder is the whole one."""
    model = load(folder, precision="float32")
    Lora(rank=3, alpha=5, start="pissa", rslora=True).attach(model, seed=0)
    saved = export.save(model, tmp_path / "saved", facts={}, card="")
    again = load(saved, precision="float32")
    layer = again.network.model.layers[0].self_attn.q_proj
    assert layer.r["default"] == 6 and layer.scaling["default"] == pytest.approx(5 / 3**0.5)
    plain = load(folder, precision="float32")
    assert torch.equal(layer.get_base_layer().weight, plain.network.model.layers[0].self_attn.q_proj.weight)
    assert float(layer.get_delta_weight("default").norm()) < 1e-6 * float(layer.get_base_layer().weight.norm())


# Weights of the network itself


def test_the_last_blocks_and_what_follows_them_train() -> None:
    tied, apart = network("llama", tie_word_embeddings=True), network("llama", tie_word_embeddings=False)
    for net, more in ((tied, []), (apart, ["lm_head.weight"])):
        model = model_of(net)
        LastLayers(blocks=1).attach(model, seed=0)
        others = [name for name in training(model) if not name.startswith("model.layers.1.")]
        assert others == ["model.norm.weight", *more]
        assert len(training(model)) == 9 + 1 + len(more) and model.changed
    gpt2 = model_of(network("gpt2"))
    LastLayers(blocks=2).attach(gpt2, seed=0)
    assert not any("wte" in name or "wpe" in name for name in training(gpt2))
    assert training(gpt2)[-2:] == ["transformer.ln_f.weight", "transformer.ln_f.bias"]


@pytest.mark.parametrize("blocks", [0, 3])
def test_more_blocks_than_there_are_is_an_error(blocks: int) -> None:
    with pytest.raises(ModelError, match=rf"adapter.blocks is {blocks}, and the model has 2 .* from 1 to 2"):
        LastLayers(blocks=blocks).attach(model_of(network("llama")), seed=0)


def test_biases_are_all_that_trains_and_a_model_without_any_says_what_else_there_is() -> None:
    model = model_of(network("qwen2"))
    Bias().attach(model, seed=0)
    assert [name.rpartition("proj.")[2] for name in training(model)] == ["bias"] * 6
    with pytest.raises(ModelError, match=r"no biases to train.*ia3.*lora.*last-layers"):
        Bias().attach(model_of(network("llama")), seed=0)


# IA3


def test_ia3_goes_where_peft_places_it_or_where_it_is_told() -> None:
    model = model_of(network("llama"))
    Ia3().attach(model, seed=0)
    assert sorted({name.split(".")[-3] for name in training(model)}) == ["down_proj", "k_proj", "v_proj"]
    other = model_of(network("llama"))
    Ia3(targets=("q_proj", "*.1.mlp.down_proj"), inputs=("*.1.mlp.down_proj",)).attach(other, seed=0)
    shapes = {
        name.split(".ia3_l")[0]: tuple(one.shape) for name, one in other.network.named_parameters() if "ia3" in name
    }
    assert shapes == {
        "model.layers.0.self_attn.q_proj": (32, 1),
        "model.layers.1.self_attn.q_proj": (32, 1),
        "model.layers.1.mlp.down_proj": (1, 48),
    }
    with pytest.raises(ValidationError, match="inputs names up_proj, and targets does not"):
        Ia3(targets=("q_proj",), inputs=("up_proj",))
    unknown = model_of(network("phi3"))
    with pytest.raises(ModelError, match=r"no standard places in a phi3.*qkv_proj"):
        Ia3().attach(unknown, seed=0)


def test_vectors_are_not_decayed() -> None:
    """A scale of one that decays towards zero would switch its layer off."""
    model = model_of(network("llama"))
    held = Ia3().attach(model, seed=0)
    optimiser = staged(model, held, weight_decay=0.5).optimiser
    for weight in optimiser.weights:
        weight.master.grad = torch.zeros_like(weight.master)
    optimiser.step(rate=0.1, norm=0.0)
    assert all(bool((weight.master == 1).all()) for weight in optimiser.weights)


# What the loop looks after


def test_a_layer_that_the_loss_does_not_reach_is_named() -> None:
    model = model_of(network("llama"))
    held = Full().attach(model, seed=0)
    model.network.unused = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="1 layers are meant to train and get no gradient: unused"):
        list(train(staged(model, held)))


def test_a_weight_that_no_optimiser_holds_is_named() -> None:
    model = model_of(network("llama"))
    held = Lora(rank=2).attach(model, seed=0)
    stage = staged(model, held)
    model.network.model.norm.weight.requires_grad_(True)
    with pytest.raises(ModelError, match=r"get no gradient: model\.norm"):
        list(train(stage))


def test_a_frozen_weight_with_a_gradient_is_named() -> None:
    model = model_of(network("llama"))
    held = Lora(rank=2).attach(model, seed=0)
    stage = staged(model, held)
    model.network.model.norm.weight.grad = torch.ones(32)
    with pytest.raises(ModelError, match=r"1 frozen weights get a gradient: model\.norm\.weight"):
        list(train(stage))


def test_a_frozen_weight_that_moves_is_named() -> None:
    model = model_of(network("llama"))
    held = Lora(rank=2).attach(model, seed=0)
    stage = staged(model, held)
    inner = stage.optimiser.step

    def step(*, rate: float, norm: float) -> None:
        inner(rate=rate, norm=norm)
        model.network.model.embed_tokens.weight.data.add_(1e-3)

    stage.optimiser.step = step  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"frozen weights were moved by the first update: model\.embed_tokens\.weight"):
        list(train(stage))


# Beside other parts


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind not in ("qlora", "bias")])
def test_a_new_head_of_classes_trains_whole_with_each(folder: Path, kind: str) -> None:
    model = load(folder, precision="float32", classes=Classes(names=("a", "b"), problem="single_label"))
    ADAPTERS[kind]().attach(model, seed=0)
    heads = [name for name in training(model) if name.startswith("score.")]
    assert len(heads) == 1 and model.network.get_parameter(heads[0]).shape == (2, 32)
    body = {name for name in training(model) if name not in heads}
    assert body and not any("score" in name for name in body)
    list(linears(model.network))
    fold(model)
    assert [name for name, _ in model.network.named_children()] == ["model", "score"]


def test_a_head_of_classes_can_train_alone(folder: Path) -> None:
    model = load(folder, precision="float32", classes=Classes(names=("a", "b"), problem="single_label"))
    LastLayers(blocks=0).attach(model, seed=0)
    assert training(model) == ["score.weight"]
