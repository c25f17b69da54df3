"""Self-training on real reviews: with one label in twenty it beats the head that those labels alone make.

About ten minutes: `./scripts/check --slow tests/workflows/test_label_real.py -s`, after what
recipes/label_sentiment.yaml names at its head.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from mingshi.data.formats import DataSource
from mingshi.display import Silent
from mingshi.model.assets import MANIFEST, asset_folder
from mingshi.use import measure, open_model, usual_evaluators
from mingshi.workflows.label import label
from mingshi.workflows.label_file import read_labelling, read_rows
from mingshi.workflows.label_head import encoded

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "data" / "sentiment-chinese"
SEEDS = 5


def accuracy(folder: Path) -> float:
    """On the test rows, which nothing of this has chosen by."""
    model, test = open_model(folder), DataSource(path=str(DATA / "test.jsonl"))
    return measure(model, test, usual_evaluators(model)).scores["classification"].scores["accuracy"].value


@pytest.mark.slow
def test_one_label_in_twenty_and_the_texts_beat_the_labels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts.few_labels import main

    if not (asset_folder("multilingual-e5-small") / MANIFEST).is_file() or not DATA.is_dir():
        pytest.fail("fetch and cut as recipes/label_sentiment.yaml says")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA, tmp_path / "data" / "sentiment-chinese")
    gains = []
    for seed in range(SEEDS):
        few = tmp_path / "data" / "sentiment-chinese" / "few"
        assert main([str(DATA / "train.jsonl"), "--seed", str(seed), "--output", str(few)]) == 0
        told = read_labelling(ROOT / "recipes" / "label_sentiment.yaml")
        told = told.model_copy(update={"output": str(tmp_path / f"run-{seed}"), "seed": seed})
        rows = read_rows(told)
        found, made = label(told), encoded(told, rows, Silent())
        seeds = [rows.classes.index(str(row.label)) for row in rows.seeds]
        made.save(made.solve(seeds, np.empty(0, np.int64), [], weight=1.0), tmp_path / f"alone-{seed}" / "model")
        alone, trained = accuracy(tmp_path / f"alone-{seed}" / "model"), accuracy(tmp_path / f"run-{seed}" / "model")
        gains.append(trained - alone)
        sure = found["certificate"]
        with capsys.disabled():
            print(
                f"\nseed {seed}: seeds alone {alone:.3f}, self-trained {trained:.3f} (round {found['best']}); "
                f"{found['labelled']} of {found['unlabelled']} labelled, bound {sure and round(sure['bound'], 4)}"
            )
    mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    half = float(student.ppf(0.975, len(gains) - 1)) * spread
    with capsys.disabled():
        print(f"gain {mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})")
    assert mean - half > 0
