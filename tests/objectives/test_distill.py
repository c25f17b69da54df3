"""Distillation end to end on tiny models: whose distributions, at which rows, kept where."""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model

from mingshi.data.plan import micro_batches
from mingshi.display import Silent
from mingshi.errors import ModelError, RecipeError, ResourceError
from mingshi.model import teachers
from mingshi.model.adapters import Full
from mingshi.model.load import Model, load
from mingshi.objectives import Distill, Sft
from mingshi.objectives.distill import Teachers
from mingshi.recipe import parse
from mingshi.types import Chat, Message, Sample

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A student and two teachers whose distributions are far from flat."""
    made = {}
    for seed, name in enumerate(("student", "first", "second")):
        made[name] = tiny_model(tmp_path_factory.mktemp(name), seed=seed, layers=1 + seed)
        sharpened(made[name])
    return made


def sharpened(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: 4 * value for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def student(folders: Folders) -> Model:
    model = load(folders["student"], precision="float32")
    Full().attach(model, seed=0)
    return model


def distill(folders: Folders, *names: str, **fields: Any) -> Distill:
    return Distill(teachers=tuple({"model": str(folders[name])} for name in names or ("first",)), **fields)


def rows(objective: Distill, model: Model, count: int = 6) -> list[Sample]:
    made = []
    for number in range(count):
        turns = []
        for turn in range(1 + number % 2):
            turns.append(Message(role="user", content=f"Say {number}, {turn}. " + "Please. " * (number % 3)))
            turns.append(Message(role="assistant", content="yes " * (1 + number % 4) + f"{number} 你好"))
        chat = Chat(id=str(number), source="rows", line=number + 1, group=str(number), messages=tuple(turns))
        sample = objective.encode(chat, model.text)
        assert isinstance(sample, Sample)
        made.append(replace(sample, row=number))
    return made


def beside(objective: Distill, model: Model, samples: list[Sample], folder: Path, display: Any = None) -> Teachers:
    return objective.companion(model, samples, folder=folder, budget=60, display=display or Silent())


def plain_logits(folder: Path, sample: Sample) -> torch.Tensor:
    """transformers' own, of one sample by itself, in float64."""
    from transformers import LlamaForCausalLM

    network = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        logits: torch.Tensor = network(torch.from_numpy(sample.tokens).long()[None]).logits[0]
    return logits


def wanted(folders: Folders, objective: Distill, samples: list[Sample], shares: np.ndarray) -> float:
    """The loss, by the definition."""
    total, square = 0.0, objective.temperature**2
    names = [Path(one.model).name for one in objective.teachers]
    places = {path.name: path for path in folders.values()}
    for sample, share in zip(samples, shares, strict=True):
        own = plain_logits(folders["student"], sample)
        taught = [plain_logits(places[name], sample) / objective.temperature for name in names]
        if objective.combine == "logits":
            p = sum(part * logits for part, logits in zip(share, taught, strict=True)).softmax(-1)
        else:
            p = sum(part * logits.softmax(-1) for part, logits in zip(share, taught, strict=True))
        q = (own / objective.temperature).softmax(-1)
        apart = (p * (p / q).log()).sum(-1)
        answer = np.zeros(len(sample.tokens), dtype=bool)
        answer[sample.source] = True
        nats = -own.log_softmax(-1)[torch.from_numpy(sample.source).long(), torch.from_numpy(sample.target).long()]
        drawn = float(apart[answer].sum()) + objective.prompt * float(apart[~answer].sum())
        total += objective.alpha * square * drawn + (1 - objective.alpha) * float(nats.sum())
    return total


def test_it_encodes_as_plain_fine_tuning_does(folders: Folders, student: Model) -> None:
    for one, other in zip(rows(distill(folders), student), rows(Sft(), student), strict=True):  # type: ignore[arg-type]
        assert all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("tokens", "source", "target", "weight")
        )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 2.0, "alpha": 0.7},
        {"temperature": 3.0, "alpha": 1.0, "prompt": 0.25},
        {"combine": "logits", "temperature": 2.0},
        {"combine": "route", "route_temperature": 0.5},
        {"combine": "route"},
    ],
    ids=str,
)
def test_the_loss_is_the_definition_on_plain_logits(
    folders: Folders, student: Model, tmp_path: Path, fields: dict[str, Any]
) -> None:
    objective = distill(folders, "first", "second", **fields)
    samples = rows(objective, student)
    companion = beside(objective, student, samples, tmp_path)
    order = [4, 0, 5, 2, 1, 3]
    batch = objective.collate([samples[place] for place in order], "cpu")
    found = objective.loss(student.network, batch, companion)
    assert float(found.sum.detach()) == pytest.approx(wanted(folders, objective, samples, companion.shares), rel=2e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(folders: Folders, student: Model, tmp_path: Path) -> None:
    for shape in ("forward", "reverse", 0.5):
        objective = distill(folders, "student", alpha=1.0, divergence=shape, temperature=2.0)
        samples = rows(objective, student)
        companion = beside(objective, student, samples, tmp_path)
        found = objective.loss(student.network, objective.collate(samples, "cpu"), companion)
        student.network.zero_grad(set_to_none=True)
        found.sum.backward()
        assert abs(float(found.sum.detach())) < 1e-4
        assert max(float(one.grad.abs().max()) for one in student.network.parameters()) < 1e-3


@pytest.mark.parametrize("fields", [{}, {"prompt": 0.3, "combine": "logits", "temperature": 2.0}], ids=str)
def test_cutting_a_step_changes_nothing(
    folders: Folders, student: Model, tmp_path: Path, fields: dict[str, Any]
) -> None:
    objective = distill(folders, "first", "second", **fields)
    samples = rows(objective, student)
    companion = beside(objective, student, samples, tmp_path)

    def gradients(cuts: list[list[int]]) -> tuple[float, torch.Tensor]:
        student.network.zero_grad(set_to_none=True)
        total = 0.0
        for cut in cuts:
            batch = objective.collate([samples[place] for place in cut], "cpu")
            found = objective.loss(student.network, batch, companion)
            found.sum.backward()
            total += float(found.sum.detach())
        return total, torch.cat([one.grad.flatten() for one in student.network.parameters()])

    whole = gradients([list(range(len(samples)))])
    for budget in (1, 90, 150):
        cuts = micro_batches([len(sample.tokens) for sample in samples], budget)
        assert len(cuts) > 1
        found = gradients(cuts)
        assert found[0] == pytest.approx(whole[0], rel=1e-5)
        assert float((found[1] - whole[1]).norm()) <= 1e-5 * float(whole[1].norm())


@pytest.mark.parametrize("fields", [{}, {"prompt": 0.3}], ids=str)
def test_what_is_measured_is_what_is_trained(
    folders: Folders, student: Model, tmp_path: Path, fields: dict[str, Any]
) -> None:
    objective = distill(folders, "first", "second", temperature=2.0, combine="route", route_temperature=1.0, **fields)
    samples = rows(objective, student)
    batch = objective.collate(samples, "cpu")
    companion = beside(objective, student, samples, tmp_path)
    trained = objective.loss(student.network, batch, companion)
    with torch.no_grad():
        measured = objective.measure(student.network, batch, companion)
        plain = Sft().measure(student.network, batch, None)
    assert float(measured["distillation"].sum()) == pytest.approx(float(trained.sum.detach()), rel=1e-5)
    assert float(measured["divergence"].sum()) == pytest.approx(float(trained.metrics["divergence"]), rel=1e-5)
    assert measured["nats_per_token"].tolist() == pytest.approx(plain["nats_per_token"].tolist(), rel=1e-5)
    shares = [float(trained.metrics[f"teacher_{number}"]) for number in (1, 2)]
    assert sum(shares) == pytest.approx(batch.weight, rel=1e-5) and min(shares) > 0


# Several teachers


def test_a_route_follows_each_teachers_likelihood_of_the_answer(
    folders: Folders, student: Model, tmp_path: Path
) -> None:
    nats = [np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 3.0])]
    assert distill(folders, "first", "second", combine="route").shares(nats).tolist() == [[1, 0], [0, 1], [1, 0]]
    warm = distill(folders, "first", "second", combine="route", route_temperature=0.5).shares(nats)
    odds = np.exp(-np.stack(nats, 1) / 0.5)
    np.testing.assert_allclose(warm, odds / odds.sum(1, keepdims=True), rtol=1e-12)
    objective = distill(folders, "first", "second", combine="route")
    samples = rows(objective, student)
    kept = beside(objective, student, samples, tmp_path).kept
    for name, one in zip(("first", "second"), kept, strict=True):
        surprises = []
        for sample in samples:
            logp = plain_logits(folders[name], sample).log_softmax(-1)
            surprises.append(-float(logp[sample.source.astype(int), sample.target.astype(int)].mean()))
        np.testing.assert_allclose(one.nats, surprises, rtol=1e-5)


def test_the_surprise_of_every_sample_is_asked_only_where_it_routes(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "ENOUGH", 1)
    monkeypatch.setattr(teachers, "TOGETHER", 1)  # a stream for each sample
    for combine, known in (("route", 6), ("probabilities", 1)):
        samples = rows(objective := distill(folders, combine=combine), student, count=6)
        assert np.isfinite(beside(objective, student, samples, tmp_path / combine).kept[0].nats).sum() == known


def test_weights_of_teachers_are_shares(folders: Folders) -> None:
    both = tuple({"model": str(folders[name]), "weight": weight} for name, weight in (("first", 3.0), ("second", 1.0)))
    nats = [np.zeros(2), np.ones(2)]
    assert Distill(teachers=both).shares(nats).tolist() == [[0.75, 0.25], [0.75, 0.25]]
    routed = Distill(teachers=both, combine="route", route_temperature=1.0).shares(nats)
    assert routed[0, 0] == pytest.approx(3 / (3 + np.exp(-1)))


# What is kept


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded from here on."""
    names: list[str] = []

    def counted(name: Any, **rest: Any) -> Model:
        names.append(Path(name).name)
        return load(name, **rest)

    monkeypatch.setattr(teachers, "load", counted)
    return names


def test_a_teacher_is_asked_once(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = loads(monkeypatch)
    objective = distill(folders)
    samples = rows(objective, student)
    first = beside(objective, student, samples, tmp_path)
    again = beside(distill(folders, alpha=0.9, temperature=3.0, divergence="reverse"), student, samples, tmp_path)
    assert len(names) == 1
    np.testing.assert_array_equal(first.kept[0].columns["hidden"], again.kept[0].columns["hidden"])
    beside(objective, student, samples[:3], tmp_path)
    beside(distill(folders, prompt=0.1), student, samples, tmp_path)
    assert len(names) == 3, "other rows are another question"


def test_other_weights_of_the_same_name_are_asked_again(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = loads(monkeypatch)
    folder = tmp_path / "teacher"
    shutil.copytree(folders["first"], folder)
    objective = distill({"first": folder})
    samples = rows(objective, student)
    before = beside(objective, student, samples, tmp_path / "cache").kept[0].nats
    sharpened(folder)
    after = beside(objective, student, samples, tmp_path / "cache").kept[0].nats
    assert len(names) == 2 and not np.allclose(before, after)


def test_what_was_damaged_on_disk_is_made_again(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = distill(folders)
    samples = rows(objective, student)
    sound = np.array(beside(objective, student, samples, tmp_path).kept[0].columns["hidden"])
    for path in [*tmp_path.rglob("hidden.bin"), *tmp_path.rglob("head.safetensors")]:
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    names = loads(monkeypatch)
    mended = beside(objective, student, samples, tmp_path)
    np.testing.assert_array_equal(sound, mended.kept[0].columns["hidden"])
    assert len(names) == 1
    assert not list(tmp_path.glob(".*")), "nothing half-made stays"


def test_the_teachers_network_is_gone_while_the_student_trains(
    folders: Folders, student: Model, tmp_path: Path
) -> None:
    def networks() -> int:
        gc.collect()
        return sum(type(one).__name__ == "LlamaForCausalLM" for one in gc.get_objects())

    objective = distill(folders)
    before = networks()
    companion = beside(objective, student, rows(objective, student), tmp_path)
    assert networks() == before and companion.kept[0].head is not None


def test_a_disk_too_small_is_said_before_the_work(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = distill(folders)
    samples = rows(objective, student)
    said: list[str] = []
    watcher = SimpleNamespace(say=said.append, track=Silent().track)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match=r"1000|0\.0 MiB are free.*cache\.keep to top-k or sampled"):
        beside(objective, student, samples, tmp_path, watcher)
    count = sum(len(sample.target) for sample in samples)
    assert f"{count} rows of 128 bytes" in said[0]
    assert not list(tmp_path.iterdir())


def test_all_tokens_but_one_and_a_bucket_are_the_whole_distribution(
    folders: Folders, student: Model, tmp_path: Path
) -> None:
    fields = {"temperature": 2.0, "prompt": 0.2}
    samples = rows(distill(folders), student)
    compared = []
    for cache in ({"keep": "hidden"}, {"keep": "top-k", "count": 100_000}):
        objective = distill(folders, "first", cache=cache, **fields)
        companion = beside(objective, student, samples, tmp_path)
        batch = objective.collate(samples[::-1], "cpu")
        student.network.zero_grad(set_to_none=True)
        found = objective.loss(student.network, batch, companion)
        found.sum.backward()
        compared.append(
            (float(found.sum.detach()), torch.cat([one.grad.flatten() for one in student.network.parameters()]))
        )
    assert compared[0][0] == pytest.approx(compared[1][0], rel=1e-4)
    assert float((compared[0][1] - compared[1][1]).norm()) < 1e-4 * float(compared[0][1].norm())


def test_drawn_tokens_give_the_whole_divergence_on_average(folders: Folders, student: Model, tmp_path: Path) -> None:
    """Without a bias the distance falls with the root of the draws, and so to a fifth with 25 times as many."""
    samples = rows(distill(folders), student)
    gradients = []
    for cache in ({"keep": "hidden"}, *({"keep": "sampled", "count": count} for count in (1_000, 25_000))):
        objective = distill(folders, "first", "second", alpha=1.0, temperature=2.0, cache=cache)
        companion = beside(objective, student, samples, tmp_path)
        student.network.zero_grad(set_to_none=True)
        objective.loss(student.network, objective.collate(samples, "cpu"), companion).sum.backward()
        gradients.append(torch.cat([one.grad.flatten() for one in student.network.parameters()]))
    exact, few, many = gradients
    off = [float((drawn - exact).norm() / exact.norm()) for drawn in (few, many)]
    assert off[1] < 0.1 and off[0] / off[1] == pytest.approx(5, rel=0.3)


# What is refused


def test_teachers_with_other_tokens_are_refused_with_the_mend(
    folders: Folders, student: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_model(tmp_path / "other")
    written = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(written.replace('"<|im_end|>"', '"<|end|>"'))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (other / name).write_text((other / name).read_text().replace("<|im_end|>", "<|end|>"))
    names = loads(monkeypatch)
    objective = distill({"first": folders["first"], "other": other}, "first", "other")
    with pytest.raises(ModelError, match=r"another tokenizer.*mingshi predict .*sft"):
        beside(objective, student, rows(objective, student), tmp_path / "cache")
    assert names == [], "the first teacher does not work in vain"


def test_a_teacher_that_is_not_there_is_named(folders: Folders, student: Model, tmp_path: Path) -> None:
    objective = distill({"first": tmp_path / "nowhere"})
    with pytest.raises(ModelError, match="nowhere"):
        beside(objective, student, rows(objective, student), tmp_path / "cache")


def refusal(**fields: Any) -> str:
    objective = {"kind": "distill", "teachers": [{"model": "a"}, {"model": "b"}], **fields}
    stage = {"data": [{"path": "rows.jsonl"}], "objective": objective}
    with pytest.raises(RecipeError) as caught:
        parse({"model": "m", "output": "runs/x", "stages": [stage]})
    return str(caught.value)


def test_what_cannot_go_together_is_refused_in_the_recipe() -> None:
    few = {"keep": "sampled"}
    assert "forward divergence alone" in refusal(cache=few, divergence="reverse")
    assert "forward divergence alone" in refusal(cache={"keep": "top-k"}, divergence=0.5)
    assert "cannot be averaged" in refusal(cache=few, combine="logits")
    assert "teachers" in refusal(teachers=[])
    assert "divergence" in refusal(divergence=1.5)
    assert "divergence" in refusal(divergence="sideways")
