"""Drift that is planted is found and named, and where there is none, alarms are as rare as they are said to be."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import orjson
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from mingshi.checks import drift, drift_tests
from mingshi.checks.drift import Drift
from mingshi.checks.drift_features import SHAPES, Features, features, tokens
from mingshi.checks.drift_words import differing, log_odds
from mingshi.checks.rows import Row, Split
from mingshi.evals.statistics import holm
from mingshi.types import Finding

from .topics import texts


def row(text: str, line: int, split: Split, *, label: str | None = None, group: str = "") -> Row:
    source = f"{split}.jsonl"
    return Row(split=split, source=source, line=line, id=str(line), group=group, prompt=text, answer="", label=label)


def found(*sides: tuple[Split, Sequence[str], Sequence[str] | None], seed: int = 0) -> dict[str, Finding]:
    """Findings by kind of splits, their texts and their labels."""
    check = Drift(seed=seed)
    for split, said, labels in sides:
        for line, text in enumerate(said, start=1):
            check.add(row(text, line, split, label=labels[line - 1] if labels else None))
    told = check.findings()
    orjson.dumps([asdict(finding) for finding in told])  # findings can be written as JSON
    return {finding.kind: finding for finding in told}


def drawn(seed: int, rows: int, new: float, *, chinese: bool = False) -> list[float]:
    """P-values of all tests of texts together, of `rows` rows a side."""
    generator = np.random.default_rng(seed)
    both = texts(rows, generator, chinese=chinese) + texts(rows, generator, new=new, chinese=chinese)
    new_N = np.arange(len(both)) >= rows
    made = features(both, [*map(len, both)])
    folds_N = drift_tests.folds(new_N, range(len(both)), generator)
    return holm([test.p for test in drift_tests.text_tests(made, new_N, folds_N, seed=seed)])


def alarms(draws: int, rows: int, new: float, *, chinese: bool = False) -> float:
    return float(np.mean([min(drawn(seed, rows, new, chinese=chinese)) <= 0.05 for seed in range(draws)]))


# How often it is right


def test_without_drift_alarms_are_rare_and_a_new_topic_is_found() -> None:
    """Fewer draws and rows than in the full measurement: 4 alarms of 20 would come once in 60 times at 5 %."""
    assert alarms(20, 100, 0.0) <= 0.2
    assert alarms(6, 300, 0.35, chinese=True) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("chinese", [False, True])
def test_false_alarms_are_at_most_seven_of_a_hundred(chinese: bool) -> None:
    assert alarms(200, 500, 0.0, chinese=chinese) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("chinese", [False, True])
def test_a_fifth_of_a_new_topic_is_found_nine_times_of_ten(chinese: bool) -> None:
    assert alarms(50, 500, 0.2, chinese=chinese) >= 0.9


def test_scores_of_chance_pass_the_classifier_test_as_often_as_they_should() -> None:
    """A learner that knows nothing: p-values are spread evenly, ties and unequal piles or not."""
    made = features(["a b", "b c"] * 60, [3] * 120)
    p_values = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        new_N = generator.permutation(np.arange(120) >= 80)
        folds_N = drift_tests.folds(new_N, range(120), generator)

        def guess(rows: Features, new_N: np.ndarray, others: Features) -> np.ndarray:
            return generator.integers(0, 4, len(others.dense_ND)).astype(float)  # noqa: B023

        p_values.append(drift_tests.classifier_test(guess, made, new_N, folds_N, name="chance", seed=seed).p)
    shares = [float(np.mean(np.array(p_values) <= level)) for level in (0.05, 0.2, 0.5)]
    assert shares[0] <= 0.09 and abs(shares[1] - 0.2) < 0.08 and abs(shares[2] - 0.5) < 0.1


def test_an_area_of_the_told_power_is_found_four_times_of_five() -> None:
    """Normal scores of two piles of 80, apart by as much as `least_area` says."""
    least = drift_tests.least_area(80, 80, tests=3)
    assert 0.65 < least < 0.70
    tested, apart = 48, math.sqrt(2) * float(norm.ppf(least))
    generator = np.random.default_rng(0)
    p_values = [
        mannwhitneyu(generator.normal(apart, 1, tested), generator.normal(0, 1, tested), alternative="greater").pvalue
        for _ in range(2000)
    ]
    assert np.mean(np.array(p_values) <= 0.05 / 3) == pytest.approx(0.8, abs=0.05)


# What is told


def test_a_new_topic_is_told_with_its_words_and_its_rows() -> None:
    generator = np.random.default_rng(3)
    usual = texts(300, generator)
    strange = [f"{text} refund voucher" if place < 120 else text for place, text in enumerate(texts(300, generator))]
    told = found(("train", usual, None), ("production", strange, None))
    assert told.keys() == {"texts"}
    finding = told["texts"]
    evidence = finding.evidence
    assert finding.severity == "warning" and finding.check == "drift"
    assert {word["word"] for word in evidence["words"]["production"][:2]} == {"refund", "voucher"}
    assert evidence["words"]["production"][0]["new"] == 120 and evidence["words"]["production"][0]["train"] == 0
    assert all(each["source"] == "production.jsonl" and each["line"] <= 120 for each in finding.rows)
    area = evidence["areas"]["words"]
    assert 0.62 < area["low"] < area["value"] < area["high"] < 0.78  # 0.7 if 120 of 300 are known and all else guessed
    assert evidence["size"] == "clearly" and "refund" in finding.message
    assert [each["place"]["source"] for each in evidence["nearest"]] == ["train.jsonl"] * drift.SHOWN


def test_a_change_of_length_alone_is_seen_by_the_shape() -> None:
    generator = np.random.default_rng(4)
    usual = texts(200, generator)
    longer = [f"{first} {second}" for first, second in zip(texts(200, generator), texts(200, generator), strict=True)]
    finding = found(("train", usual, None), ("production", longer, None))["texts"]
    assert finding.evidence["areas"]["shape"]["value"] > 0.8 and finding.evidence["size"] == "strongly"
    old, new = finding.evidence["shape"]["characters"]
    assert new > 1.5 * old
    assert finding.evidence["shape"].keys() == set(SHAPES)


def test_no_drift_is_told_with_what_was_too_small_to_be_seen() -> None:
    generator = np.random.default_rng(5)
    told = found(("train", texts(150, generator), None), ("test", texts(80, generator), None))
    assert told.keys() == {"alike"}
    finding = told["alike"]
    assert finding.severity == "note" and finding.evidence["rows"] == [150, 80]
    assert f"{finding.evidence['least_area']:.2f} would not have been seen" in finding.message


def test_production_is_compared_before_test_and_answers_are_not() -> None:
    check = Drift()
    generator = np.random.default_rng(6)
    for split in ("train", "test", "production"):
        for line, text in enumerate(texts(60, generator), start=1):
            answer = "Certainly, here it is." if split == "train" else ""
            place = {"split": split, "source": split, "line": line, "id": str(line), "group": ""}
            check.add(Row(**place, prompt=text, answer=answer))  # type: ignore[arg-type]
    (finding,) = check.findings()
    assert finding.kind == "alike" and finding.evidence["against"] == "production"


def test_labels_that_are_shared_out_otherwise_are_told() -> None:
    generator = np.random.default_rng(7)
    old, new = ["good"] * 120 + ["bad"] * 80, ["good"] * 60 + ["bad"] * 140
    told = found(("train", texts(200, generator), old), ("test", texts(200, generator), new))
    finding = told["labels"]
    assert finding.severity == "warning" and "bad is 70.0% there and 40.0% in train" in finding.message
    labels = finding.evidence["labels"]
    assert labels["counts"] == {"bad": [80, 140], "good": [120, 60]}
    assert labels["divergence"] == pytest.approx(jensenshannon([0.4, 0.6], [0.7, 0.3], base=2) ** 2)


def test_labels_that_are_numbers_are_compared_in_tenths() -> None:
    generator = np.random.default_rng(8)
    old, new = ([str(value) for value in generator.normal(centre, 1, 150)] for centre in (0, 1))
    told = found(("train", texts(150, generator), old), ("test", texts(150, generator), new))
    assert len(told["labels"].evidence["labels"]["counts"]) == drift.BINS
    same = [str(value) for value in generator.normal(0, 1, 150)]
    assert "labels" not in found(("train", texts(150, generator), old), ("test", texts(150, generator), same))


def test_few_rows_are_not_judged() -> None:
    generator = np.random.default_rng(9)
    finding = found(("train", texts(100, generator), None), ("test", texts(19, generator), None))["few"]
    assert finding.severity == "note" and finding.count == 19
    assert found(("train", ["a"], None)) == {} and found(("test", ["a"], None)) == {}


def test_rows_of_one_group_count_once() -> None:
    """Ten texts, a hundred times each, are ten rows: too few to say anything."""
    check = Drift()
    generator = np.random.default_rng(10)
    for split in ("train", "production"):
        few = texts(10, generator)
        for line in range(1000):
            check.add(row(few[line % 10], line, split, group=f"{split}{line % 10}"))
    (finding,) = check.findings()
    assert finding.kind == "few" and finding.evidence["rows"] == [10, 10]


def test_without_scikit_learn_it_is_said_that_nothing_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "find_spec", lambda name: None)
    generator = np.random.default_rng(11)
    finding = found(("train", texts(30, generator), None), ("test", texts(30, generator), None))["missing"]
    assert finding.severity == "note" and "mingshi[health]" in finding.remedy


# The sample


def test_the_sample_is_bounded_and_depends_on_the_seed_and_not_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST", 50)

    def sampled(lines: Sequence[int], seed: int) -> list[int]:
        sample = drift._Sample(seed)
        for line in lines:
            sample.add(row("text", line, "train", group=str(line // 2)))
        assert sample.rows == len(lines) and len(sample.kept) == 50
        return [kept.place["line"] for kept in sample.members()]

    lines = [*range(600)]
    first = sampled(lines, 0)
    assert first == sampled(lines[::-1], 0) != sampled(lines, 1)
    assert len({line // 2 for line in first}) == 50
    assert 10 < sum(line % 2 for line in first) < 40 and 10 < sum(line < 300 for line in first) < 40


def test_a_long_text_is_kept_in_part_and_its_length_whole() -> None:
    sample = drift._Sample(0)
    sample.add(row("x" * 10_000, 1, "train"))
    (kept,) = sample.members()
    assert len(kept.text) == drift.CHARACTERS and kept.length == 10_000
    assert sys.getsizeof(kept.text) < 2 * drift.CHARACTERS


# Parts


def test_folds_keep_groups_whole_and_both_piles_in_each() -> None:
    generator = np.random.default_rng(0)
    groups = [f"g{place // 2}" for place in range(200)] + [f"g{place}" for place in range(40)] + [*range(60)]
    new_N = np.arange(300) >= 200
    folds_N = drift_tests.folds(new_N, groups, generator)
    of_group = {
        group: {int(fold) for each, fold in zip(groups, folds_N, strict=True) if each == group} for group in groups
    }
    assert {len(each) for each in of_group.values()} == {1}
    assert set(np.bincount(folds_N[new_N])) == {20} and set(np.bincount(folds_N[~new_N])) == {40}


def test_the_area_is_that_of_scikit_learn_with_ties_and_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    new_N, scores_N = generator.random(90) < 0.4, generator.integers(0, 12, 90).astype(float)
    folds_N = np.arange(90) % drift_tests.FOLDS
    expected = [roc_auc_score(new_N[folds_N == fold], scores_N[folds_N == fold]) for fold in range(drift_tests.FOLDS)]
    score = drift_tests.area(scores_N, new_N, folds_N, signature="area", seed=0)
    assert score.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert score.low < score.value < score.high
    counts = generator.integers(0, 3, (1, 90)).astype(float)
    order = np.argsort(scores_N, kind="stable")
    ties = np.unique(scores_N[order], return_inverse=True)[1]
    repeated = drift_tests._area(counts[:, order], new_N[order], ties)[0]
    assert repeated == pytest.approx(roc_auc_score(new_N, scores_N, sample_weight=counts[0]), abs=1e-12)


def test_the_kernel_statistic_is_the_mean_discrepancy() -> None:
    made = features(["a b c", "a b d", "c d e", "a e f", "b f c", "d a a"], [5] * 6)
    new_N = np.array([False, False, False, True, True, True])
    unit = made.tokens_NF.toarray()
    squares = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    kernel = np.exp(-squares / np.median(squares[np.triu_indices(6, 1)]))
    expected = kernel[:3, :3].mean() + kernel[3:, 3:].mean() - 2 * kernel[:3, 3:].mean()
    assert drift_tests.kernel_test(made, new_N, seed=0).value == pytest.approx(expected, abs=1e-5)


def test_log_odds_are_those_of_fightin_words() -> None:
    first, second = {"a": 10, "b": 5}, {"a": 4, "c": 8}
    z = log_odds(first, second)
    prior = {"a": 14, "b": 5, "c": 8}
    total = sum(prior.values())

    def odds(counts: dict[str, int], word: str) -> float:
        raised = counts.get(word, 0) + prior[word]
        return math.log(raised / (sum(counts.values()) + total - raised))

    for word in prior:
        variance = 1 / (first.get(word, 0) + prior[word]) + 1 / (second.get(word, 0) + prior[word])
        assert z[word] == pytest.approx((odds(second, word) - odds(first, word)) / math.sqrt(variance))
    assert log_odds({}, {}) == {}


def test_words_of_two_alike_piles_are_seldom_told() -> None:
    generator = np.random.default_rng(0)
    of_first, of_second = differing(texts(400, generator), texts(400, generator))
    assert len(of_first) + len(of_second) <= 6  # of 2,000 words


def test_chinese_is_told_in_pairs_of_characters() -> None:
    _, of_second = differing(["今天天气好"] * 30, ["今天要退款"] * 30)
    told = {word.word for word in of_second}
    assert "退款" in told and "今天" not in told and all(len(word) == 2 for word in told)


def test_tokens_of_mixed_text() -> None:
    assert list(tokens("Use API 调用它, ещё 3")) == ["use", "api", "调", "用", "它", "调用", "用它", "ещё", "3"]


def test_texts_without_a_word_in_common_have_features() -> None:
    made = features(["a", "b", "c"], [1, 1, 1])
    assert made.dense_ND.shape == (3, len(SHAPES)) and made.tokens_NF.shape == (3, 1)
