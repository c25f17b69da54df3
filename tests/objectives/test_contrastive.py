"""The objective of pictures and texts: its rows, its parts, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import tiny_encoder
from towers import pictures, tiny_convolutions, tiny_vision

from mingshi.data.encode import samples_of
from mingshi.data.formats import DataSource, read
from mingshi.display import Silent
from mingshi.errors import DataError
from mingshi.model.adapters import Full, LastLayers, Lora
from mingshi.model.load import Model, load
from mingshi.model.vision import load_vision, see, view_of
from mingshi.objectives import Contrastive
from mingshi.objectives.contrastive_losses import LARGEST
from mingshi.optim import Optim, Optimiser
from mingshi.types import Captioned, Reject, Sample


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def opened(objective: Contrastive, folder: Path) -> Model:
    return load(folder, precision="float32", pair=objective.pair(seed=0))


def samples(objective: Contrastive, model: Model, path: Path) -> list[Sample]:
    found: list[Sample] = []
    for row in read(DataSource(path=str(path))):
        assert isinstance(row, Captioned)
        outcome = objective.encode(row, model.text)
        found += outcome if isinstance(outcome, list) else [outcome]  # type: ignore[list-item]
    return [replace(one, row=place) for place, one in enumerate(found)]


def beside(objective: Contrastive, model: Model, rows: list[Sample], folder: Path) -> Any:
    return objective.companion(model, rows, folder=folder, budget=256, display=Silent())


def step(objective: Contrastive, model: Model, rows: list[Sample], companion: Any) -> tuple[float, dict[str, Any]]:
    model.network.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    loss = objective.loss(model.network, objective.collate(rows, "cpu"), companion)
    loss.sum.backward()
    named = model.network.named_parameters()
    return float(loss.sum.detach()), {name: one.grad.clone() for name, one in named if one.grad is not None}


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("form", ["infonce", "siglip", "cosine"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(
    adapter: Any, form: Any, encoder: Path, tower: Path, tmp_path: Path
) -> None:
    """In float64: two towers that train, the batch at once and three rows at a time."""
    whole = Contrastive(vision=str(tower), form=form, width=8, rows=100)
    model = opened(whole, encoder)
    model.network.double()
    adapter.attach(model, seed=0)
    model.network.double().train()
    with torch.no_grad():
        for name, one in model.network.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.1)
    rows = samples(whole, model, pictures(tmp_path, 8, several=True))
    companion = beside(whole, model, rows, tmp_path / "kept")
    assert companion.seen_UF is None and companion.said_RF is None
    loss, gradients = step(whole, model, rows, companion)
    cut, parts = step(whole.model_copy(update={"rows": 3}), model, rows, companion)
    assert cut == pytest.approx(loss, rel=1e-12)
    assert gradients.keys() == parts.keys() and any(name.startswith("vision.") for name in parts)
    for name, gradient in gradients.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-6, atol=1e-9), name


def test_kept_features_give_the_loss_of_towers_that_are_asked_each_time(
    encoder: Path, tower: Path, tmp_path: Path
) -> None:
    objective = Contrastive(vision=str(tower), width=8)
    model = opened(objective, encoder)
    rows = samples(objective, model, pictures(tmp_path, 8))
    LastLayers(blocks=0).attach(model, seed=0)
    frozen = beside(objective, model, rows, tmp_path / "kept")
    kept, gradients = step(objective, model, rows, frozen)
    assert {name.partition(".")[0] for name in gradients} == {"joint"}
    asked, again = step(objective, model, rows, replace(frozen, seen_UF=None, said_RF=None))
    assert asked == pytest.approx(kept, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(again[name], gradient, atol=1e-5), name


def test_features_are_found_again_by_what_they_were_made_of(encoder: Path, tower: Path, tmp_path: Path) -> None:
    objective = Contrastive(vision=str(tower), width=8)
    model = opened(objective, encoder)
    rows = samples(objective, model, pictures(tmp_path, 8))
    LastLayers(blocks=0).attach(model, seed=0)
    folder = tmp_path / "kept"

    def files() -> int:
        beside(objective, model, rows, folder)
        return len(list((folder / "features").glob("*.npy")))

    assert files() == 2 and files() == 2
    with torch.no_grad():
        model.network.joint["text"].weight.add_(1.0)
    assert files() == 2, "the maps are not what features are made of"
    with torch.no_grad():
        model.network.vision.embeddings.cls_token.add_(1.0)
    assert files() == 3, "the image tower is"


def test_the_scale_is_clamped_and_never_decays(encoder: Path, tower: Path, tmp_path: Path) -> None:
    objective = Contrastive(vision=str(tower), width=8)
    model = opened(objective, encoder)
    rows = samples(objective, model, pictures(tmp_path, 4))
    LastLayers(blocks=0).attach(model, seed=0)
    scale = model.network.joint["logit"]["scale"]
    assert float(scale.detach()) == pytest.approx(math.log(1 / 0.07))
    optimiser = Optimiser(model.network.named_parameters(), Optim(weight_decay=0.5))
    groups = {group["weight_decay"]: group["params"] for group in optimiser.adam.param_groups}
    assert any(one is scale for one in groups[0.0]) and len(groups[0.5]) == 2
    with torch.no_grad():
        scale.fill_(7.0)
    step(objective, model, rows, beside(objective, model, rows, tmp_path / "kept"))
    assert float(scale.detach()) == pytest.approx(LARGEST)


def test_batch_norms_keep_their_statistics(tmp_path: Path) -> None:
    folder = tiny_convolutions(tmp_path / "tower")
    network, view = load_vision(str(folder), dtype=torch.float32), view_of(str(folder))
    drawn = torch.randint(0, 256, (6, view.height, view.width, 3), dtype=torch.uint8)
    alone = see(network, drawn[:1], view)
    before = {name: one.clone() for name, one in network.named_buffers()}
    network.train()
    together = see(network, drawn, view)
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert all(torch.equal(one, before[name]) for name, one in network.named_buffers())


def test_a_row_is_a_sample_for_each_text_and_a_bad_picture_is_a_reject(
    encoder: Path, tower: Path, tmp_path: Path
) -> None:
    objective = Contrastive(vision=str(tower))
    model = opened(objective, encoder)
    path = pictures(tmp_path, 2, several=True)
    (tmp_path / "pictures" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    first, second = (samples_of(row, objective, model.text) for row in read(DataSource(path=str(path))))  # type: ignore[arg-type]
    assert isinstance(first, list) and [one.id for one in first] == ["rows-0.jsonl:1#1", "rows-0.jsonl:1#2"]
    assert first[0].image == first[1].image != ""
    assert isinstance(second, Reject) and second.reason == "bad_image" and second.line == 2
    assert "1.png" in second.detail and len(second.detail) < 240


@pytest.mark.parametrize("too_long", ["truncate", "drop", "error"])
def test_a_long_text_loses_its_end_or_is_left_out(too_long: Any, encoder: Path, tower: Path, tmp_path: Path) -> None:
    objective = Contrastive(vision=str(tower), max_length=5, too_long=too_long)
    model = opened(objective, encoder)
    (row,) = read(DataSource(path=str(pictures(tmp_path, 1))))
    assert isinstance(row, Captioned)
    if too_long == "error":
        with pytest.raises(DataError, match="over max_length 5"):
            objective.encode(row, model.text)
        return
    outcome = objective.encode(row, model.text)
    if too_long == "drop":
        assert isinstance(outcome, Reject) and outcome.reason == "too_long"
    else:
        assert isinstance(outcome, Sample) and len(outcome.tokens) == 5
        assert int(outcome.tokens[-1]) == model.template.end
