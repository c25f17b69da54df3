"""One, two and four processes make the same steps, whatever cut them, and go on from one another's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from parallel.scenes import ADALORA, FULL, LORA, dpo, place_in, play, run_of, said, selected, sft, written
from safetensors.torch import load_file

RECIPES = {
    "lora": lambda place: sft(place, adapter=LORA, checkpoint=5),
    "full": lambda place: sft(place, adapter=FULL, checkpoint=5, optim={"learning_rate": 2e-3, "weight_decay": 0.1}),
    "adalora": lambda place: sft(place, adapter=ADALORA, validation=0.0),
    "dpo": dpo,
}
STOPPED_AT = 3  # the step after the one in which the signal comes; no checkpoint is due after either


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_in(tmp_path_factory.mktemp("equality"))


@pytest.fixture(scope="module")
def ended(place: Path, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    shared, resumed = selected(request, "name", "count"), selected(request, "name", "after")
    counts = shared | {(name, 1) for name, _ in shared | resumed}
    scenes: list[dict[str, Any]] = [
        {"name": f"{name}-{count}", "count": count, "recipe": written(place, f"{name}-{count}", RECIPES[name](place))}
        for name, count in sorted(counts)
    ]
    for name, after in sorted(resumed):
        recipe = written(place, f"{name}-2-{after}", RECIPES[name](place))
        fault = {"process": 1, "where": "step", "at": STOPPED_AT - 1, "how": "term"}
        scenes.append({"name": f"{name}-2-{after}-stopped", "count": 2, "recipe": recipe, "fault": fault})
        scenes.append({"name": f"{name}-2-{after}", "count": after, "recipe": recipe, "words": ["--resume"]})
    return play(place, scenes)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lora", 2),
        ("full", 4),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in [("lora", 4), ("full", 2)]),
        *(pytest.param(name, count, marks=pytest.mark.slow) for name in ("adalora", "dpo") for count in (2, 4)),
    ],
)
def test_losses_and_weights_do_not_depend_on_the_number_of_processes(
    name: str, count: int, place: Path, ended: dict[str, dict[str, Any]]
) -> None:
    assert ended[f"{name}-1"]["codes"] == [0], said(place, f"{name}-1", 0)
    assert ended[f"{name}-{count}"]["codes"] == [0] * count, said(place, f"{name}-{count}", count - 1)
    assert_same(place, f"{name}-1", f"{name}-{count}")
    assert [said(place, f"{name}-{count}", number) for number in range(1, count)] == [""] * (count - 1)
    alone, together = (sorted(everything(place / f"{name}-{each}")) for each in (1, count))
    assert alone == together


@pytest.mark.parametrize(
    ("name", "after"),
    [("full", 4), *(pytest.param(*one, marks=pytest.mark.slow) for one in [("lora", 1), ("lora", 4), ("full", 1)])],
)
def test_one_process_has_a_signal_all_save_and_another_number_of_them_goes_on(
    name: str, after: int, place: Path, ended: dict[str, dict[str, Any]]
) -> None:
    assert ended[f"{name}-2-{after}-stopped"]["codes"] == [75, 75]
    assert f"stopped after step {STOPPED_AT} of 8" in said(place, f"{name}-2-{after}-stopped", 0)
    assert said(place, f"{name}-2-{after}-stopped", 1) == ""
    assert ended[f"{name}-2-{after}"]["codes"] == [0] * after, said(place, f"{name}-2-{after}", 0)
    assert f"Resuming after step {STOPPED_AT} of 8" in said(place, f"{name}-2-{after}", 0)
    assert_same(place, f"{name}-1", f"{name}-2-{after}")


def everything(run: Path) -> list[str]:
    return [str(path.relative_to(run)) for path in run.rglob("*")]


def assert_same(place: Path, one: str, other: str) -> None:
    whole, shared = run_of(place, one), run_of(place, other)
    assert shared.status == "done"
    assert [line["ids"] for line in shared.steps] == [line["ids"] for line in whole.steps]
    for mine, theirs in zip(shared.steps, whole.steps, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4, abs=1e-5)
        assert mine["metrics"] == pytest.approx(theirs["metrics"], abs=1e-4)
        for name in ("number", "epoch", "learning_rate", "tokens", "trained"):
            assert mine[name] == theirs[name]
    assert len(shared.evals) == len(whole.evals)
    for mine, theirs in zip(shared.evals, whole.evals, strict=True):
        for name, score in mine["scores"].items():
            assert score["value"] == pytest.approx(theirs["scores"][name]["value"], rel=1e-4)
    (published,) = [*(place / one).glob("adapter/*.safetensors"), *(place / one).glob("model/*.safetensors")]
    weights = load_file(place / other / published.relative_to(place / one))
    for name, value in load_file(published).items():
        assert (weights[name] - value).abs().max() < 1e-4, name
