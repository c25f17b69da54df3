"""Preference pairs: which are made, which are dropped and counted, and that they do not teach length."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as values

from mingshi.data.formats import DataSource, read, read_rows
from mingshi.errors import DataError, RecipeError
from mingshi.types import Answer, Answered, Message, Preference
from mingshi.workflows.pairs import described, ledger, pairs
from mingshi.workflows.preferences import NEAR_ZERO, Pairing, Pairs, make_pairs

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "dog", "run", "over", "green", "hills")


def row(prompt: str, answers: list[tuple[str, float]], *, line: int = 1) -> Answered:
    return Answered(
        id=f"rows:{line}",
        source="rows",
        line=line,
        group=prompt.casefold(),
        prompt=(Message(role="user", content=prompt),),
        answers=tuple(Answer(text=text, score=score) for text, score in answers),
    )


def plain(**changes: Any) -> Pairing:
    return Pairing(**({"balance": False, "test": 0.0} | changes))


def texts(made: Pairs) -> list[tuple[str, str]]:
    return [(pair.chosen.text, pair.rejected.text) for pair in made.train]


FOUR = row("Why?", [("second", 2.0), ("best of all", 3.0), ("the worst", 0.0), ("equal", 2.0)])


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        ("best-worst", [("best of all", "the worst")]),
        ("adjacent", [("equal", "the worst"), ("best of all", "second")]),
        (
            "all",
            [
                ("best of all", "the worst"),
                ("second", "the worst"),
                ("equal", "the worst"),
                ("best of all", "second"),
                ("best of all", "equal"),
            ],
        ),
    ],
)
def test_each_way_of_taking_makes_its_pairs_and_no_tie(take: str, expected: list[tuple[str, str]]) -> None:
    made = make_pairs([FOUR], plain(take=take, per_prompt=9))
    assert texts(made) == expected
    assert made.dropped == ({} if take == "best-worst" else {"tie": 1})
    assert made.considered == len(expected) + made.dropped.total()


def test_pairs_under_the_margin_are_dropped_and_one_at_the_margin_is_kept() -> None:
    made = make_pairs([FOUR], plain(take="all", margin=2.0))
    assert {pair.gap for pair in made.train} == {2.0, 3.0}
    assert made.dropped == {"tie": 1, "under_margin": 2}


def test_a_prompt_gives_at_most_so_many_pairs_those_furthest_apart_over_all_its_rows() -> None:
    again = row("WHY?", [("a new one", 9.0), ("no good", 1.0)], line=2)
    made = make_pairs([FOUR, again], plain(take="all", per_prompt=2))
    assert [pair.gap for pair in made.train] == [8.0, 3.0]
    assert made.dropped == {"tie": 1, "over_cap": 4}
    assert made.prompts == {"with_pairs": 1, "without_pairs": 0}


def test_texts_that_are_nearly_equal_are_no_pair() -> None:
    near = row("Why?", [("It was the cat on the mat.", 1.0), ("It was the cat on the mat!", 0.0)])
    far = row("How?", [("It was the cat on the mat.", 1.0), ("It was the dog on a green hill.", 0.0)], line=2)
    made = make_pairs([near, far], plain())
    assert texts(made) == [("It was the cat on the mat.", "It was the dog on a green hill.")]
    assert made.dropped == {"near_equal": 1}


def test_empty_and_repeated_answers_are_counted_and_not_used() -> None:
    made = make_pairs(
        [row("Why?", [("yes it is", 3.0), (" yes  it is ", 0.0), ("  ", -1.0), ("not at all", 1.0)])], plain()
    )
    assert texts(made) == [("yes it is", "not at all")]
    assert made.answers == {"used": 2, "duplicate": 1, "empty": 1}


def test_rows_of_one_answer_are_joined_by_their_prompt() -> None:
    rows = [row("Why?", [("yes", 1.0)], line=1), row("How?", [("so", 1.0)], line=2), row("Why?", [("no", 0.0)], line=3)]
    made = make_pairs(rows, plain())
    assert texts(made) == [("yes", "no")]
    assert made.prompts == {"with_pairs": 1, "without_pairs": 1}


def test_nothing_left_says_where_all_went() -> None:
    with pytest.raises(DataError, match="none of 1 pairs is left to train on: 1 tie"):
        make_pairs([row("Why?", [("yes", 1.0), ("no", 1.0)])], plain())


def long_winded(count: int, *, seed: int = 0) -> list[Answered]:
    """Scores that go with length and, half as much, with what is true: a word."""
    chance = random.Random(seed)
    made = []
    for line in range(1, count + 1):
        answers = []
        for _ in range(2):
            size, right = chance.randint(5, 60), chance.random() < 0.5
            text = " ".join(["right" if right else "wrong", *chance.choices(WORDS, k=size)])
            answers.append((text, size / 20 + 1.5 * right + chance.gauss(0, 1)))
        made.append(row(f"question {line}", answers, line=line))
    return made


def test_balanced_pairs_do_not_teach_length_and_still_teach_what_is_true() -> None:
    made = make_pairs(long_winded(600), plain(balance=True))
    before, after = made.effects["before"], made.effects["after"]
    assert before.correlation.low > 0.3
    assert abs(after.correlation.value) <= NEAR_ZERO
    assert after.longer_wins.value == 0.5
    assert after.correlation.low < 0 < after.correlation.high
    assert len(made.train) > 200  # what matching can keep, of 600
    assert made.dropped["unbalanced"] == 600 - len(made.train)
    told = Counter((pair.chosen.text[:5], pair.rejected.text[:5]) for pair in made.train)
    assert told["right", "wrong"] > 2 * told["wrong", "right"]
    assert not any(finding.kind == "length" for finding in made.findings)
    unbalanced = make_pairs(long_winded(600), plain())
    assert [finding.kind for finding in unbalanced.findings] == ["length"]


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_balancing_holds_whatever_the_lengths(seed: int) -> None:
    chance = random.Random(seed)
    rows = []
    for line in range(1, 81):
        sizes = [round(10 ** chance.uniform(0, 3.5)) for _ in range(2)]
        both = [("".join(chance.choices("abcdefgh", k=size)), size + chance.gauss(0, 300)) for size in sizes]
        rows.append(row(f"question {line}", both, line=line))
    made = make_pairs(rows, plain(balance=True))
    assert abs(made.effects["after"].correlation.value) <= NEAR_ZERO


def test_no_prompt_is_on_both_sides_and_the_share_is_kept() -> None:
    rows = [*long_winded(400), *long_winded(400, seed=1)]  # each prompt twice
    made = make_pairs(rows, plain(test=0.2))
    sides = [{pair.group for pair in side} for side in (made.train, made.test)]
    assert not sides[0] & sides[1]
    assert 0.13 < len(sides[1]) / 400 < 0.27
    assert len(made.train) + len(made.test) + made.dropped.total() == made.considered == 800


@given(
    values.lists(
        values.tuples(
            values.sampled_from(["a?", "b?", "A?"]),
            values.lists(
                values.tuples(values.text("xy ", max_size=6), values.integers(0, 3).map(float)), min_size=1, max_size=5
            ),
        ),
        min_size=1,
        max_size=6,
    ),
    values.sampled_from(["best-worst", "all", "adjacent"]),
    values.booleans(),
)
@settings(max_examples=150, deadline=None, database=None)
def test_every_ledger_adds_up(rows: list[Any], take: Any, balance: bool) -> None:
    made_rows = [row(prompt, answers, line=line) for line, (prompt, answers) in enumerate(rows, start=1)]
    try:
        made = make_pairs(made_rows, Pairing(take=take, balance=balance, per_prompt=2, test=0.3))
    except DataError:
        return
    told = ledger(made)
    assert told["answers"]["read"] == sum(len(answers) for _, answers in rows)
    assert told["answers"]["read"] == told["answers"]["used"] + sum(told["answers"]["dropped"].values())
    assert told["prompts"]["read"] == len({prompt.casefold() for prompt, _ in rows})
    assert told["prompts"]["read"] == told["prompts"]["with_pairs"] + told["prompts"]["without_pairs"]
    kept = told["pairs"]["train"] + told["pairs"]["test"]
    assert told["pairs"]["considered"] == kept + sum(told["pairs"]["dropped"].values())
    assert all(pair.gap > 0 for pair in (*made.train, *made.test))
    assert max(Counter(pair.group for pair in (*made.train, *made.test)).values()) <= 2


# Files

SCORED: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Name {number} of them."}],
        "answers": [f"They are {'one two ' * (number % 3)}good ones.", f"Nobody knows about {'x' * (number % 4)}."],
        "scores": [number % 5, 2.5],
    }
    for number in range(20)
]


def written(path: Path, rows: list[dict[str, Any]]) -> DataSource:
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
    return DataSource(path=str(path))


def test_what_is_written_is_what_the_preference_format_reads(tmp_path: Path) -> None:
    report = pairs(written(tmp_path / "scored.jsonl", SCORED), tmp_path / "out", Pairing(balance=False, test=0.2))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.jsonl", "test.jsonl", "pairs.json"}
    sides = {}
    for name in ("train", "test"):
        found = list(read(DataSource(path=str(tmp_path / "out" / f"{name}.jsonl"))))
        assert all(isinstance(pair, Preference) for pair in found) and len(found) == report["pairs"][name]
        sides[name] = found
    pair = next(pair for pair in sides["train"] if pair.prompt[1].content == "Name 4 of them.")
    assert pair.prompt[0] == Message(role="system", content="Be brief.")
    assert (pair.chosen[0].content, pair.rejected[0].content) == tuple(SCORED[4]["answers"])
    rows = {row["id"]: row for row in map(orjson.loads, (tmp_path / "out" / "train.jsonl").read_bytes().splitlines())}
    told = rows[pair.id]
    assert (told["from_file"], told["from_line"], told["chosen_score"], told["rejected_score"]) == (
        "scored.jsonl",
        5,
        4.0,
        2.5,
    )
    assert report["rows"] == {"read": 20, "used": 20, "rejected": {}}
    kept = orjson.loads((tmp_path / "out" / "pairs.json").read_bytes())
    assert {"folder": report["folder"], **kept} == report
    assert str(tmp_path) not in (tmp_path / "out" / "pairs.json").read_text()


def test_the_role_of_an_input_survives_the_way_there_and_back(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Translate."}, {"role": "input", "content": "Guten Tag"}]
    rows = [{"prompt": asked, "answers": ["Good day", "No idea"], "ranks": [1, 2]}]
    pairs(written(tmp_path / "rows.jsonl", rows), tmp_path / "out", plain())
    (pair,) = read(DataSource(path=str(tmp_path / "out" / "train.jsonl")))
    assert isinstance(pair, Preference) and [message.role for message in pair.prompt] == ["user", "input"]


def test_preference_pairs_can_be_cleaned_and_balanced_themselves(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a?", "chosen": "yes it is so", "rejected": "no"},
        {"prompt": "b?", "chosen": "never in my life, not ever", "rejected": "never in my life, not even"},
        {"prompt": "c?", "chosen": "no", "rejected": "yes it is so"},
    ]
    report = pairs(written(tmp_path / "rows.jsonl", rows), tmp_path / "out", Pairing(test=0))
    assert report["pairs"] == {"considered": 3, "train": 2, "test": 0, "dropped": {"near_equal": 1}}
    assert report["length"]["after"]["correlation"]["value"] == 0


def test_rows_with_nothing_to_compare_are_refused_with_what_to_do(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [{"instruction": "Say yes.", "output": "Yes."}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: holds nothing to compare.*--model"):
        pairs(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is there already"):
        pairs(written(tmp_path / "rows.jsonl", SCORED), tmp_path / "out")


def test_skipped_rows_are_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    written(path, [*SCORED, {"prompt": "Why?", "answers": ["a", "b"]}])
    source = DataSource(path=str(path), on_bad_row="skip")
    report = pairs(source, tmp_path / "out", Pairing(balance=False))
    assert report["rows"] == {"read": 21, "used": 20, "rejected": {"missing_field": 1}}
    lines = described(report)
    assert lines[0] == "rows     21 read = 20 used + 1 missing_field"
    assert any(line.startswith("pairs    20 considered = ") for line in lines)


def test_equal_input_gives_equal_files(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", SCORED)
    for name in ("one", "two"):
        pairs(source, tmp_path / name, Pairing(seed=3))
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_ids_are_unique_and_prompts_keep_their_group(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "answers": ["a b", "c d e", "f"], "scores": [3, 2, 1]}] * 2
    (first, _) = read_rows(rows, format="answers")
    pairs(written(tmp_path / "rows.jsonl", rows), tmp_path / "out", plain(take="all", per_prompt=9))
    found = list(read(DataSource(path=str(tmp_path / "out" / "train.jsonl"))))
    assert len({pair.id for pair in found}) == len(found) == 6
    assert isinstance(first, Answered) and {pair.group for pair in found if isinstance(pair, Preference)} == {
        first.group
    }
