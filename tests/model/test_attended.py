"""The backward of packed attention, against finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mingshi.model import attention

HEADS, KEY_HEADS, DEPTH = 4, 2, 6
SEGMENTS = {
    "one short text": [(0, 3, -1)],
    "texts of several shapes": [(0, 3, -1), (3, 5, -1), (8, 3, -1)],
    "two answers to one prompt": [(0, 4, -1), (4, 2, 0), (6, 3, 0)],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of a few tokens are cut into blocks, and rounded up with padding, as long ones are."""
    monkeypatch.setattr(attention, "BLOCKS", (2, 4))
    monkeypatch.setattr(attention, "ROUND", 2)


def rows(count: int, heads: int) -> torch.Tensor:
    return torch.randn(count, heads, DEPTH, dtype=torch.float64, requires_grad=True)


CASES = [(name, True) for name in SEGMENTS] + [(name, False) for name in SEGMENTS if "prompt" not in name]


@pytest.mark.parametrize(("name", "causal"), CASES)
@pytest.mark.parametrize("more", [{}, {"softcap": 1.5}, {"dropout": 0.3}, {"window": 2}], ids=str)
def test_gradients_are_the_slopes(name: str, causal: bool, more: dict[str, float]) -> None:
    torch.manual_seed(1)
    stream = np.array(SEGMENTS[name], dtype=np.int32)
    count = int(stream[:, 1].sum())

    def outputs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)  # the same dropout each time
        layout = attention.packed(stream, causal=causal)
        return attention.packed_attention(query, key, value, layout, scaling=0.4, **more)

    assert torch.autograd.gradcheck(
        outputs, (rows(count, HEADS), rows(count, KEY_HEADS), rows(count, KEY_HEADS)), fast_mode=True
    )


def test_dropout_keeps_the_expected_output() -> None:
    """Over many draws the outputs' mean is the output without dropout."""
    torch.manual_seed(3)
    stream = np.array([(0, 4, -1)], dtype=np.int32)
    query, key, value = (rows(4, heads).detach() for heads in (HEADS, KEY_HEADS, KEY_HEADS))
    layout = attention.packed(stream)
    plain = attention.packed_attention(query, key, value, layout, scaling=0.4)
    drawn = [attention.packed_attention(query, key, value, layout, scaling=0.4, dropout=0.25) for _ in range(2000)]
    torch.testing.assert_close(torch.stack(drawn).mean(0), plain, rtol=0, atol=0.08)
    assert not torch.equal(drawn[0], drawn[1])
