"""Networks whose attention and last layer were reshaped compute what they did, and the others are left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import FAMILIES, SHAPE, VOCABULARY, network
from transformers import AutoConfig, AutoModelForCausalLM

from mingshi.model import attention
from mingshi.model.lora_linear import fuse
from mingshi.model.streamlined import streamline

SEGMENTS = np.array([[0, 80, -1], [80, 33, -1], [113, 50, 0], [163, 70, 0], [233, 7, 2]], dtype=np.int32)
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, 240))
PLACES = torch.from_numpy(attention.positions(SEGMENTS))
WANTED = torch.tensor([3, 79, 80, 112, 150, 239])
WEIGHTS = torch.randn(len(WANTED), 32, generator=torch.Generator().manual_seed(0))
LLAMA_LIKE = ("llama", "qwen2")


def states(net: Any, wanted: torch.Tensor | None = WANTED) -> torch.Tensor:
    return attention.packed_hidden(net, TOKENS, PLACES, SEGMENTS, rows_M=wanted)


def gradients(net: Any) -> dict[str, torch.Tensor]:
    net.requires_grad_(True)
    (states(net) * WEIGHTS).sum().backward()
    return {name: one.grad for name, one in net.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_networks_made_like_llama_are_reshaped(family: str) -> None:
    assert streamline(network(family)) is (family in LLAMA_LIKE)


@pytest.mark.parametrize("family", LLAMA_LIKE)
def test_reshaped_networks_compute_and_learn_the_same(family: str) -> None:
    stock, reshaped = network(family), network(family)
    assert streamline(reshaped)
    wanted, found = states(stock), states(reshaped)
    assert found.shape == wanted.shape == (len(WANTED), 32)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states(reshaped, None), states(stock, None), rtol=1e-5, atol=1e-5)
    right, ours = gradients(stock), gradients(reshaped)
    assert set(ours) == set(right)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-4 * float(right[name].abs().max()))


def test_the_last_layer_leaves_out_what_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("llama")
    assert streamline(net)
    rows = []
    for layer in net.base_model.layers:
        layer.mlp.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    states(net)
    assert rows == [len(TOKENS), len(WANTED)]


def test_plain_calls_go_through_the_stock_forward() -> None:
    stock, reshaped = network("llama"), network("llama")
    assert streamline(reshaped)
    assert torch.equal(reshaped(input_ids=TOKENS[None]).logits, stock(input_ids=TOKENS[None]).logits)


def test_a_network_that_scales_its_residuals_is_left_alone() -> None:
    settings = AutoConfig.for_model("granite", **SHAPE, residual_multiplier=0.5)
    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_config(settings, attn_implementation=attention.NAME)
    before = states(net.eval())
    assert not streamline(net)
    assert torch.equal(states(net), before)


def test_adapters_inside_reshaped_attention_train() -> None:
    from peft import LoraConfig, get_peft_model

    net = network("llama")
    assert streamline(net)
    adapted = get_peft_model(net, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    fuse(net)
    (states(net) * WEIGHTS).sum().backward()
    names = {
        name.split(".lora_")[0].rpartition(".")[2] for name, one in adapted.named_parameters() if one.grad is not None
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
