"""Packed streams against transformers' own eager attention, each text by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import FAMILIES, VOCABULARY, network

from mingshi.model import attention
from mingshi.model.attention import packed_hidden, padded_hidden, positions

# A long text; a short one; two continuations of the first, the second long again; and a continuation of one of those.
SEGMENTS = np.array([[0, 300, -1], [300, 33, -1], [333, 50, 0], [383, 257, 0], [640, 7, 2]], dtype=np.int32)
TEXTS = [[0], [1], [0, 2], [0, 3], [0, 2, 4]]
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, 647))
PLACES = torch.from_numpy(positions(SEGMENTS))


def rows(segment: int) -> torch.Tensor:
    start, length, _ = SEGMENTS[segment].tolist()
    return torch.arange(start, start + length)


@torch.no_grad()
def separate_hidden(family: str) -> torch.Tensor:
    """The definition: every text from its beginning, in a call of its own."""
    eager = network(family, implementation="eager")
    pieces = []
    for segment, chain in enumerate(TEXTS):
        text = torch.cat([rows(one) for one in chain])
        states = eager.base_model(input_ids=TOKENS[text][None]).last_hidden_state[0]
        pieces.append(states[-len(rows(segment)) :])
    return torch.cat(pieces)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_packed_equals_separate_with_shared_prefixes_and_long_rows(family: str) -> None:
    wanted = separate_hidden(family)
    found = packed_hidden(network(family), TOKENS, PLACES, SEGMENTS)
    assert off(found, wanted) < 1e-5
    assert (found - wanted).abs().max() < 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padded_fallback_equals_separate(family: str) -> None:
    plain = network(family, implementation="eager" if family == "gemma2" else "sdpa")
    assert off(padded_hidden(plain, TOKENS, PLACES, SEGMENTS), separate_hidden(family)) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_plain_call_of_a_packing_network_is_the_plain_network(family: str) -> None:
    text = TOKENS[:90][None]
    wanted = network(family, implementation="eager")(input_ids=text).logits
    assert off(network(family)(input_ids=text).logits, wanted) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_beginnings_in_common_are_read_once_with_the_same_states_and_gradients(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three texts with one instruction, two of them with more in common; the last one goes on twice."""
    segments = np.array([[0, 90, -1], [90, 70, -1], [160, 80, -1], [240, 9, 2], [249, 30, 2]], dtype=np.int32)
    tokens = TOKENS[:279].clone()
    tokens[90:130] = tokens[:40]
    tokens[160:220] = tokens[:60]
    net = network(family)
    net.requires_grad_(True)
    weights = torch.randn(279, 32, generator=torch.Generator().manual_seed(0))
    read: list[int] = []
    net.base_model.register_forward_pre_hook(
        lambda module, inputs, named: read.append(named["input_ids"].shape[1]), with_kwargs=True
    )

    def outcome() -> list[torch.Tensor]:
        net.zero_grad()
        states = packed_hidden(net, tokens, torch.from_numpy(positions(segments)), segments)
        (states * weights).sum().backward()
        return [states.detach(), *(one.grad for one in net.parameters() if one.grad is not None)]

    found = outcome()
    monkeypatch.setattr(attention, "share_prefixes", lambda tokens, segments: None)
    wanted = outcome()
    assert read == [279 - 40 - 60, 279]
    assert len(found) == len(wanted) > 2
    for ours, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=2e-5 * float(right.abs().max()))


@torch.no_grad()
def test_another_text_of_the_stream_changes_no_bit() -> None:
    net = network("llama")
    changed = TOKENS.clone()
    changed[rows(1)] = (changed[rows(1)] + 1) % VOCABULARY
    before, after = (packed_hidden(net, tokens, PLACES, SEGMENTS) for tokens in (TOKENS, changed))
    others = torch.cat([rows(segment) for segment in (0, 2, 3, 4)])
    assert torch.equal(before[others], after[others])
    assert not torch.allclose(before[rows(1)], after[rows(1)])


@torch.no_grad()
def test_no_gradient_reaches_another_text() -> None:
    net = network("llama")
    embedded = net.get_input_embeddings()(TOKENS)[None].requires_grad_(True)
    with torch.enable_grad():
        states = net.base_model(
            inputs_embeds=embedded,
            position_ids=PLACES[None],
            attention_mask=torch.zeros(1, 1, 1, 1),
            use_cache=False,
            packed=attention.packed(SEGMENTS),
        ).last_hidden_state[0]
        (gradient,) = torch.autograd.grad(states[rows(2)].square().sum(), embedded)
    touched = gradient[0].norm(dim=-1) > 0
    assert bool(touched[torch.cat([rows(0), rows(2)])].all())
    assert not bool(touched[torch.cat([rows(1), rows(3), rows(4)])].any())


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
@torch.no_grad()
def test_the_window_is_honoured(family: str) -> None:
    """The same network without a window computes something else: the equality above is not one of empty settings."""
    wide = network(family, sliding_window=1024)
    assert off(packed_hidden(wide, TOKENS, PLACES, SEGMENTS), separate_hidden(family)) > 1e-3


@torch.no_grad()
def test_the_soft_cap_is_honoured() -> None:
    loose = network("gemma2", attn_logit_softcapping=1000.0)
    assert off(packed_hidden(loose, TOKENS, PLACES, SEGMENTS), separate_hidden("gemma2")) > 1e-3


@torch.no_grad()
def test_the_end_of_one_text_is_never_the_beginning_of_the_next() -> None:
    """Positions start again at every text, and count on from the end of what a text continues."""
    assert PLACES[rows(1)].tolist() == list(range(33))
    assert PLACES[rows(2)].tolist() == list(range(300, 350))
    assert PLACES[rows(4)].tolist() == list(range(350, 357))
