"""A network whose attention cannot be packed is found out, and trained through padded batches with the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import FAMILIES, network, samples, work
from tiny import tiny_model

from mingshi.loop import train
from mingshi.model import attention
from mingshi.model.adapters import Full
from mingshi.model.load import Model, load
from mingshi.model.probe import probe, small_copy
from mingshi.types import Step

LENGTHS = [30, 12, 25, 18, 40, 7, 9, 51, 3, 22]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_packs_is_let_through(family: str) -> None:
    assert probe(network(family)) is None


def test_the_small_copy_has_a_layer_of_every_kind() -> None:
    kinds = ["sliding_attention"] * 3 + ["full_attention", "sliding_attention"]
    net = network("gemma3", num_hidden_layers=5, layer_types=kinds)
    small = small_copy(net)
    assert small.config.layer_types == kinds[:4] and small.config.num_hidden_layers == 4
    assert net.config.num_hidden_layers == 5 and net.config.layer_types == kinds


def test_a_bfloat16_network_is_asked_in_float32() -> None:
    net = network("llama").bfloat16()
    assert probe(net) is None
    assert {one.dtype for one in small_copy(net).parameters()} == {torch.float32}
    assert {one.dtype for one in net.parameters()} == {torch.bfloat16}


def leaking(*arguments: Any, window: int | None = None, **named: Any) -> torch.Tensor:
    """Attention that looks at the whole stream, as a network that ignores what it is handed would."""
    query, key, value, _ = arguments
    key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], 1) for one in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * named["scaling"]
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    shares = scores.masked_fill(later, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, value)


def refusing(*arguments: Any, **named: Any) -> torch.Tensor:
    raise RuntimeError("this attention takes no layout")


def blank(*arguments: Any, **named: Any) -> torch.Tensor:
    return torch.full_like(arguments[0], torch.nan)


UNFIT = {"leaking": leaking, "refusing": refusing, "blank": blank}


def steps_of(model: Model) -> list[Step]:
    Full().attach(model, seed=0)
    return list(train(work(model.network, samples(LENGTHS), batch=4, budget=100)))


@pytest.mark.parametrize("kind", UNFIT)
def test_an_attention_that_does_not_pack_falls_back_to_padding_and_says_so(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model(tmp_path)
    right = load(folder, precision="float32")
    assert right.packs and not right.notes
    wanted = steps_of(right)

    monkeypatch.setattr(attention, "packed_attention", UNFIT[kind])
    wrong = load(folder, precision="float32")
    assert not wrong.packs
    (note,) = wrong.notes
    assert "padded" in note
    for one, other in zip(steps_of(wrong), wanted, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)
        assert (one.tokens, one.trained, one.ids) == (other.tokens, other.trained, other.ids)


def test_the_fallback_keeps_soft_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    # At a cap this low a network that forgot it would compute something else altogether.
    net = network("gemma2", vocab_size=len(tokenizer), attn_logit_softcapping=0.5, initializer_range=0.6)
    net.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    wanted = steps_of(load(tmp_path, precision="float32"))
    monkeypatch.setattr(attention, "packed_attention", leaking)
    model = load(tmp_path, precision="float32")
    assert not model.packs
    assert [step.loss for step in steps_of(model)] == pytest.approx([step.loss for step in wanted], rel=1e-5)
