"""Preferences of a model: by rewards since a first measurement, by likelihood, by length."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from networks import network
from tiny import tiny_model

from mingshi import use
from mingshi.data.formats import DataSource
from mingshi.errors import DataError, RecipeError
from mingshi.evals import PreferenceAccuracy, compare
from mingshi.model.load import load
from mingshi.model.logprob import token_log_probabilities
from mingshi.objectives import Dpo
from mingshi.objectives.dpo import pair
from mingshi.recipe import parse
from mingshi.types import Rendered, Sample

LENGTHS = [(5, 9, 4), (3, 4, 12), (8, 7, 7), (2, 1, 6), (6, 15, 2)]  # prompt, chosen, rejected


def rendered(prompt: list[int], answer: list[int]) -> Rendered:
    weights = (0.0,) * len(prompt) + (1.0,) * len(answer)
    return Rendered(tokens=(*prompt, *answer), weights=weights, reasons=("",) * len(weights))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    generator = np.random.default_rng(3)
    texts = [[generator.integers(0, 97, length).tolist() for length in lengths] for lengths in LENGTHS]
    return [
        pair(rendered(prompt, chosen), rendered(prompt, rejected), f"row-{number}")
        for number, (prompt, chosen, rejected) in enumerate(texts)
    ]


@pytest.fixture
def model() -> Any:
    return SimpleNamespace(network=network("llama"), device="cpu")


def measured(model: Any, samples: list[Sample], *, size: int = 2, **settings: Any) -> Any:
    streams = [Dpo().collate(samples[start : start + size], "cpu") for start in range(0, len(samples), size)]
    return PreferenceAccuracy().run(model, streams, **settings)


def sums(model: Any, samples: list[Sample]) -> list[list[float]]:
    found = []
    for sample in samples:
        with torch.no_grad():
            logp = token_log_probabilities(model.network, Dpo().collate([sample], "cpu")).double().numpy()
        found.append([float(logp[sample.sequence == side].sum()) for side in (0, 1)])
    return found


def test_before_training_every_reward_is_a_tie(model: Any, samples: list[Sample]) -> None:
    scores = measured(model, samples).scores
    assert scores["reward_accuracy"].value == 0.5 and scores["reward_margin"].value == 0.0
    assert scores["reward_accuracy"].count == 5 and math.isnan(scores["reward_accuracy"].low)


def test_rewards_are_what_changed_since_the_first_measurement(model: Any, samples: list[Sample]) -> None:
    before, first = measured(model, samples), sums(model, samples)
    model.network = network("llama", seed=7)
    after, last = measured(model, samples, before=before), sums(model, samples)
    margins = [(new[0] - old[0]) - (new[1] - old[1]) for old, new in zip(first, last, strict=True)]
    assert after.items["reward_margin"] == pytest.approx(margins, abs=1e-4)
    assert after.items["reward_accuracy"] == [float(margin > 0) for margin in margins]
    assert after.scores["reward_accuracy"].value == pytest.approx(np.mean(np.array(margins) > 0))
    change = compare(before, after)["reward_accuracy"]
    assert change.value == pytest.approx(after.scores["reward_accuracy"].value - 0.5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_likelihood_is_taken_per_token_and_does_not_depend_on_the_batches(
    size: int, model: Any, samples: list[Sample]
) -> None:
    found = measured(model, samples, size=size)
    means = [
        [total / length for total, length in zip(row, lengths[1:], strict=True)]
        for row, lengths in zip(sums(model, samples), LENGTHS, strict=True)
    ]
    assert found.items["likelihood_accuracy"] == [float(chosen > rejected) for chosen, rejected in means]
    assert (
        found.scores["likelihood_accuracy"].signature
        == measured(model, samples).scores["likelihood_accuracy"].signature
    )


def test_what_length_alone_would_score_stands_beside_it(model: Any, samples: list[Sample]) -> None:
    assert measured(model, samples).items["longer_is_chosen"] == [1.0, 0.0, 0.5, 0.0, 1.0]


def test_no_pairs_are_an_error(model: Any) -> None:
    with pytest.raises(DataError, match="no pair"):
        PreferenceAccuracy().run(model, [])


def test_a_file_of_preferences_is_measured_without_rewards(tmp_path: Path) -> None:
    rows = [{"prompt": "Say it.", "chosen": f"It is {number}.", "rejected": "No."} for number in range(4)]
    (tmp_path / "pairs.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    opened, source = load(tiny_model(tmp_path / "model")), DataSource(path=str(tmp_path / "pairs.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
        found = use.measure(opened, source, use.usual_evaluators(opened, source=source)).scores
    assert set(found["preference"].scores) == {"likelihood_accuracy", "longer_is_chosen"}
    assert found["preference"].scores["longer_is_chosen"].value == 1.0


# In a recipe


def recipe(objective: str, *, evals: list[dict[str, Any]] | None = None) -> Any:
    values: dict[str, Any] = {"model": "m", "output": "o", "test": [{"path": "t.jsonl"}]}
    values["stages"] = [{"data": [{"path": "d.jsonl"}], "objective": {"kind": objective}}]
    return parse(values if evals is None else values | {"evals": evals})


def test_what_is_measured_by_default_fits_the_objective() -> None:
    assert [evaluator.kind for evaluator in recipe("dpo").evals] == ["preference"]
    assert [evaluator.kind for evaluator in recipe("sft").evals] == ["perplexity"]


@pytest.mark.parametrize(
    ("objective", "kind", "said"),
    [
        (
            "dpo",
            "generation",
            "generation scores Chat rows, and the objective dpo is tested on Preference. Use preference",
        ),
        (
            "sft",
            "preference",
            "preference scores Preference rows, and the objective sft is tested on Chat. Use perplexity",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(objective: str, kind: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(objective, evals=[{"kind": kind}])
    assert recipe(objective, evals=[]).evals == ()


def test_a_mistake_elsewhere_is_told_alone() -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"model": "m", "output": "o", "stages": []})
    assert len(caught.value.problems) == 1
