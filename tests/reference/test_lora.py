"""The LoRA linear in one operation against peft's own forward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mingshi.model.lora_linear import Frozen, _freeze, _LoraLinear, fuse


class Net(torch.nn.Module):
    def __init__(self, *, bias: bool, dtype: torch.dtype):
        torch.nn.Module.__init__(self)
        self.first = torch.nn.Linear(6, 10, bias=bias, dtype=dtype)
        self.second = torch.nn.Linear(10, 4, bias=bias, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return output


def pair(*, bias: bool = True, dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[Any, Any]:
    """A network with fused layers, and the same one as peft computes it."""
    torch.manual_seed(0)
    wrapped = get_peft_model(
        Net(bias=bias, dtype=dtype), LoraConfig(r=3, lora_alpha=5, target_modules=["first", "second"], **settings)
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs = copy.deepcopy(wrapped)
    assert fuse(wrapped) == 2
    return wrapped.train(), theirs.train()


def gradients(net: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def agree(ours: Any, theirs: Any, *, relative: float) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 7, 6, dtype=ours.base_model.model.first.weight.dtype)
    mine, other = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    outputs = []
    for net, value in ((ours, mine), (theirs, other)):
        torch.manual_seed(2)
        outputs.append(net(value))
        outputs[-1].float().square().sum().backward()
    found, wanted = gradients(ours), gradients(theirs)
    assert found.keys() == wanted.keys() and len(found) == 4
    pairs = [(outputs[0], outputs[1]), (mine.grad, other.grad), *((found[name], wanted[name]) for name in found)]
    for one, reference in pairs:
        assert one.dtype == reference.dtype
        gap = (one - reference).detach().float().norm()
        assert float(gap) <= relative * float(reference.detach().float().norm())


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_those_of_peft(bias: bool) -> None:
    agree(*pair(bias=bias), relative=1e-6)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"use_rslora": True}])
def test_variants_equal_those_of_peft(settings: dict[str, Any]) -> None:
    """What the one operation does not know goes through peft's own forward, bit for bit the same dropout included."""
    torch.manual_seed(0)
    layers = get_peft_model(
        Net(bias=True, dtype=torch.float32), LoraConfig(r=3, target_modules=["first", "second"], **settings)
    )
    for name, parameter in layers.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs = copy.deepcopy(layers)
    assert fuse(layers) == (0 if "use_dora" in settings else 2)
    torch.manual_seed(1)
    x = torch.randn(5, 6)
    outputs = []
    for net in (layers.train(), theirs.train()):
        torch.manual_seed(2)
        outputs.append(net(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-6)


def test_its_derivative_is_that_of_its_values() -> None:
    """Finite differences in float64."""
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 6).double(), torch.randn(4).double()
    inputs = [torch.randn(*shape).double().requires_grad_(True) for shape in ((5, 6), (3, 6), (4, 3))]

    def operation(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = _LoraLinear.apply(x, Frozen(weight), bias, down, up, 0.7)
        return output

    assert torch.autograd.gradcheck(operation, inputs)


def test_a_bfloat16_base_keeps_float32_adapters_and_their_gradients() -> None:
    ours, theirs = pair(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in ours.parameters() if parameter.requires_grad} == {torch.float32}
    agree(ours, theirs, relative=2e-2)  # bfloat16 keeps 8 bits: either side rounds its own way


def test_switched_off_it_is_the_base() -> None:
    ours, theirs = pair()
    x = torch.randn(3, 6)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(ours(x), theirs(x))
    with theirs.disable_adapter():
        assert not torch.allclose(ours(x), theirs(x))


def test_an_update_that_has_not_begun_is_the_base_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products are left out only where nothing is learnt: the gradient of B is not zero."""
    ours, theirs = pair()
    for net in (ours, theirs):
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                torch.nn.init.zeros_(parameter)
    agree(ours, theirs, relative=1e-5)
    x = torch.randn(3, 6)
    monkeypatch.setattr(_LoraLinear, "apply", lambda *inputs: pytest.fail("an empty update was computed"))
    with torch.no_grad(), theirs.disable_adapter():
        assert torch.equal(ours(x), theirs(x))


def test_merged_it_is_peft_merged() -> None:
    ours, theirs = pair()
    x = torch.randn(3, 6)
    before = ours(x)
    merged, reference = ours.merge_and_unload(), theirs.merge_and_unload()
    assert torch.equal(merged(x), reference(x))
    torch.testing.assert_close(merged(x), before, rtol=1e-5, atol=1e-6)


def test_block_layouts_multiply_bit_for_bit() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(96, 64).bfloat16(), torch.randn(96).bfloat16()
    packed, plain = _freeze(weight, pack=True), Frozen(weight)
    if packed.forward is None:
        pytest.skip("this build of torch has no block layouts for bfloat16")
    for rows in (1, 5, 700):
        x, upstream = torch.randn(rows, 64).bfloat16(), torch.randn(rows, 96).bfloat16()
        assert torch.equal(packed.product(x, bias), plain.product(x, bias))
        assert torch.equal(packed.transposed_product(upstream), plain.transposed_product(upstream))


def test_layouts_are_kept_only_where_memory_allows_and_the_base_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def layouts(dtype: torch.dtype) -> list[Any]:
        ours, _ = pair(dtype=dtype)
        return [layer.forward.args[2].forward for layer in ours.modules() if hasattr(layer, "lora_A")]

    assert layouts(torch.float32) == [None, None]
    monkeypatch.setattr("mingshi.model.lora_linear.PACKED_BYTES", 0)
    assert layouts(torch.bfloat16) == [None, None]
