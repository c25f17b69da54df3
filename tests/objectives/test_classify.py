"""Classification: rows to labels, losses against torch's own, balance, and frozen bodies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from encoders import body, tiny_tokenizer
from sklearn.utils.class_weight import compute_class_weight

from mingshi.data.plan import pack
from mingshi.display import Silent
from mingshi.errors import DataError, RecipeError
from mingshi.model import heads
from mingshi.model.adapters import Full, LastLayers, Lora
from mingshi.model.encoder import bare_template
from mingshi.model.load import Model, load
from mingshi.objectives import Classify
from mingshi.objectives.classify import balanced
from mingshi.types import Labelled, Reject, Sample

Label = str | float | tuple[str, ...]


def row(text: str, label: Label, *, line: int = 1) -> Labelled:
    return Labelled(id=f"{line}", source="rows.jsonl", line=line, group=text, content=text, label=label)


def rows(*labels: Label) -> list[Labelled]:
    return [row(f"text {place} " * (place + 1), label, line=place + 1) for place, label in enumerate(labels)]


@pytest.fixture(scope="module")
def text() -> Any:
    return SimpleNamespace(template=bare_template(tiny_tokenizer()))


def model_for(objective: Classify, folder: Path) -> Model:
    return load(folder, precision="float32", classes=objective.classes(seed=0))


def samples(objective: Classify, model: Any, labelled: list[Labelled]) -> list[Sample]:
    made = [objective.encode(one, getattr(model, "text", model)) for one in labelled]
    assert all(isinstance(one, Sample) for one in made), made
    return [replace(one, row=place) for place, one in enumerate(made) if isinstance(one, Sample)]


# What the training rows decide


def test_the_problem_and_the_labels_are_found_in_the_training_rows() -> None:
    single = Classify().settled(rows("spam", "ham", "spam"))
    assert (single.problem, single.labels) == ("single_label", ("ham", "spam"))
    multi = Classify().settled(rows(("b", "a"), (), ("c",)))
    assert (multi.problem, multi.labels) == ("multi_label", ("a", "b", "c"))
    number = Classify().settled(rows(1.5, -2.0))
    assert (number.problem, number.labels) == ("regression", ())
    assert number.classes(seed=0).names == ("number",)


def test_class_numbers_are_in_the_order_of_numbers() -> None:
    assert Classify().settled(rows("10", "2", "0", "none")).labels == ("0", "2", "10", "none")


def test_labels_that_are_given_stay_in_their_order() -> None:
    assert Classify(labels=("z", "a", "never")).settled(rows("a", "z")).labels == ("z", "a", "never")


def test_rows_of_two_kinds_are_an_error_with_file_and_line() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3: label: .*a list of classes.*first row one class"):
        Classify().settled(rows("a", "b", ("a",)))


def test_one_class_alone_is_an_error() -> None:
    with pytest.raises(DataError, match="all 2 training rows are of one class, spam"):
        Classify().settled(rows("spam", "spam"))


def test_balanced_weights_are_scikit_learns() -> None:
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    found = Classify(class_weights="balanced").settled(rows(*labels)).class_weights
    wanted = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    assert isinstance(found, dict) and [found[name] for name in "abc"] == pytest.approx(wanted)


def test_balanced_weights_of_several_labels_are_absent_over_present() -> None:
    found = Classify(class_weights="balanced").settled(rows(("a",), ("a", "b"), ("a",), ())).class_weights
    assert found == {"a": pytest.approx(1 / 3), "b": 3.0}


def test_weights_that_cannot_be_balanced_or_name_no_class_are_errors() -> None:
    with pytest.raises(DataError, match="0 of 2 training rows are c"):
        Classify(class_weights="balanced", labels=("a", "b", "c")).settled(rows("a", "b"))
    with pytest.raises(RecipeError, match="class_weights names spam"):
        Classify(class_weights={"spam": 2.0}).settled(rows("a", "b"))


@pytest.mark.parametrize(
    "fields",
    [
        {"problem": "regression", "focal": 1.0},
        {"problem": "multi_label", "sampling": "balanced"},
        {"labels": ("a", "a")},
        {"class_weights": {"a": 0.0}},
    ],
)
def test_settings_without_a_meaning_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"regression has no classes|one class a row|named twice|not above 0"):
        Classify(**fields)
    assert Classify(focal=1.0, sampling="balanced").settled(rows("a", "b")).focal == 1.0


def test_settings_that_turn_out_to_have_no_meaning_are_refused() -> None:
    with pytest.raises(RecipeError, match="the training rows are regression: a regression has no classes"):
        Classify(focal=2.0).settled(rows(1.0, 2.0))
    with pytest.raises(RecipeError, match="balanced sampling needs one class a row"):
        Classify(sampling="balanced").settled(rows(("a",), ("b",)))


# Rows


def test_a_text_stands_between_the_tokenizers_own_ends(text: Any) -> None:
    (sample,) = samples(Classify(problem="single_label", labels=("a", "b")), text, rows("b"))
    assert sample.tokens.tolist() == tiny_tokenizer()("text 0 ")["input_ids"]
    assert sample.labels.tolist() == [1.0] and len(sample.target) == 1


def test_a_long_text_loses_its_end_and_keeps_what_ends_every_text(text: Any) -> None:
    objective = Classify(problem="single_label", labels=("a",), max_length=7)
    whole = tiny_tokenizer()("word " * 20)["input_ids"]
    (sample,) = samples(objective, text, [row("word " * 20, "a")])
    assert sample.tokens.tolist() == [*whole[:6], whole[-1]]
    dropped = Classify(problem="single_label", labels=("a",), max_length=7, too_long="drop")
    assert isinstance(dropped.encode(row("word " * 20, "a"), text), Reject)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 63 tokens, over max_length 7"):
        Classify(problem="single_label", labels=("a",), max_length=7, too_long="error").encode(
            row("word " * 20, "a"), text
        )


@pytest.mark.parametrize(
    ("problem", "label"),
    [("single_label", "c"), ("single_label", ("a",)), ("single_label", 1.0), ("multi_label", ("a", "c"))],
)
def test_a_label_that_training_did_not_have_is_a_rejected_row(text: Any, problem: Any, label: Label) -> None:
    outcome = Classify(problem=problem, labels=("a", "b")).encode(row("x", label, line=7), text)
    assert isinstance(outcome, Reject)
    assert (outcome.reason, outcome.source, outcome.line) == ("unknown_label", "rows.jsonl", 7)
    assert repr(label if isinstance(label, str | float) or problem == "single_label" else "c") in outcome.detail


def test_several_labels_are_a_row_of_ones_and_a_number_is_itself(text: Any) -> None:
    multi = Classify(problem="multi_label", labels=("a", "b", "c"))
    found = samples(multi, text, rows(("c", "a"), (), "b"))
    assert [sample.labels.tolist() for sample in found] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    numbers = samples(Classify(problem="regression"), text, rows(2.5, "-3", "4e1"))
    assert [sample.labels.tolist() for sample in numbers] == [[2.5], [-3.0], [40.0]]
    assert isinstance(Classify(problem="regression").encode(row("x", "many"), text), Reject)


# Losses


def losses(objective: Classify, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """As the loop has it: one sum over one weight."""
    return (objective.losses(logits, labels) * weights).sum() / weights.sum()


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.fixture
def logits() -> torch.Tensor:
    return (torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 3).requires_grad_()


def test_the_weighted_loss_and_its_gradient_are_torchs(text: Any, logits: torch.Tensor) -> None:
    objective = Classify(problem="single_label", labels=("a", "b", "c"), class_weights={"a": 0.5, "c": 4.0})
    labels = [0, 1, 2, 2, 1, 0, 0, 1, 2]
    batch = pack(samples(objective, text, rows(*("abc"[place] for place in labels))), device="cpu")
    found = losses(objective, logits, batch.labels, batch.weights)
    wanted = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 4.0]))(logits, torch.tensor(labels))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(gradient(found, logits), gradient(wanted, logits), atol=1e-7)
    assert batch.weight == pytest.approx(3 * 0.5 + 3 + 3 * 4.0)


def test_a_row_that_weighs_three_is_three_rows(text: Any, logits: torch.Tensor) -> None:
    """In the loss, its gradient, and what a step is divided by; a class's weight comes on top."""
    fields = {"problem": "single_label", "labels": ("a", "b", "c"), "class_weights": {"c": 0.5}}
    times = [3, 1, 2, 1, 1, 4, 1, 2, 1]
    heavy = [replace(one, weight=float(count)) for one, count in zip(rows(*"abcabcabc"), times, strict=True)]
    objective = Classify.model_validate(fields).settled(heavy)
    assert objective.row_weights is True
    batch = pack(samples(objective, text, heavy), device="cpu")
    found = losses(objective, logits, batch.labels, batch.weights)
    places = torch.arange(9).repeat_interleave(torch.tensor(times))
    light = [one for one, count in zip(rows(*"abcabcabc"), times, strict=True) for _ in range(count)]
    repeated = pack(samples(Classify.model_validate(fields).settled(light), text, light), device="cpu")
    wanted = losses(objective, logits[places], repeated.labels, repeated.weights)
    assert batch.weight == pytest.approx(repeated.weight) and batch.weight == pytest.approx(sum(times) - 0.5 * 7)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(gradient(found, logits), gradient(wanted, logits), atol=1e-7)


def test_weights_count_where_training_rows_have_them_and_nobody_says_otherwise(text: Any) -> None:
    heavy = [replace(one, weight=2.5) for one in rows("a", "b")]
    assert Classify().settled(rows("a", "b")).row_weights is False
    assert Classify(row_weights=False).settled(heavy).row_weights is False
    for asked, weight in ((True, 2.5), (False, 1.0)):
        (one, _) = samples(Classify(row_weights=asked).settled(heavy), text, heavy)
        assert one.weight.tolist() == [weight]


def test_the_loss_of_several_labels_is_torchs(logits: torch.Tensor) -> None:
    objective = Classify(problem="multi_label", labels=("a", "b", "c"), class_weights={"a": 3.0, "b": 0.2})
    labels = (torch.rand(9, 3, generator=torch.Generator().manual_seed(1)) > 0.6).float()
    found = losses(objective, logits, labels, torch.ones(9))
    wanted = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 0.2, 1.0]))(logits, labels)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(gradient(found, logits), gradient(wanted, logits), atol=1e-7)


def test_the_loss_of_numbers_is_torchs(logits: torch.Tensor) -> None:
    numbers = torch.linspace(-2, 3, 9)[:, None]
    found = losses(Classify(problem="regression"), logits[:, :1], numbers, torch.ones(9))
    assert found.item() == pytest.approx(torch.nn.MSELoss()(logits[:, :1], numbers).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_is_its_definition(logits: torch.Tensor, gamma: float) -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2])
    found = Classify(problem="single_label", labels=("a", "b", "c"), focal=gamma).losses(logits, labels[:, None])
    share = logits.double().softmax(-1)[torch.arange(9), labels]
    assert torch.allclose(found.double(), -((1 - share) ** gamma) * share.log(), atol=1e-6)
    present = torch.nn.functional.one_hot(labels, 3)
    many = Classify(problem="multi_label", labels=("a", "b", "c"), focal=gamma).losses(logits, present.float())
    each = torch.where(present > 0, logits.double().sigmoid(), 1 - logits.double().sigmoid())
    assert torch.allclose(many.double(), (-((1 - each) ** gamma) * each.log()).mean(-1), atol=1e-6)


def test_focal_loss_of_a_certain_row_has_a_slope() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    objective = Classify(problem="single_label", labels=("a", "b"), focal=0.5)
    assert torch.isfinite(gradient(objective.losses(logits, torch.zeros(1, 1)).sum(), logits)).all()


def test_what_is_measured_says_whether_it_is_weighted(encoder: Path) -> None:
    plain, heavy = rows("a", "b", "a"), [replace(one, weight=2.0) for one in rows("a", "b", "a")]
    cases = ((None, plain, "accuracy"), ({"a": 3.0}, plain, "weighted_accuracy"), (None, heavy, "weighted_accuracy"))
    for weights, labelled, name in cases:
        objective = Classify(class_weights=weights).settled(labelled)
        model = model_for(objective, encoder)
        batch = pack(samples(objective, model, labelled), device="cpu")
        with torch.no_grad():
            found = objective.measure(model.network, batch, None)
            right = heads.logits(model.network, heads.features(model.network, batch)).argmax(-1) == batch.labels[:, 0]
        assert list(found) == ["loss", name]
        assert found[name].tolist() == (right * batch.parts).tolist()
        assert objective.loss(model.network, batch, None).sum.item() == pytest.approx(float(found["loss"].sum()))


# Balance


def test_a_balanced_epoch_has_as_many_rows_and_equally_many_of_each_class() -> None:
    classes = np.array([0] * 80 + [1] * 15 + [2] * 5)
    draw = balanced(classes, [60, 40], [1.0, 1.0], seed=0)
    for epoch in range(3):
        chosen = draw(epoch)
        counts = np.bincount(classes[chosen], minlength=3)
        assert abs(len(chosen) - 100) <= 2 and counts.max() - counts.min() <= 2
        assert np.bincount(chosen[classes[chosen] == 2], minlength=100)[95:].min() >= 6, "rare rows come again"
    assert np.array_equal(draw(1), balanced(classes, [60, 40], [1.0, 1.0], seed=0)(1))
    assert not np.array_equal(np.sort(draw(0)), np.sort(draw(1)))
    frequent = np.concatenate([draw(epoch) for epoch in range(3)])
    assert set(range(80)) <= set(frequent.tolist()), "frequent rows take turns"


def test_balance_keeps_what_the_sources_weigh() -> None:
    classes = np.array([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1])
    chosen = balanced(classes, [6, 6], [1.0, 0.0], seed=0)(0)
    assert set(chosen.tolist()) <= set(range(6)) and np.bincount(classes[chosen]).tolist() == [3, 3]


# Frozen bodies


def test_a_frozen_body_is_asked_once(encoder: Path, tmp_path: Path) -> None:
    objective = Classify(problem="single_label", labels=("a", "b"))
    model = model_for(objective, encoder)
    LastLayers(blocks=0).attach(model, seed=0)
    labelled = samples(objective, model, rows(*"abbaab"))
    passes: list[int] = []
    model.network.bert.register_forward_pre_hook(lambda *_: passes.append(1))

    def companion() -> Any:
        return objective.companion(model, labelled, folder=tmp_path, budget=64, display=Silent())

    kept = companion()
    first = len(passes)
    assert first > 1, "several streams"
    batch = pack([labelled[place] for place in (4, 0, 2)], device="cpu")
    found = objective.loss(model.network, batch, kept).sum
    found.backward()
    assert len(passes) == first, "only the head"
    trained = [name for name, one in model.network.named_parameters() if one.grad is not None and one.grad.any()]
    assert trained and all(name.startswith(("classifier", "bert.pooler")) for name in trained)
    assert found.item() == pytest.approx(objective.loss(model.network, batch, None).sum.item(), rel=1e-5)
    asked = len(passes)
    companion()
    assert len(passes) == asked, "the second run reads what the first wrote"
    with torch.no_grad():
        model.network.bert.embeddings.LayerNorm.weight[3] += 0.5
    changed = companion()
    assert len(passes) > asked and not np.allclose(changed.values_RW, kept.values_RW), "another body"


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=2)])
def test_a_body_that_trains_has_no_features(encoder: Path, tmp_path: Path, adapter: Any) -> None:
    objective = Classify(problem="single_label", labels=("a", "b"))
    model = model_for(objective, encoder)
    adapter.attach(model, seed=0)
    labelled = samples(objective, model, rows(*"ab"))
    assert objective.companion(model, labelled, folder=tmp_path, budget=64, display=Silent()) is None


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_adapter_trains_the_head_whole_and_nothing_of_the_base(tmp_path: Path, family: str) -> None:
    objective = Classify(problem="single_label", labels=("a", "b"))
    model = model_for(objective, body(tmp_path, family))
    Lora(rank=2).attach(model, seed=0)
    batch = pack(samples(objective, model, rows(*"abba")), device="cpu")
    objective.loss(model.network, batch, None).sum.backward()
    trained = {name for name, one in model.network.named_parameters() if one.grad is not None and one.grad.any()}
    head = {"bert": ("bert.pooler.", "classifier."), "llama": ("score.",)}[family]
    assert all(any(name.startswith(part) for name in trained) for part in head)
    assert all(".lora_" in name or name.startswith(head) for name in trained)
    assert not any("pooler" in name for name in trained if ".lora_" in name)
