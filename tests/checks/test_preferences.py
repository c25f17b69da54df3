"""The linter of preference pairs: what it warns of is planted, and what it says nothing about is clean."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from tiny import ROWS, tiny_model

from mingshi.checks.preferences import check_preferences, length_effect, same_tokens
from mingshi.display import Silent
from mingshi.model.load import load_text
from mingshi.prepare import prepare
from mingshi.recipe import parse
from mingshi.types import Finding, Message, Preference, Sample

LONG_PROMPT = "Explain in one sentence why the sky is blue."


def pair(chosen: str, rejected: str, *, prompt: str = "Why?", line: int = 1) -> Preference:
    return Preference(
        id=f"pairs.jsonl:{line}",
        source="pairs.jsonl",
        line=line,
        group=prompt,
        prompt=(Message(role="user", content=prompt),),
        chosen=(Message(role="assistant", content=chosen),),
        rejected=(Message(role="assistant", content=rejected),),
    )


def sized(chosen: int, rejected: int, line: int) -> Preference:
    return pair("a" * chosen, "b" * rejected, prompt=f"question {line}", line=line)


def kinds(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in findings}


def test_the_correlation_is_that_of_both_orders() -> None:
    """Pearson's, over every pair as (chosen, rejected) and as (rejected, chosen)."""
    chance = np.random.default_rng(3)
    differences = chance.integers(-40, 90, 200)
    both = np.concatenate([differences, -differences])
    choice = np.repeat([1.0, -1.0], len(differences))
    effect = length_effect(differences.tolist())
    assert effect.correlation.value == pytest.approx(np.corrcoef(both, choice)[0, 1], abs=1e-12)
    assert effect.correlation.low < effect.correlation.value < effect.correlation.high
    assert effect.longer_wins.value == pytest.approx((differences > 0).sum() / (differences != 0).sum())


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    truth = 30 / np.hypot(30, 60)  # of normal differences with mean 30 and deviation 60
    held = 0
    for _ in range(200):
        correlation = length_effect(chance.normal(30, 60, 80).tolist()).correlation
        held += correlation.low <= truth <= correlation.high
    assert 180 <= held <= 199


def test_pairs_that_teach_length_are_a_warning_with_its_interval() -> None:
    chance = random.Random(0)
    pairs = [sized(chance.randint(80, 200), chance.randint(20, 120), line) for line in range(1, 101)]
    (finding,) = check_preferences(pairs)
    assert (finding.kind, finding.severity) == ("length", "warning")
    assert "the longer answer is the chosen one" in finding.message and "95 %" in finding.message


def test_pairs_that_teach_brevity_are_a_warning_too() -> None:
    chance = random.Random(0)
    pairs = [sized(chance.randint(20, 120), chance.randint(80, 200), line) for line in range(1, 101)]
    assert "the shorter answer is the chosen one" in kinds(check_preferences(pairs))["length"].message


def test_a_choice_that_does_not_go_with_length_is_not_blamed() -> None:
    """At most one in twenty of such sets, as the interval says."""
    blamed = 0
    for seed in range(60):
        chance = random.Random(seed)
        pairs = [sized(chance.randint(20, 200), chance.randint(20, 200), line) for line in range(1, 101)]
        found = kinds(check_preferences(pairs))
        assert found.keys() <= {"length"}
        blamed += "length" in found
        assert all(finding.severity == "note" for finding in found.values())
    assert blamed <= 7


def test_answers_longer_by_the_same_every_time_are_a_warning_although_they_have_no_interval() -> None:
    pairs = [sized(50, 40, line) for line in range(1, 21)]
    assert kinds(check_preferences(pairs))["length"].severity == "warning"


def test_a_few_pairs_say_nothing_about_length() -> None:
    assert check_preferences([sized(50, 40, line) for line in range(1, 6)]) == []


@pytest.mark.parametrize(
    ("chosen", "rejected", "kind"),
    [
        ("Scattering.", "  scattering. ", "identical"),
        ("Scattering.", "Ｓcattering.", "identical"),
        ("Scattering.", "Scat\u200btering.", "identical"),
        ("Scattering.", " \u200b ", "missing"),
        (f"{LONG_PROMPT.upper()} Because.", "No idea.", "echo"),
        ("Because.", f"You asked: {LONG_PROMPT}", "echo"),
        (f"{LONG_PROMPT} Because.", f"{LONG_PROMPT} No.", "echo_in_both"),
    ],
)
def test_a_planted_fault_is_found_and_named_with_its_line(chosen: str, rejected: str, kind: str) -> None:
    clean = [pair(f"Answer {line}.", f"Reply {line}!!", line=line) for line in range(1, 6)]
    found = check_preferences([*clean, pair(chosen, rejected, prompt=LONG_PROMPT, line=9)])
    assert [finding.kind for finding in found] == [kind]
    assert found[0].count == 1 and found[0].rows == [{"source": "pairs.jsonl", "line": 9}]
    assert found[0].severity == "warning"  # one in six


def test_a_rare_echo_is_a_note() -> None:
    clean = [pair(f"Answer {line}.", f"Reply {line}!!", line=line) for line in range(1, 200)]
    (found,) = check_preferences([*clean, pair(f"{LONG_PROMPT} Yes.", "No.", prompt=LONG_PROMPT, line=200)])
    assert (found.kind, found.severity) == ("echo", "note")


def test_a_short_prompt_inside_an_answer_is_no_echo() -> None:
    assert check_preferences([pair("Why? Because.", "No idea.")]) == []


def test_pairs_that_contradict_each_other_are_found() -> None:
    (found,) = check_preferences([pair("Yes.", "No..", line=1), pair("no..", "Yes.", line=2)])
    assert (found.kind, found.count, found.rows) == ("contradiction", 1, [{"source": "pairs.jsonl", "line": 2}])
    other = [pair("Yes.", "No..", line=1), pair("No..", "Yes.", prompt="Why not?", line=2)]
    assert check_preferences(other) == []


def answers(first: list[int], second: list[int], name: str) -> Sample:
    """A sample with two answers to a prompt of one token."""
    target = np.array([*first, *second], dtype=np.int32)
    return Sample(
        tokens=np.array([1, *target], dtype=np.int32),
        segments=np.array([[0, 1, -1], [1, len(first), 0], [1 + len(first), len(second), 0]], dtype=np.int32),
        source=np.zeros(len(target), dtype=np.int32),
        target=target,
        weight=np.ones(len(target), dtype=np.float32),
        sequence=np.array([0] * len(first) + [1] * len(second), dtype=np.int32),
        id=name,
    )


def test_answers_that_are_the_same_tokens_once_cut_are_found() -> None:
    samples = [answers([5, 6], [5, 6], "pairs.jsonl:2"), answers([5, 6], [5, 7], "pairs.jsonl:1")]
    twins = same_tokens(samples)
    assert twins == {"pairs.jsonl:2"}
    pairs = [pair("one two three", "one four", line=1), pair("one two three", "one two four", line=2)]
    (found,) = check_preferences(pairs, twins=twins)
    assert (found.kind, found.severity, found.rows) == (
        "cut_alike",
        "warning",
        [{"source": "pairs.jsonl", "line": 2}],
    )


def test_a_stage_that_trains_on_preferences_is_linted_and_one_that_does_not_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = tiny_model(tmp_path / "model"), tmp_path / "pairs.jsonl"
    made = [{"prompt": f"Say {n}.", "chosen": f"It is {'so ' * (n % 9 + 2)}{n}.", "rejected": "No."} for n in range(30)]
    rows.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in made))
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    found = {}
    for kind, path in (("dpo", rows), ("sft", plain)):
        stage = {"data": [{"path": str(path)}], "objective": {"kind": kind}}
        recipe = parse({"model": str(model), "output": "run", "stages": [stage]})
        prepared = prepare(recipe.stages[0], recipe, load_text(model), Silent())
        found[kind] = [(each.check, each.kind, each.severity) for each in prepared.findings]
    assert found == {"dpo": [("preferences", "length", "warning")], "sft": []}
