"""Packed attention by the kernel for texts of various lengths, against the products that the processor takes.

On the processor a twin stands for the kernel: called in the same way, computed text by text in float32. What is around
the kernel is then the code that CUDA runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import VOCABULARY, network

from mingshi.model import attention, streamlined, varlen

HEADS, KEY_HEADS, DEPTH = 4, 2, 8
TREE = np.array([[0, 30, -1], [30, 3, -1], [33, 5, 0], [38, 27, 0], [65, 1, 2], [66, 7, 4]], dtype=np.int32)


# The twin


def twin(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """What torch documents of `varlen_attn`, and what its kernel refuses; what is not used here it does not know."""
    assert (return_aux, seqused_k, block_table, num_splits) == (None,) * 4 and cu_seq_k is not None
    assert enable_gqa or query.shape[1] == key.shape[1]
    for bounds, rows, most in ((cu_seq_q, query, max_q), (cu_seq_k, key, max_k), (cu_seq_k, value, max_k)):
        assert bounds.dtype == torch.int32 and bounds.is_contiguous() and rows.stride(-1) == 1
        assert bounds[0] == 0 and bounds[-1] == len(rows)
        assert int(bounds.diff().max()) == most
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    repeats = query.shape[1] // key.shape[1]
    left, right = window_size
    outputs = []
    for text in range(len(cu_seq_q) - 1):
        queries = query[cu_seq_q[text] : cu_seq_q[text + 1]].float().transpose(0, 1)
        keys, values = (
            rows[cu_seq_k[text] : cu_seq_k[text + 1]].float().transpose(0, 1).repeat_interleave(repeats, 0)
            for rows in (key, value)
        )
        places = torch.arange(queries.shape[1])[:, None] + keys.shape[1] - queries.shape[1]  # the ends are level
        ahead = torch.arange(keys.shape[1])[None, :] - places
        seen = (ahead <= right if right >= 0 else ahead > -torch.inf) & (-ahead <= left if left >= 0 else True)
        scores = (queries @ keys.transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
        outputs.append((scores.softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs).to(query.dtype)


def test_the_twin_is_called_as_the_kernel_is() -> None:
    from torch.nn.attention.varlen import varlen_attn

    theirs, ours = (inspect.signature(one).parameters.values() for one in (varlen_attn, twin))
    for right, found in zip(theirs, ours, strict=True):
        assert (found.name, found.kind, found.default) == (right.name, right.kind, right.default)


@contextmanager
def standing_in(called: list[int] | None = None) -> Iterator[None]:
    """The processor offers a kernel, which is the twin and takes float32; how many heads it got is noted."""

    def noted(*given: Any, **named: Any) -> torch.Tensor:
        if called is not None:
            called.append(given[0].shape[1])
        return twin(*given, **named)

    noted.__signature__ = inspect.signature(twin)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "kernel", lambda: noted)
        patch.setattr(varlen, "offered", lambda device: True)
        patch.setattr(varlen, "PRECISIONS", (torch.float32,))
        yield


# One layer


def outcome(
    segments: np.ndarray, *, key_heads: int = KEY_HEADS, window: int | None = None, seed: int = 0
) -> list[torch.Tensor]:
    """Outputs of a layer and the gradients of its queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    count = int(segments[:, 1].sum())
    given = [
        torch.randn(count, heads, DEPTH, generator=generator, requires_grad=True)
        for heads in (HEADS, key_heads, key_heads)
    ]
    upstream = torch.randn(count, HEADS, DEPTH, generator=generator)
    packed = attention.packed(segments)
    output = attention.packed_attention(*given, packed, scaling=0.4, window=window)
    return [output.detach(), *torch.autograd.grad(output, given, upstream)]


@st.composite
def trees(draw: st.DrawFn) -> np.ndarray:
    """Streams of segments, some of one token, some many parents deep, some that go on from nothing."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    parents = [draw(st.integers(-1, index - 1)) for index in range(len(lengths))]
    starts = np.cumsum(lengths) - lengths
    return np.stack([starts, lengths, parents], axis=1).astype(np.int32)


@settings(max_examples=60)
@given(trees(), st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 3]))
@example(np.array([[0, 1, -1]], dtype=np.int32), 4, None)
@example(np.array([[0, 9, -1]], dtype=np.int32), 2, None)
@example(np.array([[row, 1, row - 1] for row in range(6)], dtype=np.int32), 2, None)
@example(np.array([[0, 1, -1], [1, 1, -1], [2, 1, -1]], dtype=np.int32), 1, 1)
def test_outputs_and_gradients_are_those_of_the_products(
    segments: np.ndarray, key_heads: int, window: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCKS", (2, 4))
        patch.setattr(attention, "ROUND", 2)
        wanted = outcome(segments, key_heads=key_heads, window=window)
    called: list[int] = []
    with standing_in(called):
        found = outcome(segments, key_heads=key_heads, window=window)
    assert called == [HEADS]
    for ours, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


def test_lengths_and_the_rows_that_are_gathered() -> None:
    segments = np.array([[0, 3, -1], [3, 2, 0], [5, 0, 1], [5, 1, 1], [6, 2, -1]], dtype=np.int32)
    found = varlen.lengths(segments, attention.chains(segments))
    assert found is not None and found.rows is not None
    assert found.queries.tolist() == [0, 3, 5, 6, 8]  # the empty segment asks nothing
    assert found.keys.tolist() == [0, 3, 8, 14, 16]
    assert found.rows.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]
    assert (found.most_queries, found.most_keys) == (3, 6)


def test_nothing_is_gathered_where_no_segment_has_a_parent() -> None:
    segments = np.array([[0, 3, -1], [3, 2, -1]], dtype=np.int32)
    found = varlen.lengths(segments, attention.chains(segments))
    assert found is not None and found.rows is None
    assert found.queries.tolist() == found.keys.tolist() == [0, 3, 5]


@pytest.mark.parametrize("segments", [[[2, 3, -1], [0, 2, -1]], [[0, 0, -1]]], ids=["out of order", "empty"])
def test_a_stream_that_the_kernel_cannot_read_has_no_lengths(segments: list[list[int]]) -> None:
    stream = np.array(segments, dtype=np.int32)
    assert varlen.lengths(stream, attention.chains(stream)) is None


# Networks


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "phi3", "gemma3", "gpt2"])
def test_networks_give_the_same_states_and_gradients(family: str) -> None:
    """Beginnings in common make parents; Mistral and Gemma 3 have windows; Llama is taken as it is reshaped at load."""
    net = network(family)
    if family == "llama":
        assert streamlined.streamline(net)
    net.requires_grad_(True)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, 73))
    tokens[30:33] = tokens[:3]
    places = torch.from_numpy(attention.positions(TREE))
    wanted_rows = torch.arange(1, 73, 3)
    weights = torch.randn(len(wanted_rows), 32, generator=torch.Generator().manual_seed(0))

    def outcome() -> list[torch.Tensor]:
        net.zero_grad()
        states = attention.packed_hidden(net, tokens, places, TREE, rows_M=wanted_rows)
        (states * weights).sum().backward()  # of squares, behind a norm, no gradient would be left
        return [states.detach(), *(one.grad for one in net.parameters() if one.grad is not None)]

    right = outcome()
    called: list[int] = []
    with standing_in(called):
        found = outcome()
    assert len(called) == net.config.num_hidden_layers
    assert len(found) == len(right) > 2
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))


@torch.no_grad()
def test_soft_caps_are_left_to_the_products() -> None:
    net = network("gemma2")
    tokens, places = torch.arange(73) % VOCABULARY, torch.from_numpy(attention.positions(TREE))
    right = attention.packed_hidden(net, tokens, places, TREE)
    called: list[int] = []
    with standing_in(called):
        assert torch.equal(attention.packed_hidden(net, tokens, places, TREE), right)
    assert not called


# Which is chosen


@pytest.mark.parametrize(
    ("dtype", "width", "more", "taken"),
    [
        (torch.bfloat16, 64, {}, True),
        (torch.float16, 192, {}, True),
        (torch.float32, 64, {}, False),
        (torch.bfloat16, 60, {}, False),
        (torch.bfloat16, 256, {}, False),
        (torch.bfloat16, 64, {"dropout": 0.1}, False),
        (torch.bfloat16, 64, {"softcap": 30.0}, False),
    ],
)
def test_what_the_kernel_takes(dtype: torch.dtype, width: int, more: dict[str, float], taken: bool) -> None:
    query = torch.empty(1, 2, width, dtype=dtype)
    assert varlen.takes(query, **({"dropout": 0.0, "softcap": None} | more)) == taken  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "toolkit", "capability", "kernel", "is_offered"),
    [
        ("cuda", "13.0", (9, 0), twin, True),
        ("cuda:1", "13.0", (8, 0), twin, True),
        ("cuda", "13.0", (7, 5), twin, False),
        ("cuda", None, (9, 0), twin, False),  # AMD's cards go by the same name
        ("cuda", "13.0", (9, 0), None, False),
        ("cpu", "13.0", (9, 0), twin, False),
    ],
)
def test_where_the_kernel_is_offered(
    device: str,
    toolkit: str | None,
    capability: tuple[int, int],
    kernel: Any,
    is_offered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", toolkit)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(varlen, "kernel", lambda: kernel)
    monkeypatch.setattr(varlen, "agrees", lambda device: True)
    assert varlen.offered(device) == is_offered
    monkeypatch.setattr(varlen, "agrees", lambda device: False)
    assert not varlen.offered(device)


def test_a_kernel_that_computes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def level_at_the_start(*given: Any, **named: Any) -> torch.Tensor:
        """Keys beyond the number of queries are cut away first, as an alignment at the top left would have it."""
        query, key, value, queries, keys, *_ = given
        kept = torch.cat([keys[at] + torch.arange(queries[at + 1] - queries[at]) for at in range(len(keys) - 1)])
        return twin(query, key[kept], value[kept], queries, queries, int(queries.diff().max()), 3, **named)

    for kernel, trusted in ((twin, True), (level_at_the_start, False)):
        monkeypatch.setattr(varlen, "kernel", lambda kernel=kernel: kernel)
        monkeypatch.setattr(varlen, "_parameters", lambda kernel: frozenset(inspect.signature(twin).parameters))
        varlen.agrees.cache_clear()
        assert varlen.agrees(torch.device("cpu")) == trusted
    varlen.agrees.cache_clear()


def test_encoders_and_the_processor_have_no_lengths() -> None:
    assert attention.packed(TREE).lengths is None
    with standing_in():
        assert attention.packed(TREE).lengths is not None
        assert attention.packed(TREE[:2], causal=False).lengths is None


def test_a_kernel_that_knows_no_windows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen as theirs

    assert varlen.kernel.__wrapped__() is theirs.varlen_attn
    monkeypatch.setattr(theirs, "varlen_attn", lambda query, key, value, is_causal=False, scale=None: query)
    assert varlen.kernel.__wrapped__() is None


def test_a_kernel_that_takes_grouped_heads_unasked_is_not_asked() -> None:
    def older(query: Any, key: Any, value: Any, *lengths: Any, scale: Any = None, window_size: Any = None) -> Any:
        return twin(query, key, value, *lengths, scale=scale, window_size=window_size, enable_gqa=True)

    wanted = outcome(TREE)
    with standing_in(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "kernel", lambda: older)
        found = outcome(TREE)
    for ours, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


# The kernel itself


@pytest.mark.parametrize("window", [None, 3])
def test_the_kernel_accepts_the_call(window: int | None) -> None:
    """Torch's own function on tensors that have shapes and no numbers, forward and backward."""
    lengths = varlen.lengths(TREE, attention.chains(TREE), device="meta")
    assert lengths is not None
    given = [
        torch.empty(73, heads, DEPTH, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    output = varlen.attended(*given, lengths, scaling=0.4, window=window)
    assert output.shape == given[0].shape and output.dtype == torch.bfloat16
    gradients = torch.autograd.grad(output, given, torch.empty_like(output))
    assert [one.shape for one in gradients] == [one.shape for one in given]


STREAMS = {
    "one text": np.array([[0, 300, -1]], dtype=np.int32),
    "a tree": np.array([[0, 300, -1], [300, 33, -1], [333, 50, 0], [383, 257, 0], [640, 7, 2]], dtype=np.int32),
    "one token each": np.array([[row, 1, row - 1] for row in range(40)], dtype=np.int32),
    "one token each, alone": np.array([[row, 1, -1] for row in range(40)], dtype=np.int32),
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("width", [64, 72, 192])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("name", STREAMS)
def test_on_cuda_the_kernel_is_as_near_to_float32_as_the_products_are(
    name: str, key_heads: int, width: int, window: int | None, dtype: torch.dtype
) -> None:
    segments = STREAMS[name]
    count = int(segments[:, 1].sum())
    generator = torch.Generator("cuda").manual_seed(0)
    given = [
        torch.randn(count, heads, width, generator=generator, device="cuda").to(dtype)
        for heads in (HEADS, key_heads, key_heads, HEADS)
    ]

    def outcome(precision: torch.dtype, *, kernel: bool) -> list[torch.Tensor]:
        *leaves, upstream = (one.to(precision).requires_grad_(True) for one in given)
        packed = attention.packed(segments, device="cuda")
        assert packed.lengths is not None, "this card or this torch has no kernel"
        if not kernel:
            packed.lengths = None
        output = attention.packed_attention(*leaves, packed, scaling=width**-0.5, window=window)
        return [output.detach(), *torch.autograd.grad(output, leaves, upstream.detach())]

    right = outcome(torch.float32, kernel=False)
    products, found = (outcome(dtype, kernel=kernel) for kernel in (False, True))
    for ours, theirs, wanted in zip(found, products, right, strict=True):
        size = max(float(wanted.norm()), 0.01 * float(right[0].norm()))  # a text of one token has no slopes
        off = [float((one.float() - wanted).norm()) / size for one in (ours, theirs)]
        assert off[0] <= 2 * off[1] + 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
@torch.no_grad()
def test_on_cuda_networks_in_half_precision_give_the_same_states(family: str) -> None:
    net = network(family).to("cuda", torch.bfloat16)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, 73)).cuda()
    places = torch.from_numpy(attention.positions(TREE)).cuda()
    found = attention.packed_hidden(net, tokens, places, TREE).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "offered", lambda device: False)
        right = attention.packed_hidden(net, tokens, places, TREE).float()
    assert float((found - right).norm() / right.norm()) < 3e-2
