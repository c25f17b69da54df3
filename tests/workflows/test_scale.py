"""How much data: verdicts of planted curves, how often they are wrong, and a scale from its file to its page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import orjson
import pytest
from tiny import ROWS, tiny_model

from mingshi.data.formats import DataSource, read
from mingshi.errors import RecipeError
from mingshi.evals import EVALS
from mingshi.report.compare_names import KINDS, caption, in_words, of_test
from mingshi.report.compare_words import COMPARED
from mingshi.report.words import Both
from mingshi.workflows import compare_child
from mingshi.workflows.compare import compare
from mingshi.workflows.compare_columns import Column
from mingshi.workflows.compare_curves import curve, verdict
from mingshi.workflows.compare_told import described
from mingshi.workflows.comparison import read_comparison

REAL = compare_child.train_command
FAKE = Path(__file__).with_name("fake_train.py")
AMOUNTS = (40, 80, 160, 320)
NATS = "perplexity.nats_per_token"
FILE = """\
output: out
search: null
scale: {models: [tiny, models/other], rows: [16, 4, 8]}
recipe:
  stages:
    - data: [{path: train.jsonl}]
      validation: 0
  test: [{path: test.jsonl}]
  evals: [{kind: perplexity}, {kind: choice}]
"""


def planted(
    gains: Mapping[int, float],
    *,
    spread: float = 0.1,
    moved: float = 0.02,
    seeds: int = 3,
    items: int = 64,
    draw: int = 0,
) -> dict[int, Any]:
    """Measurements of a loss that falls by `gains`: `spread` is an item's noise, `moved` that of a seed's runs."""
    generator = np.random.default_rng(draw)
    hard_N = generator.normal(3, 1, items)

    def column(values_N: np.ndarray) -> dict[str, Column]:
        return {NATS: Column(float(values_N.mean()), "nats", False, values_N, None)}

    found: dict[int, Any] = {}
    for amount, gain in gains.items():
        own_N = hard_N - gain + generator.normal(0, spread, items)  # what an amount does to an item, under every seed
        found[amount] = {}
        for seed in range(seeds):
            noise_N = generator.normal(0, spread, items) + generator.normal(0, moved)
            found[amount][seed] = {"before": column(hard_N), "after": column(own_N + noise_N)}
    return found


def judged(*gains: float, **said: Any) -> dict[str, Any]:
    found = curve(planted(dict(zip(AMOUNTS, gains, strict=True)), **said), NATS)["verdict"]
    assert isinstance(found, dict)
    return found


def test_a_curve_that_saturates_is_enough_where_it_does() -> None:
    found = judged(0.3, 0.6, 0.6, 0.6)
    assert (found["kind"], found["rows"], found["worse"]) == ("enough", 80, [])
    assert 0 < found["most"] < 0.15


def test_a_curve_that_rises_to_its_end_asks_for_more() -> None:
    found = judged(0.2, 0.4, 0.6, 0.8)
    assert (found["kind"], found["rows"]) == ("rising", 320)


def test_a_step_that_is_too_small_to_see_is_not_a_gain() -> None:
    found = judged(0.2, 0.4, 0.6, 0.61)
    assert (found["kind"], found["rows"]) == ("enough", 160)


def test_a_flat_curve_is_told_from_a_noisy_one_by_what_is_left() -> None:
    flat, noisy = judged(0, 0, 0, 0), judged(0.1, 0.2, 0.3, 0.4, spread=2.0, moved=0.2)
    assert (flat["kind"], noisy["kind"]) == ("nothing", "nothing") and flat["rows"] == noisy["rows"] == 0
    assert flat["most"] < 0.2 < 0.5 < noisy["most"]


def test_an_amount_that_harms_is_told() -> None:
    found = judged(0.3, 0.6, 0.6, 0.2)
    assert (found["kind"], found["rows"], found["worse"]) == ("enough", 80, [320])
    assert judged(-0.5, -0.5, -0.5, -0.5)["worse"] == [40, 80, 160, 320]


def test_two_seeds_give_no_verdict() -> None:
    found = judged(0.3, 0.6, 0.6, 0.6, seeds=2)
    assert (found["kind"], found["rows"], found["seeds"]) == ("unclaimed", None, 2)


def test_a_gain_that_shows_only_at_the_end_of_a_noisy_curve_is_left_open() -> None:
    """The largest amount beats the base alone: where the curve levels off is not known."""
    shown = {(0, 160)}
    pairs = [
        {"from": few, "to": many, "seeds": 3, "value": 0.3, "low": -0.1, "high": 0.7, "differs": (few, many) in shown}
        for few, many in combinations((0, 40, 80, 160), 2)
    ]
    found = verdict(pairs, higher=True)
    assert (found["kind"], found["rows"], found["most"]) == ("open", 40, 0.7)


@pytest.mark.parametrize("first", [0.0, 1.0])
@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_a_rise_that_is_not_there_is_seldom_claimed(first: float, moved: float) -> None:
    """Beyond the first amount nothing is gained: in at most one of twenty curves may any later gain be shown."""
    honest = 0 if first == 0 else 40
    draws = 250
    false = sum(
        judged(first, first, first, first, moved=moved, items=40, draw=draw)["rows"] > honest for draw in range(draws)
    )
    assert false <= 0.05 * draws


def test_amounts_are_nested(tmp_path: Path) -> None:
    """Curves are paired because an amount is the file's first rows."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, ROWS)))
    few, many = (list(read(DataSource(path=str(file), limit=limit))) for limit in (6, 12))
    assert len(few) == 6 and few == many[:6] and len(many) == 12


# From the file to the page


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINGSHI_CACHE", str(folder / "cache"))
    for name, rows in (("train", ROWS[:24]), ("validation", ROWS[24:30]), ("test", ROWS[30:])):
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    monkeypatch.setattr(compare_child, "train_command", lambda file: [sys.executable, str(FAKE), str(file)])
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return prepared(tmp_path, monkeypatch)


def written(place: Path, text: str = FILE) -> Path:
    path = place / "scale.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = prepared(tmp_path_factory.mktemp("finished"), monkeypatch)
        yield folder, compare(read_comparison(written(folder)), language="zh")


def test_a_scale_is_rows_that_change_the_model_and_the_limit(place: Path) -> None:
    plan = read_comparison(written(place))
    assert plan.scaled and [method.name for method in plan.methods] == [
        *("tiny-4", "tiny-8", "tiny-16", "other-4", "other-8", "other-16")
    ]
    recipes = [method.recipe for method in plan.methods]
    assert [recipe.model for recipe in recipes] == ["tiny"] * 3 + ["models/other"] * 3
    assert [recipe.stages[0].data[0].limit for recipe in recipes] == [4, 8, 16] * 2


def test_each_model_has_its_own_verdict(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, told = finished
    tiny, other = told["scale"]["models"]
    assert told["code"] == 0 and (tiny["name"], other["name"], other["model"]) == ("tiny", "other", "models/other")
    enough, rising = (model["curves"][NATS]["verdict"] for model in (tiny, other))
    assert (enough["kind"], enough["rows"], enough["most"]) == ("enough", 8, 0.0)
    assert (rising["kind"], rising["rows"]) == ("rising", 16)
    assert tiny["base"][NATS]["value"] == other["base"][NATS]["value"]
    scores = {row["name"]: row["scores"][NATS] for row in told["rows"]}
    pair = next(pair for pair in other["curves"][NATS]["pairs"] if (pair["from"], pair["to"]) == (8, 16))
    assert pair["value"] == pytest.approx(scores["other-16"]["value"] - scores["other-8"]["value"])
    assert pair["p"] <= pair["p_holm"] < 0.05 and pair["high"] < 0
    assert len(other["curves"][NATS]["pairs"]) == 6 and "against" not in scores["other-8"]
    assert orjson.loads((folder / "out/comparison.json").read_bytes()) == orjson.loads(orjson.dumps(told))


def test_more_rows_are_no_unequal_budget_and_unused_ones_are_told(finished: tuple[Path, dict[str, Any]]) -> None:
    notes = {note["note"]: note for note in finished[1]["notes"]}
    assert set(notes) == {"used"} and "15/16" in notes["used"]["said"]["zh"]
    assert [cell["used"] for cell in finished[1]["scale"]["models"][0]["cells"]] == [4, 8, 15]


def test_the_page_and_the_terminal_say_what_was_found(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, told = finished
    page, lines = (folder / "out/report.html").read_text(), described(told, language="en")
    assert "tiny, held-out loss: from 8 rows on, no larger amount is told apart as better" in page
    assert "other，留出数据上的损失：增加数据仍有帮助" in page and f'title="{NATS}"' in page
    assert page.count("series second band") == 2 and 'lang="zh-CN"' in page
    for words in ("<script", "://", "None", "nan"):
        assert words not in page
    assert f"held-out loss (nats per token; lower is better)  {NATS}" in lines
    assert any(line.startswith("other, held-out loss: more data would still help") for line in lines)
    assert any(line.startswith("tiny, 8 rows") for line in lines)
    assert any(line.startswith("tiny，8 行") for line in described(told, language="zh"))


def test_a_learning_rate_is_searched_for_once_a_model(place: Path) -> None:
    text = FILE.replace("search: null", "seeds: [0]\nsearch: {rates: [0.5, 1]}").replace(
        "validation: 0", "validation: [{path: validation.jsonl}]"
    )
    told = compare(read_comparison(written(place, text)))
    made = (place / "made.txt").read_text().split()
    assert [run for run in made if "search" in run] == [
        f"out/search/{name}-8/rate-{factor}" for name in ("tiny", "other") for factor in ("0.5", "1")
    ]
    assert [row["search"] is not None for row in told["rows"]] == [False, True, False] * 2
    assert all(row["rates"] == told["rows"][1]["rates"] for row in told["rows"][:3])


@pytest.mark.slow
def test_a_real_scale(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_child, "train_command", REAL)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    models = [str(tiny_model(place / f"tiny{seed}", seed=seed)) for seed in range(2)]
    text = (
        FILE.replace("search: null", "search: null\nseeds: [0]")
        .replace("[tiny, models/other]", orjson.dumps(models).decode())
        .replace("[16, 4, 8]", "[8, 24]")
    )
    told = compare(read_comparison(written(place, text.replace("validation: 0", "validation: 0\n      batch: 8"))))
    assert told["code"] == 0 and {note["note"] for note in told["notes"]} == {"seeds"}
    steps = [
        len((place / f"out/runs/{row['name']}/seed-0/steps.jsonl").read_text().splitlines()) for row in told["rows"]
    ]
    assert steps == [1, 3] * 2
    first, second = told["scale"]["models"]
    assert [cell["used"] for cell in first["cells"]] == [8, 24]
    assert first["base"][NATS]["value"] != second["base"][NATS]["value"]
    assert first["curves"][NATS]["verdict"]["kind"] == "unclaimed" and len(first["curves"][NATS]["pairs"]) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows: [16, 4, 8]", "rows: [16, 4, 16]", "scale.rows: an amount is given twice. Give each once."),
        ("rows: [16, 4, 8]", "rows: [16]", "scale.rows: is too short"),
        ("rows: [16, 4, 8]", "rows: [16, 400]", "train.jsonl has 24 rows, and 400 are asked for. Lower the largest"),
        ("rows: [16", "row: [16", "scale.row: unknown key 'row'. Did you mean 'rows'?"),
        ("models/other", "models/tiny", "two models are called 'tiny'. Give their folders names that differ."),
        ("search: null", "search: null\nrows: [{name: a}]", "`rows` and `scale` are both given. Give one of them."),
        ("validation: 0", "validation: 0.1", "stages.0.validation: is a share of the rows, so that every amount"),
        (
            "[{path: train.jsonl}]",
            "[{path: train.jsonl}, {path: train.jsonl}]",
            "Give the recipe one stage, and one file",
        ),
    ],
)
def test_a_wrong_scale_is_told_where_and_how(place: Path, old: str, new: str, words: str) -> None:
    assert old in FILE
    with pytest.raises(RecipeError) as error:
        read_comparison(written(place, FILE.replace(old, new)))
    assert words in str(error.value)


# Words


def test_both_languages_say_every_sentence_with_the_same_values() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text)} - {None}

    assert [key for key, text in COMPARED.items() if places(text.en) != places(text.zh)] == []


def test_a_score_is_called_what_people_call_it() -> None:
    assert set(KINDS) == set(EVALS)
    assert in_words(NATS) == Both("held-out loss", "留出数据上的损失")
    assert in_words("english.choice.accuracy") == Both("english: accuracy", "english：准确率")
    assert in_words("classification.f1.好评") == Both("F1 of 好评", "好评 的 F1")
    assert of_test("perplexity.perplexity") and not of_test("english.perplexity.perplexity")
    assert caption("choice.accuracy", True) == Both("accuracy (higher is better)", "准确率（越高越好）")
    assert caption(NATS, False).zh == "留出数据上的损失（奈特/词元，越低越好）"
