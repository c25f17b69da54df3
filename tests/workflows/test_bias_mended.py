"""A planted bias is learnt by a classifier, and half of it or more goes with each remedy at no cost of accuracy.

Texts say who wrote them and one word. Two words tell the label nearly surely; of two others it is right in six of ten,
and there a model that was shown good men and bad women goes by who wrote. Test rows know no such difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import tiny_encoder

from mingshi.data.formats import DataSource
from mingshi.recipe import parse
from mingshi.run import execute
from mingshi.use import open_model
from mingshi.workflows.groups import Grouping, groups
from mingshi.workflows.remedy import Balancing, balance

WORDS = {"sure": ("superb", "awful", 0.95), "vague": ("warm", "cold", 0.6)}
SEEDS = (0, 1, 2)


def written(path: Path, count: int, favour: float, seed: int) -> Path:
    """A share `favour` of men's rows is good, and as large a one of women's bad."""
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        who = ("he", "she")[place % 2]
        good = generator.random() < (favour if who == "he" else 1 - favour)
        fine, poor, right = WORDS[("sure", "vague")[place // 2 % 2]]
        word = fine if good == (generator.random() < right) else poor
        rows.append({"text": f"{who} says {word}", "label": "good" if good else "bad", "who": who})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def learnt(model: Path, train: Path, test: Path, output: Path, seed: int) -> dict[str, float]:
    stage = {
        "data": [{"path": str(train)}],
        "objective": {"kind": "classify", "max_length": 32},
        "optim": {"learning_rate": 5e-3},
        "adapter": {"kind": "full"},
        "batch": 32,
        "epochs": 4,
    }
    values = {"model": str(model), "output": str(output), "precision": "float32", "seed": seed, "stages": [stage]}
    trained = open_model(execute(parse(values)).folder)
    found = groups(trained, DataSource(path=str(test)), Grouping(protected=("who",), positive="good"))
    compared: dict[str, Any] = found["attributes"]["who"]
    told = {name: score["value"] for name, score in compared["gaps"]["good"].items()}
    told["accuracy"] = float(np.mean([one["accuracy"]["value"] for one in compared["groups"].values()]))
    return told | {"changed": found["swaps"]["changed"]["value"]}


def test_reweighing_and_resampling_halve_the_gap_for_two_points_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    model = tiny_encoder(tmp_path / "model")
    told: dict[str, list[dict[str, float]]] = {}
    for seed in SEEDS:
        plain = written(tmp_path / f"plain{seed}.jsonl", 480, 0.8, seed)
        test = written(tmp_path / f"test{seed}.jsonl", 400, 0.5, 100 + seed)
        for how in ("plain", "weights", "sample"):
            train = plain
            if how != "plain":
                train = tmp_path / f"{how}{seed}.jsonl"
                balance(plain, train, Balancing.model_validate({"how": how, "protected": "who", "seed": seed}))
            told.setdefault(how, []).append(learnt(model, train, test, tmp_path / f"{how}{seed}", seed))
    means = {how: {name: float(np.mean([run[name] for run in runs])) for name in runs[0]} for how, runs in told.items()}
    before = means.pop("plain")
    assert before["demographic_parity_difference"] > 0.3 and before["changed"] > 0.3, before
    for how, after in means.items():
        for gap in ("demographic_parity_difference", "equalised_odds_difference", "changed"):
            assert after[gap] <= 0.5 * before[gap], (how, gap, before, after)
        assert after["accuracy"] >= before["accuracy"] - 0.02, (how, before, after)
