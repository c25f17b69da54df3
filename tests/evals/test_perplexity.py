"""Perplexity: a sum over tokens, whatever the batches."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mingshi.data.plan import pack
from mingshi.errors import DataError
from mingshi.evals.perplexity import Perplexity
from mingshi.model import attention
from mingshi.types import Sample, Scores


@pytest.fixture(scope="module", params=["sdpa", attention.NAME])
def model(request: Any) -> Any:
    attention.register()
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        attention_dropout=0.5,
        attn_implementation=request.param,
    )
    return SimpleNamespace(network=LlamaForCausalLM(shape).float(), device="cpu")


def sample(generator: np.random.Generator, name: str) -> Sample:
    tokens = generator.integers(0, 61, generator.integers(4, 30)).astype(np.int32)
    target = np.arange(generator.integers(1, len(tokens) - 1), len(tokens))
    return Sample(
        tokens=tokens,
        segments=np.array([[0, len(tokens), -1]], dtype=np.int32),
        source=(target - 1).astype(np.int32),
        target=tokens[target],
        weight=np.full(len(target), 1.0, dtype=np.float32),
        sequence=np.zeros(len(target), dtype=np.int32),
        id=name,
    )


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    generator = np.random.default_rng(0)
    return [sample(generator, f"row-{number}") for number in range(17)]


def measured(model: Any, samples: list[Sample], size: int, **settings: Any) -> Scores:
    batches = [pack(samples[start : start + size], device="cpu") for start in range(0, len(samples), size)]
    return Perplexity().run(model, batches, **settings)


def by_transformers(model: Any, sample: Sample) -> float:
    with torch.no_grad():
        logits = model.network.eval()(input_ids=torch.from_numpy(sample.tokens).long()[None]).logits[0]
    target = torch.from_numpy(sample.target).long()
    return float(torch.nn.functional.cross_entropy(logits[sample.source.tolist()], target, reduction="sum"))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_nats_are_transformers_own_for_every_item_and_any_batch(model: Any, samples: list[Sample], size: int) -> None:
    scores = measured(model, samples, size)
    expected = {sample.id: by_transformers(model, sample) for sample in samples}
    counts = {sample.id: float(len(sample.target)) for sample in samples}
    ids = sorted(expected)
    assert scores.items["nats_per_token.sum"] == pytest.approx([expected[item] for item in ids], rel=1e-5)
    assert scores.items["nats_per_token.weight"] == [counts[item] for item in ids]
    value = sum(expected.values()) / sum(counts.values())
    assert scores.scores["nats_per_token"].value == pytest.approx(value, rel=1e-6)
    assert scores.scores["nats_per_token"].count == 17


def test_the_signature_and_the_order_of_items_do_not_depend_on_the_batches(model: Any, samples: list[Sample]) -> None:
    one, other = measured(model, samples, 2), measured(model, samples[::-1], 5)
    assert one.scores["nats_per_token"].signature == other.scores["nats_per_token"].signature
    fewer = measured(model, samples[1:], 5)
    assert one.scores["nats_per_token"].signature != fewer.scores["nats_per_token"].signature


def test_perplexity_is_the_exponential_of_the_nats_and_of_their_interval(model: Any, samples: list[Sample]) -> None:
    scores = measured(model, samples, 4).scores
    nats, perplexity = scores["nats_per_token"], scores["perplexity"]
    assert [perplexity.value, perplexity.low, perplexity.high] == pytest.approx(
        [math.exp(number) for number in (nats.value, nats.low, nats.high)]
    )
    assert nats.low < nats.value < nats.high


def test_bits_per_byte_divide_by_the_bytes_of_the_texts(model: Any, samples: list[Sample]) -> None:
    sizes = {sample.id: 3 * len(sample.target) for sample in samples}
    scores = measured(model, samples, 4, texts_bytes=sizes)
    expected = scores.scores["nats_per_token"].value / math.log(2) / 3
    assert scores.scores["bits_per_byte"].value == pytest.approx(expected, rel=1e-12)
    assert sum(scores.items["bits_per_byte.weight"]) == sum(sizes.values())


def test_samples_of_one_example_are_one_item(model: Any, samples: list[Sample]) -> None:
    twice = measured(model, [samples[0], samples[1], samples[0]], 2)
    once = measured(model, samples[:2], 2)
    assert twice.items["nats_per_token.sum"] == pytest.approx(
        [2 * once.items["nats_per_token.sum"][0], once.items["nats_per_token.sum"][1]], rel=1e-6
    )
    assert twice.scores["nats_per_token"].count == 2


def test_dropout_is_off_while_measuring_and_back_on_afterwards(model: Any, samples: list[Sample]) -> None:
    model.network.train()
    first, second = measured(model, samples[:4], 2), measured(model, samples[:4], 2)
    assert first.items == second.items
    assert model.network.training
    model.network.eval()


def test_one_item_has_a_value_and_no_interval(model: Any, samples: list[Sample]) -> None:
    score = measured(model, samples[:1], 1).scores["perplexity"]
    assert score.value > 1 and score.count == 1
    assert math.isnan(score.low) and math.isnan(score.high)


def test_nothing_to_measure_is_an_error(model: Any) -> None:
    with pytest.raises(DataError, match="no answer to measure"):
        Perplexity().run(model, [])
