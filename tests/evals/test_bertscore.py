"""BERTScore equals its definition, worked out anew in float64 from the encoder's own states."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_tokenizer

from mingshi.errors import ModelError, RecipeError
from mingshi.evals.bertscore import (
    BertScore,
    Encoder,
    as_encoder,
    document_weights,
    measured_baseline,
    open_encoder,
    raw_scores,
)

PAIRS = [
    ("The quick brown fox", "the brown dog jumps over"),
    ("春眠不觉晓", "处处闻啼鸟。夜来风雨声"),
    ("hello", "hello"),
    ("One, two, three four", "世界"),
    ("x", "a much longer text than the other one, so that the batch is padded"),
]


def bert(**changes: Any) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return BertModel(BertConfig(vocab_size=400, max_position_embeddings=64, **(size | changes))).eval()


def framing_tokenizer() -> Any:
    """The tiny tokenizer, with a first and a last token around every text as BERT's has."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "<|endoftext|>", "sep_token": "<|im_start|>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|im_start|>", special_tokens=[("<|endoftext|>", 0), ("<|im_start|>", 1)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return as_encoder(bert(), framing_tokenizer(), name="tiny", layer=2)


def defined(encoder: Encoder, prediction: str, reference: str, idf: dict[int, float] | None = None) -> list[float]:
    """Equations 1 and 2 of the paper with idf weights, token by token in plain Python, each text encoded alone."""

    def states(text: str) -> tuple[list[int], np.ndarray]:
        ids = encoder.tokenizer(text)["input_ids"]
        with torch.no_grad():
            found = encoder.network.double()(torch.tensor([ids]), output_hidden_states=True)
        encoder.network.float()
        return ids, found.hidden_states[encoder.layer][0].numpy()

    (ids_x, x), (ids_y, y) = states(reference), states(prediction)

    def side(ids: list[int], mine: np.ndarray, theirs: np.ndarray) -> float:
        above = below = 0.0
        for token, state in zip(ids[1:-1], mine[1:-1], strict=True):  # those around the text weigh nothing
            cosines = [state @ other / math.sqrt(state @ state) / math.sqrt(other @ other) for other in theirs]
            weight = 1.0 if idf is None else idf[token]
            above, below = above + weight * max(cosines), below + weight
        return above / below

    recall, precision = side(ids_x, x, y), side(ids_y, y, x)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def test_scores_are_the_definitions(encoder: Encoder) -> None:
    expected = [defined(encoder, *pair) for pair in PAIRS]
    np.testing.assert_allclose(raw_scores(encoder, PAIRS), expected, atol=1e-5)
    assert raw_scores(encoder, [PAIRS[2]])[0] == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_rare_tokens_weigh_as_defined(encoder: Encoder) -> None:
    references = [reference for _, reference in PAIRS]
    documents = [set(encoder.tokenizer(text)["input_ids"]) for text in references]
    idf = {
        token: math.log((len(documents) + 1) / (sum(token in each for each in documents) + 1))
        for token in range(len(encoder.tokenizer))
    }
    weighed = as_encoder(encoder.network, encoder.tokenizer, name="tiny", layer=2)
    weighed.weights = document_weights(weighed, references)
    expected = [defined(encoder, *pair, idf=idf) for pair in PAIRS]
    np.testing.assert_allclose(raw_scores(weighed, PAIRS), expected, atol=1e-5)
    assert not np.allclose(raw_scores(encoder, PAIRS), expected, atol=1e-3)
    assert "|idf:yes|" in weighed.signature("bertscore_f1") and "|idf:no|" in encoder.signature("bertscore_f1")


def test_weights_and_baseline_together_are_the_definitions(encoder: Encoder) -> None:
    references = [reference for _, reference in PAIRS]
    both = as_encoder(encoder.network, encoder.tokenizer, name="tiny", layer=2)
    both.weights = document_weights(both, references)
    both.baseline = measured_baseline(both, references, seed=0)
    idf = {token: both.weights[token] for token in range(len(encoder.tokenizer))}
    unmoved = np.array([defined(encoder, *pair, idf=idf) for pair in PAIRS])
    expected = (unmoved - both.baseline) / (1 - np.array(both.baseline))
    found = BertScore(both).scores([(prediction, (reference,)) for prediction, reference in PAIRS])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_several_references_the_best_counts_and_the_baseline_moves_zero(encoder: Encoder) -> None:
    rows = [("The quick fox", ("处处闻啼鸟", "The quick brown fox")), ("hello", ("hello",))]
    each = raw_scores(encoder, [(prediction, text) for prediction, texts in rows for text in texts])
    np.testing.assert_allclose(BertScore(encoder).scores(rows), [each[:2].max(0), each[2]], atol=1e-9)
    moved = as_encoder(encoder.network, encoder.tokenizer, name="tiny", layer=2)
    moved.baseline = measured_baseline(moved, [text for pair in PAIRS for text in pair], seed=0)
    assert 0 < moved.baseline[2] < 1
    baseline = np.array(moved.baseline)
    np.testing.assert_allclose(BertScore(moved).scores(rows)[0], (each[:2].max(0) - baseline) / (1 - baseline))
    with pytest.raises(RecipeError, match="two different"):
        measured_baseline(moved, ["same", "same"], seed=0)


def test_an_empty_text_scores_nothing(encoder: Encoder) -> None:
    scores = raw_scores(encoder, [("", "hello"), ("hello", ""), ("", ""), ("  ", "hello")])
    assert np.all(scores == 0)


def test_a_text_is_cut_where_positions_end(encoder: Encoder) -> None:
    assert encoder.longest == 64
    (score,) = raw_scores(encoder, [("hello world " * 200, "hello world " * 200)])
    assert score == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_the_layer_is_the_one_given_or_known_or_two_thirds_up() -> None:
    network, tokenizer = bert(), framing_tokenizer()
    assert (as_encoder(network, tokenizer, name="tiny").layer, network.config.num_hidden_layers) == (2, 3)
    deep = bert(num_hidden_layers=12, hidden_size=8, intermediate_size=8, num_attention_heads=2)
    known = as_encoder(deep, tokenizer, name="bert-base-chinese")
    assert known.layer == 8 and "|layer:8:known|" in known.signature("bertscore_f1")
    with pytest.raises(RecipeError, match="3 layers"):
        as_encoder(network, tokenizer, name="tiny", layer=4)


def test_an_encoder_is_read_from_its_folder_and_a_broken_one_is_refused(encoder: Encoder, tmp_path: Any) -> None:
    encoder.network.save_pretrained(tmp_path / "tiny")
    encoder.tokenizer.save_pretrained(tmp_path / "tiny")
    opened = open_encoder(str(tmp_path / "tiny"), layer=2)
    np.testing.assert_allclose(raw_scores(opened, PAIRS), raw_scores(encoder, PAIRS), atol=1e-6)
    assert opened.signature("bertscore_f1").startswith("bertscore_f1|model:tiny|layer:2:given|")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_encoder(str(tmp_path / "empty"))
