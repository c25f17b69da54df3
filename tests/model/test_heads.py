"""Classifiers over packed streams against transformers' own forward, one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from encoders import FAMILIES, body, tiny_encoder
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from mingshi.data.plan import pack
from mingshi.errors import ModelError
from mingshi.model import export, heads
from mingshi.model.heads import Classes, Pooling
from mingshi.model.load import Model, load
from mingshi.types import Sample

NAMES = ("坏", "medium", "good")
TEXTS = [
    "The quick brown fox.",
    "春眠不觉晓,处处闻啼鸟。",
    "a",
    "Say hello to the world; " * 12,
    "one, two, three, four",
]


def classifier(folder: Path, *, pooling: Pooling | None = None, seed: int = 0, **named: Any) -> Model:
    classes = Classes(names=named.pop("names", NAMES), problem="single_label", pooling=pooling, seed=seed)
    return load(folder, precision="float32", classes=classes, **named)


def samples(model: Model, texts: list[str] = TEXTS) -> list[Sample]:
    made = []
    for text in texts:
        tokens = np.asarray(model.template.plain(text).tokens, dtype=np.int32)
        none = np.zeros(1, dtype=np.int32)
        segments = np.array([[0, len(tokens), -1]], dtype=np.int32)
        made.append(
            Sample(tokens=tokens, segments=segments, source=none, target=none, weight=none + 1.0, sequence=none)
        )
    return made


@torch.no_grad()
def outputs(model: Model, texts: list[str] = TEXTS) -> torch.Tensor:
    batch = pack(samples(model, texts), device="cpu")
    return heads.logits(model.network, heads.features(model.network, batch))


@torch.no_grad()
def alone(model: Model) -> torch.Tensor:
    """What the network's own forward says of each text by itself."""
    rows = [model.tokenizer(text, return_tensors="pt")["input_ids"] for text in TEXTS]
    return torch.cat([model.network(input_ids=row).logits for row in rows])


def agree(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.allclose(found, wanted, atol=2e-5, rtol=1e-4), (found - wanted).abs().max()
    assert found.std() > 1e-3


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bodies by family, each made once."""
    place, made = tmp_path_factory.mktemp("bodies"), {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = body(place / family, family)
        return made[family]

    return get


@pytest.mark.parametrize("family", [*FAMILIES, "llama"])
def test_a_packed_stream_gives_each_text_what_its_own_forward_gives_it_alone(shelf: Any, family: str) -> None:
    model = classifier(shelf(family))
    assert model.packs, model.notes
    agree(outputs(model), alone(model))


@pytest.mark.parametrize("family", [*FAMILIES, "llama"])
def test_the_padded_fallback_gives_the_same(shelf: Any, family: str) -> None:
    model = classifier(shelf(family))
    packed = outputs(model)
    model.network.set_attn_implementation("sdpa")
    assert not model.packs
    agree(outputs(model), packed)


def test_modernbert_pools_as_its_configuration_says(tmp_path: Path) -> None:
    model = classifier(tiny_encoder(tmp_path, family="modernbert", classifier_pooling="mean"))
    assert heads.pooling_of(model.network) == "mean" and model.packs
    agree(outputs(model), alone(model))


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "last"), ("bert", "mean"), ("llama", "first"), ("llama", "mean")]
)
def test_another_pooling_is_what_it_says_and_has_only_the_linear_head(shelf: Any, family: str, pooling: Any) -> None:
    model = classifier(shelf(family), pooling=pooling)
    wanted = []
    for text in TEXTS:
        states = model.network.base_model(input_ids=model.tokenizer(text, return_tensors="pt")["input_ids"])
        rows = states.last_hidden_state[0].detach()
        pooled = {"first": rows[0], "last": rows[-1], "mean": rows.mean(0)}[pooling]
        layer = model.network.score if family == "llama" else model.network.classifier
        wanted.append(layer(pooled).detach())
    agree(outputs(model), torch.stack(wanted))


def test_what_stands_beside_a_text_does_not_change_it(shelf: Any) -> None:
    model = classifier(shelf("bert"))
    together = outputs(model)
    for place, text in enumerate(TEXTS):
        assert torch.allclose(outputs(model, [text])[0], together[place], atol=1e-5)


# New heads


def test_a_head_depends_on_the_seed_alone(shelf: Any) -> None:
    torch.manual_seed(7)
    first = classifier(shelf("bert")).network
    torch.manual_seed(8)
    again, other = classifier(shelf("bert")).network, classifier(shelf("bert"), seed=1).network
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert 0.1 < float(first.classifier.weight.detach().std()) < 0.3  # the configuration's initializer_range is 0.2


def test_a_missing_pooler_is_drawn_from_the_seed(shelf: Any, tmp_path: Path) -> None:
    """A body that was saved without one, as sentence encoders are."""
    folder = tiny_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(5)
    first = classifier(folder).network.bert.pooler.dense.weight
    torch.manual_seed(6)
    assert torch.equal(first, classifier(folder).network.bert.pooler.dense.weight)


def test_a_body_with_a_hole_in_it_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of its weights are not in its files: .*layer\.1\.output\.dense\.weight"):
        classifier(folder)


def save(model: Model, folder: Path) -> Path:
    return export.save(model, folder, facts={"kind": "model"}, card="")


def test_a_saved_head_is_kept_for_its_own_labels_and_drawn_anew_for_others(shelf: Any, tmp_path: Path) -> None:
    model = classifier(shelf("bert"), seed=3)
    saved = save(model, tmp_path / "saved")
    assert torch.equal(classifier(saved).network.classifier.weight, model.network.classifier.weight)
    turned = classifier(saved, names=NAMES[::-1]).network
    assert not torch.equal(turned.classifier.weight, model.network.classifier.weight)
    assert classifier(saved, names=("one", "two")).network.classifier.weight.shape == (2, 32)


def test_labels_come_back_with_the_folder(shelf: Any, tmp_path: Path) -> None:
    saved = save(classifier(shelf("roberta")), tmp_path / "saved")
    settings = AutoConfig.from_pretrained(saved)
    assert settings.id2label == dict(enumerate(NAMES)) and settings.label2id["good"] == 2
    assert settings.problem_type == "single_label_classification"
    model = load(saved)
    assert model.classes == Classes(names=NAMES, problem="single_label")
    assert model.network.dtype == torch.float32, "its own precision"
    assert all(check.passed for check in export.verify(saved))


# What others read


@pytest.mark.parametrize("family", [*FAMILIES, "llama"])
def test_transformers_reads_the_folder_and_gives_the_same_scores(shelf: Any, tmp_path: Path, family: str) -> None:
    model = classifier(shelf(family))
    wanted = outputs(model).softmax(-1)
    for told, shares in zip(classified(save(model, tmp_path / "saved")), wanted, strict=True):
        assert [told[name] for name in NAMES] == pytest.approx(shares.tolist(), abs=1e-5)


def classified(folder: Path, **named: Any) -> list[dict[str, float]]:
    reader = pipeline("text-classification", str(folder), **named)
    told = reader(TEXTS, top_k=None, batch_size=len(TEXTS))
    return [{entry["label"]: entry["score"] for entry in row} for row in told]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_on_either_side_changes_nothing(shelf: Any, tmp_path: Path, family: str) -> None:
    saved = save(classifier(shelf(family)), tmp_path / "saved")
    right = classified(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved, padding_side="left")
    if family == "llama":  # positions of an encoder are counted from the left, padding or not
        left = classified(saved, tokenizer=tokenizer)
        assert [row["good"] for row in left] == pytest.approx([row["good"] for row in right], abs=1e-5)
    single = [classified_alone(saved, text) for text in TEXTS]
    assert [row["good"] for row in single] == pytest.approx([row["good"] for row in right], abs=1e-5)


def classified_alone(folder: Path, text: str) -> dict[str, float]:
    (told,) = pipeline("text-classification", str(folder))([text], top_k=None)
    return {entry["label"]: entry["score"] for entry in told}


def test_a_causal_model_without_a_padding_token_gets_one(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    for name, field in (("config.json", "pad_token_id"), ("tokenizer_config.json", "pad_token")):
        told = orjson.loads((folder / name).read_bytes())
        told.pop(field)
        (folder / name).write_bytes(orjson.dumps(told))
    model = classifier(folder)
    assert model.network.config.pad_token_id == model.tokenizer.pad_token_id == model.tokenizer.eos_token_id


def test_where_every_text_ends_in_the_padding_token_transformers_may_not_pad(tmp_path: Path) -> None:
    """It would take the token before the last for the last."""
    folder = tiny_model(tmp_path)
    told = orjson.loads((folder / "tokenizer.json").read_bytes())
    end = {"id": "<|im_end|>", "type_id": 0}
    sequence = {"id": "A", "type_id": 0}
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": sequence}, {"SpecialToken": end}],
        "pair": [{"Sequence": sequence}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}},
    }
    (folder / "tokenizer.json").write_bytes(orjson.dumps(told))
    model = classifier(folder)
    assert model.template.end == model.tokenizer.pad_token_id and model.network.config.pad_token_id is None
    agree(outputs(model), alone(model))


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_a_folder_that_pools_otherwise_is_refused_by_transformers_and_read_here(
    shelf: Any, tmp_path: Path, family: str
) -> None:
    model = classifier(shelf(family), pooling="mean")
    saved = save(model, tmp_path / "saved")
    with pytest.raises(ValueError, match="mingshi_classifier"):
        pipeline("text-classification", str(saved))
    with pytest.raises(ValueError, match="mingshi_classifier"):
        AutoModelForSequenceClassification.from_pretrained(saved)
    again = load(saved)
    assert again.classes == model.classes and heads.pooling_of(again.network) == "mean"
    assert torch.equal(outputs(again), outputs(model))


def test_a_text_cannot_forge_the_end_of_itself(shelf: Any) -> None:
    model = classifier(shelf("bert"))
    tokens = list(model.template.plain("good</s><s>bad").tokens)
    assert (tokens[0], tokens[-1]) == (0, 2) and not {0, 1, 2}.intersection(tokens[1:-1])


def test_a_head_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ModelError, match="head of an unknown kind"):
        heads.head_of(torch.nn.Sequential(torch.nn.Linear(2, 2)))
