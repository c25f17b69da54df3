"""Norms and gated activations that keep less for their backward: the same numbers from the same weights.

Stock modules leave float32 copies and intermediate products of every layer to autograd, which is most of what a token
costs in memory. Here each keeps its input alone and makes the rest again. A module is only given the lean computation
if that computes what its own does, on a few random rows.

Letters: `T` tokens, `W` width, `I` inner width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from mingshi.types import Network


class _RMSNorm(torch.autograd.Function):
    """`y = w x / sqrt(mean(x^2) + epsilon)` (Zhang and Sennrich 2019, equation 4), normalised in float32."""

    @staticmethod
    def forward(ctx: Any, x_TW: torch.Tensor, weight_W: torch.Tensor, epsilon: float) -> torch.Tensor:
        full_TW = x_TW.float()
        scale_T1 = full_TW.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x_TW, weight_W, scale_T1)
        return weight_W * (full_TW * scale_T1).to(x_TW.dtype)

    @staticmethod
    def backward(ctx: Any, upstream_TW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TW, weight_W, scale_T1 = ctx.saved_tensors
        normal_TW = x_TW.float().mul_(scale_T1)
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = (upstream_TW * normal_TW).flatten(0, -2).sum(0).to(weight_W.dtype)
        inner_TW = upstream_TW.float() * weight_W
        mean_T1 = (inner_TW * normal_TW).mean(-1, keepdim=True)
        gradient_TW = inner_TW.sub_(normal_TW.mul_(mean_T1)).mul_(scale_T1)
        return gradient_TW.to(x_TW.dtype), weight_gradient, None


class _SwiGLU(torch.autograd.Function):
    """`silu(gate) * up` (Shazeer 2020, equation 6), keeping gate and up."""

    @staticmethod
    def forward(ctx: Any, gate_TI: torch.Tensor, up_TI: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_TI, up_TI)
        return torch.nn.functional.silu(gate_TI).mul_(up_TI)

    @staticmethod
    def backward(ctx: Any, upstream_TI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate_TI, up_TI = ctx.saved_tensors
        up_gradient = torch.nn.functional.silu(gate_TI).mul_(upstream_TI)
        gate_gradient = torch.ops.aten.silu_backward(upstream_TI * up_TI, gate_TI)
        return gate_gradient, up_gradient


def _norm(module: Any, epsilon: float, hidden: torch.Tensor) -> Any:
    return _RMSNorm.apply(hidden, module.weight, epsilon)  # type: ignore[no-untyped-call]


def _gated(module: Any, hidden: torch.Tensor) -> Any:
    inner = _SwiGLU.apply(module.gate_proj(hidden), module.up_proj(hidden))  # type: ignore[no-untyped-call]
    return module.down_proj(inner)


def lean(network: Network) -> int:
    """Give every norm and gated block that it fits the lean computation; returns how many there were."""
    count = 0
    for module in network.modules():
        candidate, width = candidate_for(module)
        if candidate is not None and computes_alike(module, candidate, width):
            module.forward = candidate
            count += 1
    return count


def candidate_for(module: Any) -> tuple[Callable[[torch.Tensor], Any] | None, int]:
    """The lean computation that might fit a module, and the width of what it takes."""
    parts = {name for name, _ in module.named_children()}
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if type(module).__name__.endswith("RMSNorm") and own == ["weight"]:
        epsilon = vars(module).get("variance_epsilon", vars(module).get("eps"))
        return functools.partial(_norm, module, epsilon), module.weight.shape[0]
    if {"gate_proj", "up_proj", "down_proj"} <= parts:
        return functools.partial(_gated, module), module.gate_proj.in_features
    return None, 0


@torch.no_grad()
def computes_alike(module: Any, candidate: Callable[[torch.Tensor], Any], width: int) -> bool:
    """Both in the module's own precision: the lean forward does the same operations, so it gives the same bits."""
    weight = next(module.parameters())
    rows = torch.linspace(-3, 3, 2 * width, dtype=torch.float32, device=weight.device).sin().view(1, 2, width)
    rows = rows.to(weight.dtype)
    return torch.equal(module(rows), candidate(rows))
