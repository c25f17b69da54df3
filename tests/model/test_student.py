"""A student cut out of a model computes what the model's first layers compute, and its folder proves itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from mingshi.data.plan import pack
from mingshi.errors import ModelError
from mingshi.model.export import verify
from mingshi.model.load import Model, load
from mingshi.model.logprob import head_of, prediction_states
from mingshi.model.student import RIDGE, first_layers, fit_head, save_student
from mingshi.types import Batch, Sample

TOKENS = torch.arange(5, 25)[None]


@torch.no_grad()
def test_it_computes_the_first_layers_and_the_same_head(tmp_path: Path) -> None:
    whole = load(tiny_model(tmp_path / "whole", layers=5), precision="float32").network
    save_student(first_layers(load(tmp_path / "whole"), 3), tmp_path / "cut", of=5, fitted=False)
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
    save_student(first_layers(load(tmp_path / "whole"), 2), tmp_path / "cut", of=4, fitted=False)
    settings = load(tmp_path / "cut", precision="float32").network.config
    assert settings.num_hidden_layers == len(settings.layer_types) == 2


@pytest.mark.parametrize("layers", [0, 2, 9])
def test_a_student_has_some_layers_and_not_all(tmp_path: Path, layers: int) -> None:
    folder = tiny_model(tmp_path / "whole", layers=2)
    with pytest.raises(ModelError, match=r"has 2 layers.*between 1 and 1"):
        first_layers(load(folder), layers)


def texts(model: Model, seed: int, count: int = 12) -> list[Batch]:
    """Streams of random tokens, each text predicted from its second token on."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = rng.integers(3, 300, 40).astype(np.int32)
        places = np.arange(39, dtype=np.int32)
        made.append(
            Sample(
                tokens=tokens[:-1],
                segments=np.array([[0, 39, -1]], dtype=np.int32),
                source=places,
                target=tokens[1:],
                weight=np.ones(39, dtype=np.float32),
                sequence=np.zeros(39, dtype=np.int32),
            )
        )
    return [pack(made, device=model.device)]


def test_a_fitted_head_solves_the_least_squares_and_is_saved(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "whole", layers=5))
    teacher, student = load(folder, precision="float32"), first_layers(load(folder, precision="float32"), 3)
    batches = texts(teacher, seed=0)
    own, taught = (
        torch.cat([prediction_states(one.network, batch) for batch in batches]).detach().double()
        for one in (student, teacher)
    )
    fit_head(student, teacher, batches)
    mean = own.square().sum(dim=0).mean()
    grown = torch.cat([own, torch.eye(own.shape[1], dtype=torch.float64) * (RIDGE * mean).sqrt()])
    solved = torch.linalg.lstsq(grown, torch.cat([taught, torch.zeros(own.shape[1], own.shape[1])])).solution
    wanted = teacher.network.lm_head.weight.double() @ solved.T
    torch.testing.assert_close(student.network.lm_head.weight.double(), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(student.network.get_input_embeddings().weight, teacher.network.lm_head.weight)
    save_student(student, tmp_path / "fitted", of=5, fitted=True)
    again = load(tmp_path / "fitted", precision="float32").network
    torch.testing.assert_close(again(input_ids=TOKENS).logits, student.network(input_ids=TOKENS).logits)
    assert all(check.passed for check in verify(tmp_path / "fitted"))


@torch.no_grad()
def test_a_fitted_head_is_nearer_to_the_teacher_on_other_texts(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "whole", layers=5))
    teacher, student = load(folder, precision="float32"), first_layers(load(folder, precision="float32"), 3)
    (other,) = texts(teacher, seed=1)

    def gap() -> float:
        told, found = (
            head_of(one.network).logits(prediction_states(one.network, other)).log_softmax(-1)
            for one in (teacher, student)
        )
        return float((told.exp() * (told - found)).sum(-1).mean())

    before = gap()
    fit_head(student, teacher, texts(teacher, seed=0, count=60))
    assert gap() < 0.8 * before


def test_a_head_needs_text(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "whole"))
    with pytest.raises(ModelError, match="no text to fit"):
        fit_head(first_layers(load(folder), 1), load(folder), [])
