"""QLoRA: four-bit layers compute with the values of bitsandbytes, take a quarter of the memory, and train."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import model_of, network, staged

from mingshi.errors import ModelError
from mingshi.loop import train
from mingshi.model.adapter_targets import linears
from mingshi.model.adapters import Qlora, trainable
from mingshi.model.load import load


def test_without_bitsandbytes_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    model = model_of(network("llama"))
    with pytest.raises(ModelError, match=r"pip install 'mingshi\[qlora\]'"):
        Qlora(rank=4).attach(model, seed=0)
    assert trainable(model.network)[1] == sum(one.numel() for one in model.network.parameters())


needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (mingshi[qlora])"
)


@needs_bitsandbytes
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_four_bit_layers_compute_with_the_values_of_bitsandbytes(folder: Path, precision: Any) -> None:
    import bitsandbytes

    from mingshi.model import nf4

    model, plain = load(folder, precision=precision), load(folder, precision=precision)
    nf4.quantise(model.network)
    layer, whole = model.network.model.layers[0].mlp.up_proj, plain.network.model.layers[0].mlp.up_proj
    packed, state = bitsandbytes.functional.quantize_4bit(whole.weight, quant_type="nf4", compress_statistics=True)
    wanted = bitsandbytes.functional.dequantize_4bit(packed, state)
    assert torch.equal(nf4.weight_of(layer), wanted) and wanted.dtype == whole.weight.dtype
    assert layer.weight.numel() == whole.weight.numel() // 2 and layer.weight.dtype == torch.uint8
    assert nf4.count(layer.weight) == whole.weight.numel()
    x = torch.randn(5, 32, dtype=wanted.dtype, requires_grad=True)
    for training in (True, False, True):  # an evaluation in between changes nothing
        layer.train(training)
        x.grad = None
        output = layer(x)
        output.float().square().sum().backward()
        assert torch.equal(output, torch.nn.functional.linear(x, wanted))
        torch.testing.assert_close(x.grad, (2 * output).to(wanted.dtype) @ wanted)
        with torch.no_grad():
            assert torch.equal(layer(x), output)
    assert float((wanted - whole.weight).norm() / whole.weight.norm()) < 0.25


@needs_bitsandbytes
def test_four_bits_are_a_quarter_of_a_bfloat16_base(folder: Path) -> None:
    model = load(folder, precision="bf16")
    before = sum(
        one.numel() * one.element_size() for name, one in linears(model.network).items() for one in [one.weight]
    )
    held = Qlora(rank=2).attach(model, seed=0)
    assert model.quantised
    after = [
        layer.weight.numel() for layer in model.network.modules() if type(layer).__module__.startswith("bitsandbytes")
    ]
    assert len(after) == 14 and sum(after) * 4 == before
    steps = list(train(staged(model, held)))
    assert steps[-1].loss < steps[0].loss


@needs_bitsandbytes
def test_gpt2_cannot_be_kept_in_four_bits() -> None:
    with pytest.raises(ModelError, match=r"Conv1D.*four bits"):
        Qlora(rank=4).attach(model_of(network("gpt2")), seed=0)
