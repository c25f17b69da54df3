"""Files of predictions: every metric is the library's that defines it, intervals hold, groups stay whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from mingshi.errors import DataError, RecipeError
from mingshi.evals import tallies
from mingshi.evals.predictions import Item
from mingshi.evals.scoring import Scoring, is_chinese, metric_names
from mingshi.workflows.score import Predictions, score

WORDS = ["the", "a", "cat", "dog", "sat", "on", "in", "mat", "house", "and", "ran", "far", "away", "today"]
CHINESE = "我爱北京天安门上海很远今天天气好吗"


def texts(count: int, *, seed: int = 0, chinese: bool = False) -> list[dict[str, Any]]:
    """Predictions that share about half with their references; some are empty, some have two references."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kept = generator.choice(list(CHINESE) if chinese else WORDS, generator.integers(3, 14)).tolist()
        said = [word for word in kept if generator.random() < 0.7] if number % 9 else []
        gap = "" if chinese else " "
        references = [gap.join(kept), gap.join(reversed(kept))][: 1 + number % 2]
        rows.append({"prediction": gap.join(said), "reference": references, "group": f"g{number // 4}"})
    return rows


def classes(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    names = ["坏", "好", "so-so"]
    truth = generator.choice(names, count, p=[0.2, 0.5, 0.3]).tolist()
    taken = [label if generator.random() < 0.7 else names[generator.integers(3)] for label in truth]
    return [{"prediction": one, "label": other} for one, other in zip(taken, truth, strict=True)]


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def without(rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def scored(path: Path, rows: Sequence[Mapping[str, Any]], **settings: Any) -> dict[str, Any]:
    return score(Predictions(paths=(written(path, rows),)), Scoring(**settings))


@pytest.mark.parametrize("chinese", [False, True])
def test_bleu_and_chrf_are_sacrebleus_with_its_signature(tmp_path: Path, chinese: bool) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rows = without(texts(60, chinese=chinese), "group")
    found = scored(tmp_path / "rows.jsonl", rows, metrics=("bleu", "chrf"))["metrics"]
    hypotheses = [row["prediction"] for row in rows]
    columns = [
        [each["reference"][place] if place < len(each["reference"]) else None for each in rows] for place in (0, 1)
    ]
    for name, metric in (
        ("bleu", sacrebleu.metrics.BLEU(tokenize="zh" if chinese else "13a")),
        ("chrf", sacrebleu.metrics.CHRF()),
    ):
        assert found[name].value == pytest.approx(metric.corpus_score(hypotheses, columns).score, abs=1e-9)
        assert found[name].signature.startswith(f"{name}|{metric.get_signature()}|items:")
        assert found[name].low < found[name].value < found[name].high


@pytest.mark.parametrize("chinese", [False, True])
def test_a_single_answer_scores_as_a_sentence_of_sacrebleu(tmp_path: Path, chinese: bool) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    bleu, chrf = sacrebleu.metrics.BLEU(tokenize="zh" if chinese else "13a"), sacrebleu.metrics.CHRF()
    long = [row for row in texts(60, chinese=chinese) if len(row["prediction"]) > 4]
    for row in without(long, "group")[:8]:
        found = scored(tmp_path / "row.jsonl", [row], metrics=("bleu", "chrf"))["metrics"]
        for name, metric in (("bleu", bleu), ("chrf", chrf)):
            expected = metric.sentence_score(row["prediction"], row["reference"]).score
            assert found[name].value == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_a_corpus_metric_is_that_of_corpora_drawn_anew(tmp_path: Path) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rows = [row | {"reference": row["reference"][:1]} for row in without(texts(80), "group")]
    found = scored(tmp_path / "rows.jsonl", rows, metrics=("chrf",))["metrics"]["chrf"]
    generator, metric = np.random.default_rng(1), sacrebleu.metrics.CHRF()
    drawn = []
    for _ in range(300):
        some = [rows[place] for place in generator.integers(0, 80, 80)]
        drawn.append(
            metric.corpus_score([row["prediction"] for row in some], [[row["reference"][0] for row in some]]).score
        )
    width = np.ptp(np.percentile(drawn, [2.5, 97.5]))
    assert found.high - found.low == pytest.approx(width, rel=0.25)


def test_classes_score_as_in_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    rows = [*classes(90), {"prediction": "odd", "label": "好"}]
    report = scored(tmp_path / "rows.jsonl", rows)
    found = {name: each.value for name, each in report["metrics"].items()}
    truth, taken = ([row[name] for row in rows] for name in ("label", "prediction"))
    names = sorted(set(truth) | set(taken))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, taken), abs=1e-12)
    for mean in ("macro", "weighted"):
        expected = precision_recall_fscore_support(truth, taken, average=mean, zero_division=0)
        for rate, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert found[f"{mean}_{rate}"] == pytest.approx(value, abs=1e-12)
    by_class = precision_recall_fscore_support(truth, taken, labels=names, zero_division=0)
    for rate, values in zip(("precision", "recall", "f1"), by_class, strict=False):
        for name, value in zip(names, values, strict=True):
            assert found[f"{rate}.{name}"] == pytest.approx(value, abs=1e-12)
    assert report["confusion"] == {"classes": names, "counts": confusion_matrix(truth, taken, labels=names).tolist()}


def test_rows_of_a_group_are_resampled_together(tmp_path: Path) -> None:
    """Four copies of each answer tell no more than one: the interval is that of the single rows."""
    single = [row | {"group": str(place)} for place, row in enumerate(texts(40))]
    whole = scored(tmp_path / "whole.jsonl", [row for row in single for _ in range(4)], metrics=("rouge",))
    once = scored(tmp_path / "once.jsonl", single, metrics=("rouge",))
    free = scored(tmp_path / "free.jsonl", without(single, "group") * 4, metrics=("rouge",))
    assert (whole["resampled"], whole["rows"], "resampled" in free) == (40, 160, False)
    for kind in ("rouge1", "rougeL"):
        one, other, loose = (each["metrics"][kind] for each in (whole, once, free))
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12)
        assert loose.high - loose.low < 0.6 * (one.high - one.low)


def test_the_same_file_and_seed_give_the_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    rows = texts(30)
    first, again, other = (scored(tmp_path / "rows.jsonl", rows, seed=seed)["metrics"] for seed in (0, 0, 1))
    assert repr(first) == repr(again)
    assert first["rougeL"].value == other["rougeL"].value and first["rougeL"].low != other["rougeL"].low


def test_empty_predictions_score_and_do_not_break(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    metrics = ("exact_match", "token_f1", "rouge", "bleu", "chrf", "length", "distinct", "repetition")
    rows = [{"prediction": "", "reference": text} for text in ("猫在睡觉", "a cat", "three")]
    found = {name: each.value for name, each in scored(tmp_path / "r.jsonl", rows, metrics=metrics)["metrics"].items()}
    assert found["empty"] == 1.0 and np.isnan(found["distinct_1"])
    assert all(found[name] == 0.0 for name in ("exact_match", "token_f1", "rougeL", "bleu", "chrf", "length_ratio"))


def test_two_files_are_compared_item_by_item(tmp_path: Path) -> None:
    from scipy.stats import binomtest

    rows = classes(120)
    better = [row | {"prediction": row["label"]} if place % 3 == 0 else row for place, row in enumerate(rows)]
    paths = (written(tmp_path / "a.jsonl", better), written(tmp_path / "b.jsonl", rows))
    report = score(Predictions(paths=paths))
    change = report["paired"]["accuracy"]
    wins = sum(one["prediction"] != other["prediction"] for one, other in zip(better, rows, strict=True))
    assert change["test"] == "exact McNemar" and change["p"] == pytest.approx(binomtest(wins, wins).pvalue)
    assert change["value"] == pytest.approx(wins / 120) and change["low"] > 0 and change["differs"]
    assert report["paired"].keys() == {name for name in report["metrics"] if "." not in name}
    assert all(each["p"] <= each["p_holm"] for each in report["paired"].values())
    for name, each in report["paired"].items():
        assert each["value"] == pytest.approx(report["metrics"][name].value - report["other"][name].value)
    same = score(Predictions(paths=(paths[1], paths[1])))["paired"]
    assert all(each["value"] == 0 and each["p"] == 1 and not each["differs"] for each in same.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "has fewer rows"),
        (lambda rows: [*rows[:5], rows[5] | {"reference": "another"}, *rows[6:]], ":6: reference: another item"),
    ],
)
def test_files_of_different_items_are_not_compared(tmp_path: Path, change: Any, words: str) -> None:
    rows = texts(12)
    paths = (written(tmp_path / "a.jsonl", rows), written(tmp_path / "b.jsonl", change(rows)))
    with pytest.raises(DataError, match=words):
        score(Predictions(paths=paths))


def test_intervals_cover_the_truth_as_often_as_they_say(tmp_path: Path) -> None:
    """Answers whose words are right by chance, in 200 worlds of 60 rows: token F1 and macro F1 of a known truth."""
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        truth_N = generator.random((60, 1)) < 0.5
        right_N = generator.random((60, 1)) < np.where(truth_N, 0.8, 0.6)
        known = {"n": 0, "y": 1}
        tally = tallies.Classes(known, every=True)
        items = [
            item("ny"[int(true == right)], "ny"[int(true)])
            for true, right in zip(truth_N[:, 0], right_N[:, 0], strict=True)
        ]
        tally.add(items, range(60))
        columns_NK = tally.columns(60)
        place = list(tally.names()).index("macro_f1")
        found = tallies_measured(tally, columns_NK, place)
        hits += found[0] <= 0.6970 <= found[1]
    assert 180 <= hits <= 198, hits


def item(prediction: str, label: str) -> Item:
    return Item(line=1, prediction=prediction, references=(), label=label, id=None, group=None, classified=False)


def tallies_measured(tally: tallies.Tally, columns_NK: np.ndarray, place: int) -> tuple[float, float]:
    from mingshi.evals import statistics

    signatures = list(tally.names())
    found = statistics.measured(
        lambda counts_RN: tally.values(counts_RN @ columns_NK), len(columns_NK), signatures=signatures
    )[place]
    return found.low, found.high


def test_more_rows_than_are_resampled_share_places_and_the_interval_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = without(texts(900), "group")
    single = scored(tmp_path / "rows.jsonl", rows, metrics=("token_f1",))["metrics"]["token_f1"]
    monkeypatch.setattr(tallies, "MOST_ITEMS", 199)
    shared = scored(tmp_path / "rows.jsonl", rows, metrics=("token_f1",))["metrics"]["token_f1"]
    assert (shared.value, shared.count) == (pytest.approx(single.value, abs=1e-12), 900)
    assert shared.high - shared.low == pytest.approx(single.high - single.low, rel=0.2)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = orjson.dumps({"prediction": "a cat sat here " * 20, "reference": "a cat was here " * 20}) + b"\n"
    peaks = []
    for count in (1_000, 5_000):
        path.write_bytes(line * count)
        tracemalloc.start()
        score(Predictions(paths=(str(path),)), Scoring(metrics=("exact_match",)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 60_000_000 and path.stat().st_size > 3_000_000


def test_groups_beyond_the_memory_for_their_names_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MOST_ITEMS", 5)
    places = tallies.Places()
    names = [f"g{number}" for number in range(40)]
    first = [places.of(name) for name in names]
    assert [places.of(name) for name in names] == first and set(first) == set(range(5)) and len(places.groups) == 5


def test_rows_that_cannot_be_used_are_named_or_counted(tmp_path: Path) -> None:
    rows = [*texts(3), {"reference": "x"}, {"prediction": None, "reference": "x"}, {"prediction": "x"}]
    path = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"(?s)rows.jsonl:4: no 'prediction'.*:6: no 'reference'.*3 of 6 rows"):
        score(Predictions(paths=(path,)))
    report = score(Predictions(paths=(path,), on_bad_row="skip"))
    assert (report["rows"], report["read"], report["used"], report["rejected"]) == (3, 6, 3, {"missing_field": 3})


def test_columns_may_have_other_names_and_labels_other_types(tmp_path: Path) -> None:
    rows = [{"answer": number % 2, "truth": number % 3 % 2} for number in range(12)]
    source = Predictions(
        paths=(written(tmp_path / "rows.jsonl", rows),), columns={"prediction": "answer", "label": "truth"}
    )
    assert score(source)["confusion"]["classes"] == ["0", "1"]


def test_many_labels_are_texts_and_unknown_metrics_are_refused(tmp_path: Path) -> None:
    rows = [{"prediction": str(number), "label": str(number)} for number in range(300)]
    with pytest.raises(DataError, match="more than 200 different classes"):
        scored(tmp_path / "rows.jsonl", rows)
    assert metric_names("rouge, bleu") == ("rouge", "bleu")
    with pytest.raises(RecipeError, match="rogue: no metric of ours"):
        metric_names("rogue")
    with pytest.raises(ValueError, match="needs an encoder"):
        Scoring(metrics=("bertscore",))


def test_a_language_is_chinese_by_half_of_its_letters() -> None:
    assert (
        is_chinese(["用GPT训练三个模型"]) and not is_chinese(["the word 猫 means cat"]) and not is_chinese(["", "1 2"])
    )
