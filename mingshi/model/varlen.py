"""Packed attention on CUDA by torch's kernel for texts of various lengths, `torch.nn.attention.varlen`.

The kernel reads a stream as it is, text after text, and keeps no shares for the backward. It wants one run of keys for
each segment, so where a segment has a parent, keys and values are gathered first: its ancestors', oldest first, then
its own. A causal text with fewer queries than keys is aligned at its end (bottom right), which is what a segment after
its parents needs. Grouped heads it takes as they are.

What the kernel does not know stays with the products of `attended.py`: other precisions, soft caps, dropout, encoders.

Letters: `T` tokens, `H` heads, `G` key-value heads, `D` head width.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

PRECISIONS = (torch.bfloat16, torch.float16)
WIDEST = 192  # heads: wider ones have a backward on some cards only
STEP = 8  # widths of heads are its multiples
OLDEST = (8, 0)  # compute capability
NEEDED = {"scale", "window_size"}  # of the kernel's parameters: torch has changed them from version to version


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Where each segment's queries and keys begin and end, in int32 as the kernel asks; empty segments are left out."""

    queries: torch.Tensor  # [segments + 1], from 0 to T
    keys: torch.Tensor  # [segments + 1], from 0 to the number of rows after gathering
    most_queries: int
    most_keys: int
    rows: torch.Tensor | None  # of the stream, int64: keys as they are gathered; None: no segment has a parent


def lengths(
    segments: np.ndarray, chains: Sequence[np.ndarray], *, device: str | torch.device = "cpu"
) -> Lengths | None:
    """The kernel's view of a stream: `segments` is `[S, 3]` start, length, parent, `chains` their ancestors' rows.

    None where there is none: segments do not stand one after another, or hold nothing.
    """
    starts, counts = segments[:, 0].astype(np.int64), segments[:, 1].astype(np.int64)
    if not counts.sum() or not np.array_equal(starts, np.cumsum(counts) - counts):
        return None
    own = [(chain, start, count) for chain, start, count in zip(chains, starts, counts, strict=True) if count]
    seen = np.array([len(chain) + count for chain, _, count in own])
    rows = None
    if any(len(chain) for chain, _, _ in own):
        runs = [run for chain, start, count in own for run in (chain, np.arange(start, start + count))]
        rows = torch.from_numpy(np.concatenate(runs)).to(device)
    return Lengths(
        queries=_bounds(counts[counts > 0], device),
        keys=_bounds(seen, device),
        most_queries=int(counts.max()),
        most_keys=int(seen.max()),
        rows=rows,
    )


def _bounds(counts: np.ndarray, device: str | torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)).to(device)


@functools.cache
def kernel() -> Callable[..., Any] | None:
    """`varlen_attn`, if this torch has it with the parameters that are used here. Its module is heavy to import."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if _parameters(varlen_attn) >= NEEDED else None


@functools.cache
def _parameters(compute: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(compute).parameters)


def offered(device: str | torch.device) -> bool:
    """Whether a device runs the kernel: NVIDIA's from Ampere on."""
    device = torch.device(device)
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST and kernel() is not None and agrees(device)


@functools.cache
def agrees(device: torch.device) -> bool:
    """Whether the kernel computes what is meant, on a segment of three tokens and one of two that continues it.

    Asked once: how it aligns fewer queries than keys is not in its signature, and a wrong answer would be silent.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, 2, 16, generator=generator).to(device, torch.bfloat16) for _ in range(3))
    told = lengths(np.array([[0, 3, -1], [3, 2, 0]]), [np.arange(0), np.arange(3)], device=device)
    assert told is not None
    found = attended(query, key, value, told, scaling=0.25).float()
    scores_HTT = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * 0.25
    later = torch.ones(5, 5, dtype=torch.bool, device=device).triu(1)
    meant = torch.einsum("hqk,khd->qhd", scores_HTT.masked_fill(later, -torch.inf).softmax(-1), value.float())
    return bool(torch.allclose(found, meant, atol=0.03))


def takes(query_THD: torch.Tensor, *, dropout: float, softcap: float | None) -> bool:
    """Whether the kernel computes this attention."""
    width = query_THD.shape[-1]
    return query_THD.dtype in PRECISIONS and not dropout and softcap is None and width <= WIDEST and not width % STEP


def attended(
    query_THD: torch.Tensor,
    key_TGD: torch.Tensor,
    value_TGD: torch.Tensor,
    lengths: Lengths,
    *,
    scaling: float,
    window: int | None = None,
) -> torch.Tensor:
    """Outputs `[T, H, D]` of causal attention; with a window a query sees itself and the `window - 1` keys before it.

    Softmax of scaled dot products (Vaswani et al. 2017, equation 1), in tiles (Dao 2023).
    """
    compute = kernel()
    if compute is None:
        raise RuntimeError("this torch has no kernel for texts of various lengths: ask `offered` first")
    if lengths.rows is not None:
        key_TGD, value_TGD = (rows.index_select(0, lengths.rows) for rows in (key_TGD, value_TGD))
    named: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    if "enable_gqa" in _parameters(compute):  # versions without it take grouped heads unasked
        named["enable_gqa"] = query_THD.shape[1] != key_TGD.shape[1]
    output_THD: torch.Tensor = compute(
        query_THD,
        key_TGD,
        value_TGD,
        lengths.queries,
        lengths.keys,
        lengths.most_queries,
        lengths.most_keys,
        **named,
    )
    return output_THD
