"""One state a text: what transformers' own body gives, kept, and the same for equal texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import tiny_encoder
from transformers import AutoModel, AutoTokenizer

from mingshi.checks import states
from mingshi.checks.states import States

TEXTS = ["The quick brown fox", "春眠不觉晓", "over the lazy dog. " * 40, "\U000f0000", "The quick brown fox"]


def test_a_state_is_the_mean_of_the_last_hidden_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_encoder(tmp_path / "body")
    monkeypatch.setattr(states, "BLOCK", 2)
    made = States(folder, folder=tmp_path / "kept")
    assert [made.add(text) for text in TEXTS] == [0, 1, 2, 3, 0]
    values = made.values().astype(np.float64)
    assert np.linalg.norm(values, axis=1) == pytest.approx(np.ones(4), abs=2e-3)
    network, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, found in zip(TEXTS[:3], values, strict=False):
        ids = tokenizer(text.strip(), return_tensors="pt", truncation=True, max_length=130)["input_ids"]
        with torch.inference_mode():
            wanted = network(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        assert found == pytest.approx(wanted / np.linalg.norm(wanted), abs=2e-3)


def test_what_was_computed_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_encoder(tmp_path / "body")
    first = States(folder, folder=tmp_path / "kept")
    first.add(TEXTS[0])
    before = first.values()
    monkeypatch.setattr("mingshi.model.heads.features", lambda *_: pytest.fail("computed again"))
    second = States(folder, folder=tmp_path / "kept")
    second.add(TEXTS[0])
    assert (second.values() == before).all()


def test_e5_reads_what_it_was_trained_to_see(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "multilingual-e5-tiny")
    made, plain = States(folder, folder=tmp_path / "a"), States(tiny_encoder(tmp_path / "body"), folder=tmp_path / "b")
    made.add("world")
    plain.add("query: world")
    assert (made.values() == plain.values()).all()
