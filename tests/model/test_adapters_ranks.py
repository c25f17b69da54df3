"""AdaLoRA: ranks fall to their mean, differ, survive a checkpoint and a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import logits, model_of, network, staged
from pydantic import ValidationError

from mingshi import checkpoint
from mingshi.errors import ModelError
from mingshi.loop import Work, train
from mingshi.model import export
from mingshi.model.adapters import AdaLora
from mingshi.model.load import Model, load


def ranks(model: Model) -> list[int]:
    return [int((one != 0).sum()) for name, one in model.network.named_parameters() if ".lora_E." in name]


@pytest.mark.parametrize(("steps", "every"), [(2, 10), (5, 1), (24, 4), (30, 7)])
def test_ranks_fall_to_their_mean_and_differ(steps: int, every: int) -> None:
    model = model_of(network("llama"))
    held = AdaLora(rank=4, first_rank=8, every=every).attach(model, seed=0)
    told = [step.metrics["mean_rank"] for step in train(staged(model, held, steps=steps))]
    assert sum(ranks(model)) == 4 * 14 and told[-1] == 4.0
    assert len(set(ranks(model))) > 1 and told[0] > 4.0
    settled = steps - min(round(0.3 * steps), steps - 2)
    assert set(told[settled - 1 :]) == {4.0}
    pattern = model.adapter.peft_config["default"].rank_pattern
    assert [sum(kept) for kept in pattern.values()] == ranks(model)


def test_one_step_is_too_few_to_take_ranks_away() -> None:
    model = model_of(network("llama"))
    held = AdaLora().attach(model, seed=0)
    with pytest.raises(ModelError, match="two or more"):
        list(train(staged(model, held, steps=1)))


def test_ranks_can_only_fall() -> None:
    assert AdaLora(rank=8)._first == 12 and AdaLora(rank=1)._first == 2
    with pytest.raises(ValidationError, match="first_rank is not above rank, 8"):
        AdaLora(rank=8, first_rank=8)


def test_the_penalty_is_told_beside_the_loss_and_pulls_factors_apart() -> None:
    found = []
    for weight in (0.0, 5.0):
        model = model_of(network("llama"))
        held = AdaLora(rank=4, first_rank=8, orthogonal=weight).attach(model, seed=0)
        steps = list(train(staged(model, held, steps=20, peak=0.05, clip=None)))
        assert (steps[0].metrics["penalty"] > 0) == (weight > 0)
        held.tuner.peft_config["default"].orth_reg_weight = 1.0
        found.append(float(held.penalty(model.network).detach()))
    assert found[1] < 0.5 * found[0]


def test_a_layer_that_lost_all_of_its_rank_is_saved_and_read(folder: Path, tmp_path: Path) -> None:
    model = load(folder, precision="float32")
    held = AdaLora(rank=2, first_rank=4).attach(model, seed=0)
    list(train(staged(model, held)))
    with torch.no_grad():
        model.network.model.layers[0].self_attn.q_proj.lora_E["default"].zero_()
    held.restore(model.network, {})
    saved = export.save(model, tmp_path / "saved", facts={}, card="")
    again, wanted = logits(load(saved, precision="float32")), logits(model)
    assert float((again - wanted).norm()) < 1e-6 * float(wanted.norm())


def test_importances_go_through_a_checkpoint_and_the_best_weights_have_their_own_ranks(
    folder: Path, tmp_path: Path
) -> None:
    def begun() -> tuple[Model, Work]:
        model = load(folder, precision="float32")
        return model, staged(model, AdaLora(rank=2, first_rank=6, every=3).attach(model, seed=0), steps=12)

    whole, reference = begun()
    wanted = [step.loss for step in train(reference)]
    model, half = begun()
    steps = train(half)
    found = [next(steps).loss for _ in range(5)]
    checkpoint.save(tmp_path / "points", run="a", step=5, tensors=half.tensors(), state={})
    saved = checkpoint.load(tmp_path / "points" / "step-00000005")
    assert len(saved.tensors["adapter"]) == 2 * 3 * 14
    middle, at_five = logits(model), sum(ranks(model))
    again, rest = begun()
    rest.restore(saved.tensors)
    assert found + [step.loss for step in train(rest, start=5)] == wanted
    assert ranks(again) == ranks(whole) and "adapter" not in rest.tensors()

    rest.restore_weights(saved.tensors)
    assert sum(ranks(again)) == at_five > 2 * 14 and torch.equal(logits(again), middle)
    kept = export.save(again, tmp_path / "best", facts={}, card="")
    found_there = logits(load(kept, precision="float32"))
    assert float((found_there - middle).norm()) < 1e-6 * float(middle.norm())
