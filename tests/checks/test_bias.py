"""Bias that is planted is found with its size; one that a file or a length explains is told as such."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import orjson
import pytest
from scipy.stats import chi2_contingency, fisher_exact
from scipy.stats.contingency import association

from mingshi.checks import bias_tests
from mingshi.checks.bias import Bias
from mingshi.checks.bias_mentions import MISSING, mentions
from mingshi.checks.bias_outcomes import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equalised_odds_difference,
    gaps,
    outcomes,
)
from mingshi.checks.rows import Row
from mingshi.types import Finding

People = list[tuple[str, str, str, int]]  # who, label, source, characters


def row(attributes: dict[str, str], label: str, line: int, *, source: str = "rows.jsonl", text: str = "text") -> Row:
    place = {"split": "train", "source": source, "line": line, "id": str(line), "group": ""}
    return Row(**place, prompt=text, answer="", label=label, attributes=attributes)  # type: ignore[arg-type]


def by_kind(check: Bias) -> dict[str, Finding]:
    """Findings that can be written as JSON."""
    found = check.findings()
    orjson.dumps([asdict(finding) for finding in found])
    return {finding.kind: finding for finding in found}


def findings(people: People, *attributes: str) -> dict[str, Finding]:
    check = Bias(attributes or ("who",))
    for line, (who, label, source, characters) in enumerate(people, start=1):
        check.add(row({"who": who} if who else {}, label, line, source=source, text="x" * characters))
    return by_kind(check)


def planted(generator: np.random.Generator, count: int, shares: dict[str, float]) -> People:
    """Labels by group; file and length say nothing."""
    who = generator.choice(list(shares), count).tolist()
    good = generator.random(count) < [shares[each] for each in who]
    sources = generator.choice(["one.jsonl", "two.jsonl"], count).tolist()
    lengths = generator.integers(10, 500, count).tolist()
    return list(zip(who, np.where(good, "good", "bad").tolist(), sources, lengths, strict=True))


# How often it is right


def test_a_planted_bias_is_found_with_its_size() -> None:
    """P(good) of 0.7 and 0.5, 2,000 rows: found in 19 of 20 draws or more, and its size in the interval as often."""
    hits, inside = 0, 0
    for seed in range(40):
        told = findings(planted(np.random.default_rng(seed), 2000, {"a": 0.7, "b": 0.5}))
        if "labels" in told:
            hits += 1
            gap = told["labels"].evidence["contrast"]["gap"]
            inside += gap["low"] <= 0.2 <= gap["high"]
    assert hits >= 38 and inside >= 36


@pytest.mark.slow
def test_a_planted_bias_is_found_nearly_always() -> None:
    """With 200 draws; the interval holds in 95 % of them, give or take what 200 draws vary."""
    told = [findings(planted(np.random.default_rng(seed), 2000, {"a": 0.7, "b": 0.5})) for seed in range(200)]
    gaps = [each["labels"].evidence["contrast"]["gap"] for each in told if "labels" in each]
    assert len(gaps) >= 190
    assert sum(gap["low"] <= 0.2 <= gap["high"] for gap in gaps) >= 0.92 * len(gaps)


def test_without_bias_alarms_are_rare() -> None:
    """All tests together, of overall shares and of those inside files and lengths: at most 10 of 200."""
    alarms = 0
    for seed in range(200):
        told = findings(planted(np.random.default_rng(seed), 400, {"a": 0.6, "b": 0.6, "c": 0.6}))
        alarms += bool(told.keys() - {"summary"})
    assert alarms <= 10


def confounded(generator: np.random.Generator, count: int, confounder: str) -> People:
    """One file, or long texts, have more good labels and more rows of `a`; inside, nothing goes with `who`."""
    first = generator.random(count) < 0.5
    who = np.where(generator.random(count) < np.where(first, 0.8, 0.2), "a", "b").tolist()
    labels = np.where(generator.random(count) < np.where(first, 0.8, 0.3), "good", "bad").tolist()
    by_source = confounder == "source"
    sources = np.where(first | (not by_source), "one.jsonl", "two.jsonl").tolist()
    lengths = np.where(first | by_source, 100, 2000).tolist()
    return list(zip(who, labels, sources, lengths, strict=True))


@pytest.mark.parametrize("confounder", ["source", "length"])
def test_a_difference_that_goes_with_something_else_is_told_as_such(confounder: str) -> None:
    right = 0
    for seed in range(20):
        told = findings(confounded(np.random.default_rng(seed), 2000, confounder))
        assert told.keys() & {"labels", "confounded", "reversed"}
        right += "confounded" in told and told["confounded"].evidence["confounder"] == confounder
    assert right >= 18
    finding = findings(confounded(np.random.default_rng(0), 2000, confounder))["confounded"]
    assert finding.severity == "note" and f"it goes with the {confounder}" in finding.message


def test_a_bias_that_turns_round_inside_files_is_told_as_simpsons() -> None:
    """Berkeley's admissions in small: men are admitted more often over all, women in each department."""
    cells = {("easy", "m"): (640, 360), ("easy", "f"): (80, 20), ("hard", "m"): (20, 80), ("hard", "f"): (350, 650)}
    people: People = []
    for (source, who), (admitted, refused) in cells.items():
        people += [(who, "in", source, 50)] * admitted + [(who, "out", source, 50)] * refused
    told = findings(people)
    assert told["reversed"].severity == "warning" and "the other way round" in told["reversed"].message
    assert told["reversed"].evidence["contrast"]["odds_within"]["source"]["high"] < 1


def test_a_bias_that_shows_inside_files_alone_is_told() -> None:
    """190 of 400 are in of both, and in each file more of `f`."""
    cells = {("easy", "m"): (180, 120), ("easy", "f"): (80, 20), ("hard", "m"): (10, 90), ("hard", "f"): (110, 190)}
    people: People = []
    for (source, who), (admitted, refused) in cells.items():
        people += [(who, "in", source, 50)] * admitted + [(who, "out", source, 50)] * refused
    told = findings(people)
    assert told.keys() == {"summary", "masked"}
    assert told["masked"].severity == "warning" and told["masked"].evidence["confounder"] == "source"
    contrast = told["masked"].evidence["contrast"]
    assert {contrast["most"], contrast["least"]} == {"f", "m"} and contrast["odds_within"]["source"]["value"] > 2


# What is told


def test_groups_are_told_with_their_shares_and_intervals() -> None:
    people: People = [("a", "good", "s", 9)] * 80 + [("a", "bad", "s", 9)] * 20
    people += [("b", "good", "s", 9)] * 40 + [("b", "bad", "s", 9)] * 60 + [("c", "good", "s", 9)] * 9
    finding = findings(people)["labels"]
    evidence = finding.evidence
    assert finding.severity == "warning" and evidence["contrast"]["ratio"] == pytest.approx(20 / 60)
    assert "60.0% of b and 20.0% of a" in finding.message and "40.0 points apart" in finding.message
    assert evidence["groups"]["a"]["rows"] == 100 and evidence["not_compared"] == {"c": 9}
    share = evidence["groups"]["a"]["labels"]["good"]
    assert share["value"] == 0.8 and 0.70 < share["low"] < 0.8 < share["high"] < 0.87
    assert evidence["impact_ratios"] == {"good": pytest.approx(0.5), "bad": pytest.approx(20 / 60)}


def test_a_sure_but_small_difference_is_a_note() -> None:
    people: People = [("a", "good", "s", 9)] * 5200 + [("a", "bad", "s", 9)] * 4800
    people += [("b", "good", "s", 9)] * 4800 + [("b", "bad", "s", 9)] * 5200
    assert findings(people)["labels"].severity == "note"


def test_rows_that_do_not_say_are_a_group() -> None:
    people: People = [("a", "good", "s", 9)] * 50 + [("a", "bad", "s", 9)] * 50 + [("", "bad", "s", 9)] * 60
    assert findings(people)["labels"].evidence["groups"][MISSING]["rows"] == 60


def test_two_attributes_are_looked_at_together() -> None:
    """Exclusive or: neither alone says anything."""
    check = Bias(["sex", "age"])
    for line in range(800):
        sex, age = "mf"[line % 2], ("young", "old")[line // 2 % 2]
        good = (sex == "m") == (age == "young")
        check.add(row({"sex": sex, "age": age}, "good" if (line // 4 % 4 > 0) == good else "bad", line))
    told = [finding for finding in check.findings() if finding.kind == "labels"]
    assert [finding.evidence["attribute"] for finding in told] == ["sex x age"]
    assert told[0].evidence["groups"].keys() == {"m x young", "m x old", "f x young", "f x old"}


def test_what_cannot_be_compared_is_said() -> None:
    ids: People = [(f"id{line % 60}", "good" if line % 2 else "bad", "s", 9) for line in range(1200)]
    assert findings(ids).keys() == {"too_many_groups"}
    assert findings([("a", "good", "s", 9), ("a", "bad", "s", 9)] * 20).keys() == {"one_group"}
    assert findings([("a", "good", "s", 9), ("b", "good", "s", 9)] * 20).keys() == {"one_group"}
    numbers: People = [("ab"[line % 2], f"{line / 10}", "s", 9) for line in range(300)]
    assert findings(numbers).keys() == {"numbers"}
    assert findings([]) == {} and Bias([]).findings() == []


def test_only_labelled_rows_of_train_count() -> None:
    check = Bias(["who"])
    check.add(Row(split="test", source="s", line=1, id="1", group="", prompt="a", answer="", label="x"))
    check.add(Row(split="train", source="s", line=1, id="1", group="", prompt="a", answer="b"))
    assert check.findings() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("She said that her car broke", "female"),
        ("He is here", "male"),
        ("the theme of others", "neither"),
        ("his wife", "both"),
        ("她很好", "female"),
        ("他很好", "male"),
        ("其他人和他们都来了", "neither"),
        ("他和她", "both"),
        ("王先生", "male"),
        ("弹吉他", "neither"),
        ("it took 5 ms", "neither"),
        ("今天天气好", "neither"),
    ],
)
def test_mentions(text: str, told: str) -> None:
    assert mentions(text) == told


def test_mentions_are_an_attribute_where_asked() -> None:
    check = Bias(["mentions"])
    for line in range(200):
        she = line % 2 == 0
        text = "她来了" if she else "他来了"
        check.add(row({}, "bad" if she == (line % 5 > 0) else "good", line, text=text))
    (told,) = (finding for finding in check.findings() if finding.kind == "labels")
    assert told.evidence["groups"].keys() == {"female", "male"}


# Tests of tables, against scipy or by hand

TABLES = [np.array([[30, 20], [10, 40]]), np.array([[50, 30, 20], [40, 40, 40], [9, 12, 31]])]


@pytest.mark.parametrize("table", TABLES)
def test_the_g_test_and_cramers_v_are_scipys(table: np.ndarray) -> None:
    told = bias_tests.independence(table)
    g, p, *_ = chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert (told.g, told.p) == pytest.approx((g, p), rel=1e-12) and not told.exact
    assert told.cramers_v == pytest.approx(association(table, method="cramer"), abs=1e-12)


def test_small_tables_are_drawn() -> None:
    table = np.array([[8, 2, 0], [1, 5, 0]])
    told = bias_tests.independence(table)
    assert told.exact and told.p == pytest.approx(fisher_exact(table[:, :2]).pvalue, abs=0.02)
    assert told == bias_tests.independence(table)
    assert bias_tests.independence(np.array([[3, 0], [5, 0]])).p == 1.0


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """Table II of Newcombe (1998), method 10: 56/70 less 48/80."""
    gap = bias_tests.share_gap((56, 70), (48, 80), signature="gap")
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def by_hand(tables: np.ndarray) -> tuple[float, float]:
    """Mantel and Haenszel's common odds ratio and their statistic, of 2 x 2 tables."""
    above = below = apart = variance = 0.0
    for (a, b), (c, d) in tables:
        n = a + b + c + d
        above, below = above + a * d / n, below + b * c / n
        apart += a - (a + b) * (a + c) / n
        variance += (a + b) * (c + d) * (a + c) * (b + d) / (n * n * (n - 1))
    return above / below, apart * apart / variance


def test_mantel_and_haenszel_by_hand() -> None:
    tables = np.array([[[12, 5], [7, 9]], [[30, 20], [21, 40]], [[3, 1], [2, 6]]])
    odds, statistic = by_hand(tables)
    told = bias_tests.common_odds(tables, signature="odds")
    assert told.value == pytest.approx(odds) and told.low < odds < told.high
    assert bias_tests.within_strata(tables)[0] == pytest.approx(statistic)
    one = bias_tests.common_odds(tables[1:2], signature="odds")  # of one stratum: Woolf's interval of the odds ratio
    half = 1.959964 * math.sqrt(1 / 30 + 1 / 20 + 1 / 21 + 1 / 40)
    assert (one.low, one.high) == pytest.approx((2.857143 * math.exp(-half), 2.857143 * math.exp(half)), rel=1e-5)


def test_inside_one_stratum_the_general_statistic_is_nearly_chi_square() -> None:
    table = TABLES[1]
    chi = chi2_contingency(table, correction=False).statistic
    statistic, p = bias_tests.within_strata(table[None])
    assert statistic == pytest.approx(chi * (table.sum() - 1) / table.sum())
    assert 0 < p < 1
    assert bias_tests.within_strata(np.zeros((2, 2, 2))) == (0.0, 1.0)
    assert bias_tests.within_strata(np.array([[[5, 0], [7, 0]]])) == (0.0, 1.0)


def test_tables_of_many_cells_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).integers(0, 4, (6, 9))
    whole = bias_tests.independence(table)
    monkeypatch.setattr(bias_tests, "CHUNK", 500)
    assert bias_tests.independence(table).p == pytest.approx(whole.p, abs=0.05) and whole.exact


def test_ratios() -> None:
    table = np.array([[70, 30, 0], [50, 50, 0]])
    ratios = bias_tests.impact_ratios(table)
    assert ratios[:2] == pytest.approx([50 / 70, 30 / 50]) and math.isnan(ratios[2])
    assert bias_tests.largest_log_ratio(table) == pytest.approx(math.log(50.5 / 30.5))


# Outcomes of a model


def answers(seed: int) -> tuple[list[str], list[str], list[str]]:
    generator = np.random.default_rng(seed)
    truth = generator.choice(["yes", "no"], 300)
    said = np.where(generator.random(300) < 0.7, truth, generator.choice(["yes", "no"], 300))
    return truth.tolist(), said.tolist(), generator.choice(["a", "b", "c"], 300, p=[0.5, 0.4, 0.1]).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_are_fairlearns(seed: int) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    truth, said, who = answers(seed)
    found = outcomes(truth, said, who, positive="yes")
    given = {
        "y_true": [each == "yes" for each in truth],
        "y_pred": [each == "yes" for each in said],
        "sensitive_features": who,
    }
    ours: dict[str, Callable[[], float]] = {
        "demographic_parity_difference": lambda: demographic_parity_difference(found),
        "demographic_parity_ratio": lambda: demographic_parity_ratio(found),
        "equalized_odds_difference": lambda: equalised_odds_difference(found),
    }
    for name, value in ours.items():
        assert value() == pytest.approx(vars(metrics)[name](**given), abs=1e-12)
    for name, theirs in (
        ("selection", metrics.selection_rate),
        ("true_positive", metrics.true_positive_rate),
        ("false_positive", metrics.false_positive_rate),
        ("false_negative", metrics.false_negative_rate),
    ):
        by_group = metrics.MetricFrame(metrics=theirs, **given).by_group
        for group, each in found.items():
            score = {
                "selection": each.selection,
                "true_positive": each.true_positive,
                "false_positive": each.false_positive,
                "false_negative": each.false_negative,
            }[name]
            assert score.value == pytest.approx(by_group[group], abs=1e-12)
            assert score.low <= score.value <= score.high


def test_a_group_without_positives_has_no_share_of_them() -> None:
    found = outcomes(["no", "no", "yes"], ["yes", "no", "yes"], ["a", "a", "b"], positive="yes")
    assert math.isnan(found["a"].true_positive.value) and found["a"].false_positive.value == 0.5
    assert equalised_odds_difference(found) == 0.0
    assert demographic_parity_difference(found) == 0.5 and demographic_parity_ratio(found) == 0.5
    with pytest.raises(ValueError, match="lengths"):
        outcomes(["no"], ["no", "no"], ["a"], positive="yes")


@pytest.mark.parametrize("groups", [2, 4])
def test_gaps_are_the_same_numbers_with_intervals(groups: int) -> None:
    generator = np.random.default_rng(groups)
    who = generator.integers(0, groups, 600)
    truth = np.where(generator.random(600) < 0.5, "yes", "no").tolist()
    said = np.where(generator.random(600) < 0.3 + 0.4 * (who == 0), "yes", "no").tolist()
    names = [f"g{one}" for one in who]
    found, told = outcomes(truth, said, names, positive="yes"), gaps(truth, said, names, positive="yes")
    wanted = (demographic_parity_difference, demographic_parity_ratio, equalised_odds_difference)
    for score, function in zip(told.values(), wanted, strict=True):
        assert score.value == pytest.approx(function(found), abs=1e-12) and score.low < score.value < score.high
    assert told["demographic_parity_difference"].low > 0.2 and told["demographic_parity_ratio"].high < 0.8


def test_a_planted_gap_lies_in_its_interval() -> None:
    """As often as a 95 % interval should hold it, of 100 draws."""
    held = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        who = generator.integers(0, 2, 400)
        said = np.where(generator.random(400) < np.where(who == 0, 0.7, 0.4), "yes", "no").tolist()
        found = gaps(["yes"] * 200 + ["no"] * 200, said, who.astype(str).tolist(), positive="yes", seed=seed)
        score = found["demographic_parity_difference"]
        held += score.low <= 0.3 <= score.high
    assert 90 <= held <= 99


def test_gaps_without_answers_or_truth_have_no_number() -> None:
    found = gaps(["no", "no", "yes"], ["no", "no", "no"], ["a", "b", "b"], positive="yes")
    assert found["demographic_parity_difference"].value == 0.0
    assert math.isnan(found["demographic_parity_ratio"].value) and found["equalised_odds_difference"].value == 0.0
