"""What `benchmarks.ways` holds against the network as it is computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.ways import by_autograd
from mingshi.model import attention

STREAM = np.array([[0, 90, -1], [90, 33, 0], [123, 40, 0], [163, 70, -1]], dtype=np.int32)


def gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(233, heads, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2)]
    query, key, value = inputs
    output = attention.packed_attention(query, key, value, attention.packed(STREAM), scaling=0.3)
    upstream = torch.randn(output.shape, generator=generator)
    return [output, *torch.autograd.grad(output, inputs, upstream)]


def test_attention_by_autograd_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = gradients()
    monkeypatch.setattr(attention, "attended", by_autograd)
    for found, own in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-6)
