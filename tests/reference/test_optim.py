"""Our AdamW, norm and clipping against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import network

from mingshi.optim import Optim, Optimiser

RATES = (1e-2, 3e-3, 1e-3, 0.0, 2e-3)


def nets() -> tuple[Any, Any]:
    """Twice the same network, with matrices, vectors and biases."""
    return network("qwen2"), network("qwen2")


def gradients(net: Any, step: int, size: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(one.shape, generator=generator) * size for one in net.parameters()]


def set_gradients(net: Any, values: list[torch.Tensor]) -> None:
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.grad = value.clone()


def reference(net: Any, optim: Optim) -> torch.optim.AdamW:
    matrices = [one for one in net.parameters() if one.ndim > 1]
    vectors = [one for one in net.parameters() if one.ndim <= 1]
    assert matrices and vectors
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=optim.betas, eps=optim.epsilon, foreach=False, fused=False)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_five_steps_equal_those_of_torch(clip: float | None) -> None:
    optim = Optim(weight_decay=0.1, betas=(0.8, 0.95), epsilon=1e-6, clip=clip)
    ours, theirs = nets()
    optimiser, adam = Optimiser(ours.named_parameters(), optim), reference(theirs, optim)
    for step, rate in enumerate(RATES):
        values = gradients(ours, step, size=0.01 if step == 2 else 1.0)
        set_gradients(ours, values)
        set_gradients(theirs, values)
        norm = optimiser.gradient_norm()
        optimiser.step(rate=rate, norm=norm)
        whole = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip if clip is not None else float("inf"))
        assert norm == pytest.approx(float(whole), rel=1e-6)
        for group in adam.param_groups:
            group["lr"] = rate
        adam.step()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_scales_as_torch_does_and_only_above_the_limit(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = nets()
    optimiser = Optimiser(ours.named_parameters(), Optim(clip=limit))
    for net in (ours, theirs):
        set_gradients(net, gradients(net, 0))
    clipped: list[torch.Tensor] = []
    masters = [weight.master for weight in optimiser.weights]
    monkeypatch.setattr(optimiser.adam, "step", lambda: clipped.extend(one.grad.clone() for one in masters))
    optimiser.step(rate=1.0, norm=optimiser.gradient_norm())
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    for found, parameter in zip(clipped, theirs.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-8)
