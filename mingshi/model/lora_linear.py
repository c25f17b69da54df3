"""A LoRA linear layer as one operation.

`y = x W^T + b + s (x A^T) B^T` (Hu et al. 2021, equation 3). peft owns the parameters, their initialisation and their
file format; this owns only the arithmetic of its plain case: activations stay in the base's precision, the frozen
weight gets no gradient, and `x` is kept once for its own and the adapter's backward. Dropout, several adapters and
variants go through peft's own forward.

On the processor a frozen weight in bfloat16 is kept in the block layout that oneDNN multiplies in, once for each
direction, or it would be put into it again for every product.

Letters: `T` tokens, `I` inputs, `O` outputs, `r` rank.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from mingshi.model.adapter_library import LoraLayer
from mingshi.types import Network

PACKED_BYTES = 1 << 30  # most that the block layouts of one network may take
ROWS = 2048  # of a usual product: what the layout is chosen for


class Frozen(NamedTuple):
    """A weight `[O, I]` that does not train, and its block layouts for both products, where it has them."""

    weight_OI: torch.Tensor
    forward: torch.Tensor | None = None
    backward: torch.Tensor | None = None

    def product(self, x_TI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        """`x W^T + b`."""
        if self.forward is None or not x_TI.is_contiguous():
            return torch.nn.functional.linear(x_TI, self.weight_OI, bias_O)
        return _packed_product(x_TI, self.forward, bias_O)

    def transposed_product(self, upstream_TO: torch.Tensor) -> torch.Tensor:
        """`g W`."""
        if self.backward is None or not upstream_TO.is_contiguous():
            return upstream_TO @ self.weight_OI
        return _packed_product(upstream_TO, self.backward, None)


def _packed_product(x: torch.Tensor, layout: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
    return product


def _freeze(weight_OI: torch.Tensor, *, pack: bool) -> Frozen:
    """With block layouts only where products with them are the plain ones, bit for bit."""
    plain = Frozen(weight_OI)
    if not pack:
        return plain
    weight_OI = weight_OI.detach()
    try:
        layouts = [torch.ops.mkldnn._reorder_linear_weight(one, ROWS) for one in (weight_OI, weight_OI.T.contiguous())]
        packed = Frozen(weight_OI, *layouts)
        x_TI, upstream_TO = (torch.linspace(-1, 1, 4 * size).sin().view(4, size) for size in weight_OI.shape[::-1])
        x_TI, upstream_TO = x_TI.to(weight_OI.dtype), upstream_TO.to(weight_OI.dtype)
        same = torch.equal(packed.product(x_TI, None), plain.product(x_TI, None)) and torch.equal(
            packed.transposed_product(upstream_TO), plain.transposed_product(upstream_TO)
        )
    except (RuntimeError, AttributeError):  # torch was built without oneDNN, or has dropped these operators
        return plain
    return packed if same else plain


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TI: torch.Tensor,
        frozen: Frozen,
        bias_O: torch.Tensor | None,
        down_rI: torch.Tensor,
        up_Or: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        down_rI, scaled_Or = down_rI.to(x_TI.dtype), (up_Or * scaling).to(x_TI.dtype)
        output_TO = frozen.product(x_TI, bias_O)
        narrow_Tr = x_TI @ down_rI.T
        output_TO.addmm_(narrow_Tr, scaled_Or.T)
        ctx.save_for_backward(x_TI, down_rI, scaled_Or, narrow_Tr)
        ctx.frozen, ctx.scaling, ctx.trained_in = frozen, scaling, up_Or.dtype
        return output_TO

    @staticmethod
    def backward(ctx: Any, upstream_TO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, down_rI, scaled_Or, narrow_Tr = ctx.saved_tensors
        narrow_gradient_Tr = upstream_TO @ scaled_Or
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = ctx.frozen.transposed_product(upstream_TO)
            x_gradient.addmm_(narrow_gradient_Tr, down_rI)
        down_gradient = (narrow_gradient_Tr.T @ x_TI).to(ctx.trained_in)
        up_gradient = (narrow_Tr.T @ upstream_TO).T.to(ctx.trained_in) * ctx.scaling  # faster with its few rows first
        return x_gradient, None, None, down_gradient, up_gradient, None


def _forward(layer: Any, original: Any, frozen: Frozen, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
    (adapter,) = layer.active_adapters
    plain = not (rest or named or layer.disable_adapters or layer.merged)
    dropout = layer.lora_dropout[adapter]
    if not plain or (layer.training and not isinstance(dropout, torch.nn.Identity)):
        return original(x, *rest, **named)
    base = layer.get_base_layer()
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    flat = x.reshape(-1, x.shape[-1])
    if not torch.is_grad_enabled() and up.device.type == "cpu" and not up.any():
        output = frozen.product(flat, base.bias)  # an update that has not begun adds nothing
    else:
        output = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            flat, frozen, base.bias, down, up, layer.scaling[adapter]
        )
    return output.view(*x.shape[:-1], -1)


def fuse(network: Network) -> int:
    """Give every plain LoRA linear of `network` the single operation; returns how many there were."""
    layers = [layer for layer in network.modules() if _plain(layer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    taken = sum(2 * weight.numel() * weight.element_size() for weight in weights)
    pack = taken <= PACKED_BYTES and all(
        weight.device.type == "cpu" and weight.dtype == torch.bfloat16 for weight in weights
    )
    for layer, weight in zip(layers, weights, strict=True):
        layer.forward = functools.partial(_forward, layer, layer.forward, _freeze(weight, pack=pack))
    return len(layers)


def _plain(layer: Any) -> bool:
    if type(layer) is not LoraLayer or type(layer.get_base_layer()) is not torch.nn.Linear:
        return False
    return len(layer.active_adapters) == 1 and not layer.lora_variant and not any(layer.lora_bias.values())
