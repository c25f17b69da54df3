"""A LoRA linear layer as one operation.

`y = x W^T + b + s (x A^T) B^T` (Hu et al. 2021, equation 3). peft owns the parameters, their initialisation and their
file format; this owns only the arithmetic of its plain case: activations stay in the base's precision, the frozen
weight gets no gradient, and `x` is kept once for its own and the adapter's backward. Dropout, several adapters and
variants go through peft's own forward.

Letters: `T` tokens, `I` inputs, `O` outputs, `r` rank.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLayer

from mingshi.types import Network


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        down_rI: torch.Tensor,
        up_Or: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        output_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        narrow_Tr = x_TI @ down_rI.T.to(x_TI.dtype)
        output_TO.addmm_(narrow_Tr, up_Or.T.to(x_TI.dtype), alpha=scaling)
        ctx.save_for_backward(x_TI, weight_OI, down_rI, up_Or, narrow_Tr)
        ctx.scaling = scaling
        return output_TO

    @staticmethod
    def backward(ctx: Any, upstream_TO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, weight_OI, down_rI, up_Or, narrow_Tr = ctx.saved_tensors
        narrow_gradient_Tr = (upstream_TO @ up_Or.to(upstream_TO.dtype)) * ctx.scaling
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = upstream_TO @ weight_OI
            x_gradient.addmm_(narrow_gradient_Tr, down_rI.to(upstream_TO.dtype))
        down_gradient = (narrow_gradient_Tr.T @ x_TI).to(down_rI.dtype)
        up_gradient = (narrow_Tr.T @ upstream_TO).T.to(up_Or.dtype) * ctx.scaling  # faster with its few rows first
        return x_gradient, None, None, down_gradient, up_gradient, None


def _forward(layer: Any, original: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
    (adapter,) = layer.active_adapters
    plain = not (rest or named or layer.disable_adapters or layer.merged)
    dropout = layer.lora_dropout[adapter]
    if not plain or (layer.training and not isinstance(dropout, torch.nn.Identity)):
        return original(x, *rest, **named)
    base = layer.get_base_layer()
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    flat = x.reshape(-1, x.shape[-1])
    output = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        flat, base.weight, base.bias, down, up, layer.scaling[adapter]
    )
    return output.view(*x.shape[:-1], -1)


def fuse(network: Network) -> int:
    """Give every plain LoRA linear of `network` the single operation; returns how many there were."""
    count = 0
    for layer in network.modules():
        if type(layer) is not LoraLayer or type(layer.get_base_layer()) is not torch.nn.Linear:
            continue
        if len(layer.active_adapters) != 1 or layer.lora_variant or any(layer.lora_bias.values()):
            continue
        layer.forward = functools.partial(_forward, layer, layer.forward)
        count += 1
    return count
