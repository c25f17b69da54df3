"""Frozen linear layers in four bits: NF4 with its scales quantised again (Dettmers et al. 2023, QLoRA, section 3).

bitsandbytes owns the format and both conversions; the product is ours. Its own repacks a weight for inference on
some processors, and then gives no gradients: an evaluation in the middle of training would end the learning.

Letters: `T` tokens, `I` inputs, `O` outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mingshi.errors import ModelError
from mingshi.model.adapter_targets import linears
from mingshi.types import Network


def installed() -> Any:
    """bitsandbytes, or ModelError with the command that installs it."""
    try:
        import bitsandbytes
    except ImportError as error:
        what = f"four-bit layers need bitsandbytes, and it cannot be imported ({error})"
        raise ModelError(what, "Install it: pip install 'mingshi[qlora]'") from None
    return bitsandbytes


class _Linear(torch.autograd.Function):
    """`y = x W^T + b` with `W` made from its four bits in the forward and again in the backward."""

    @staticmethod
    def forward(ctx: Any, x_TI: torch.Tensor, layer: Any) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(x_TI, weight_of(layer), layer.bias)

    @staticmethod
    def backward(ctx: Any, upstream_TO: torch.Tensor) -> tuple[torch.Tensor, None]:
        return upstream_TO @ weight_of(ctx.layer), None


def _forward(layer: Any, x: torch.Tensor) -> Any:
    return _Linear.apply(x, layer)  # type: ignore[no-untyped-call]


def weight_of(layer: Any) -> torch.Tensor:
    """`[O, I]`, in the type that the layer had before it was quantised."""
    weight: torch.Tensor = installed().functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def require_linear(network: Network) -> None:
    """ModelError where a layer of the network's body cannot be kept in four bits, or nothing is there to do it."""
    installed()
    for path, layer in linears(network).items():
        if type(layer) is not torch.nn.Linear:
            what = f"{path} is a {type(layer).__name__}, and only Linear layers can be kept in four bits"
            raise ModelError(what, "Take `adapter: {kind: lora}`.")


def quantise(network: Network) -> None:
    """Keep every linear layer of the network's body in four bits, where it is; biases and all else stay."""
    require_linear(network)
    nn = installed().nn
    for path, layer in linears(network).items():
        outputs, inputs = layer.weight.shape
        dtype, device = layer.weight.dtype, layer.weight.device
        small = nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
        small.weight = nn.Params4bit(layer.weight.data, quant_type="nf4", module=small).to(device)
        small.bias = layer.bias
        small.forward = functools.partial(_forward, small)
        network.set_submodule(path, small)


def restore(network: Network) -> None:
    """Put linear layers in the place of the four-bit ones, with the weights that those computed with.

    An update beside one of them is added to it in float32 first.
    """
    for path, layer in list(network.named_modules()):
        if type(layer).__name__ != "Linear4bit":
            continue
        base = layer if isinstance(layer, torch.nn.Linear) else layer.base_layer  # peft's wrapper has the same name
        weight = weight_of(base)
        if layer is not base:
            (adapter,) = layer.active_adapters
            weight = (weight.float() + layer.get_delta_weight(adapter).float()).to(weight.dtype)
        elif path.endswith(".base_layer"):
            continue  # gone, with its wrapper
        plain = torch.nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
        plain.weight, plain.bias = torch.nn.Parameter(weight, requires_grad=False), base.bias
        network.set_submodule(path, plain)


@contextmanager
def announced(network: Network, *, quantised: bool) -> Iterator[None]:
    """peft looks at this attribute to see which kind of layer it meets; others would take it for more than that."""
    network.is_loaded_in_4bit = quantised
    try:
        yield
    finally:
        del network.is_loaded_in_4bit


def count(parameter: torch.Tensor) -> int:
    """How many numbers a weight holds, two of which share a byte where it is in four bits."""
    state = vars(parameter).get("quant_state")
    return parameter.numel() if state is None else int(state.shape.numel())
