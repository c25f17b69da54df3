"""A student cut out of a model computes what the model's first layers compute, and its folder proves itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from mingshi.errors import ModelError
from mingshi.model.export import verify
from mingshi.model.load import load
from mingshi.model.student import first_layers

TOKENS = torch.arange(5, 25)[None]


@torch.no_grad()
def test_it_computes_the_first_layers_and_the_same_head(tmp_path: Path) -> None:
    whole = load(tiny_model(tmp_path / "whole", layers=5), precision="float32").network
    first_layers(str(tmp_path / "whole"), 3, tmp_path / "cut")
    cut = load(tmp_path / "cut", precision="float32").network
    assert cut.config.num_hidden_layers == 3
    base = whole.base_model
    del base.layers[3:]
    wanted = whole.lm_head(base(input_ids=TOKENS, use_cache=False).last_hidden_state)
    torch.testing.assert_close(cut(input_ids=TOKENS).logits, wanted, rtol=2e-2, atol=2e-3)  # saved as it was loaded
    assert all(check.passed for check in verify(tmp_path / "cut"))


def test_kinds_of_layers_are_cut_with_them(tmp_path: Path) -> None:
    from networks import network

    made = network("qwen3", num_hidden_layers=4, vocab_size=400, layer_types=["full_attention"] * 4)
    made.save_pretrained(tmp_path / "whole")
    tiny_tokenizer().save_pretrained(tmp_path / "whole")
    first_layers(str(tmp_path / "whole"), 2, tmp_path / "cut")
    settings = load(tmp_path / "cut", precision="float32").network.config
    assert settings.num_hidden_layers == len(settings.layer_types) == 2


@pytest.mark.parametrize("layers", [0, 2, 9])
def test_a_student_has_some_layers_and_not_all(tmp_path: Path, layers: int) -> None:
    folder = tiny_model(tmp_path / "whole", layers=2)
    with pytest.raises(ModelError, match=r"has 2 layers.*between 1 and 1"):
        first_layers(str(folder), layers, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
