"""Preference pairs side by side: what both sides are given, that they do the same with it, and what is told of it."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_model

from benchmarks.dpo import CONTEST, comparison, first_losses, summarise, table, tell
from benchmarks.encoded import texts
from benchmarks.environment import ROOT
from benchmarks.ours_dpo import run_ours, sample
from benchmarks.pairs import Pair, lengthened, pairs_fingerprint, read_pairs, write_pairs
from benchmarks.prepare import Request, prepare
from benchmarks.side_by_side import parser
from benchmarks.summary import GIB, note
from benchmarks.task import PAIR_SETTINGS, PairOutcome, PairSetting, PairTask
from mingshi.data.formats import read_rows
from mingshi.model.load import load_text
from mingshi.objectives import Dpo

PAIRS = [
    Pair(prompt_ids=(5, 6), chosen_ids=(7, 8, 2), rejected_ids=(9, 2)),
    Pair(prompt_ids=(5,), chosen_ids=(8,), rejected_ids=(7, 7)),
]
ROWS = [
    {
        "conversations": [{"from": "human", "value": f"Say the number {number}."}],
        "chosen": {"from": "gpt", "value": f"The number is {number}. " + "one two " * (number % 5)},
        "rejected": {"from": "gpt", "value": "three " * (1 + number % 3)},
    }
    for number in range(12)
]


def test_a_lengthened_prompt_is_twice_an_answer_and_begins_as_no_other() -> None:
    pairs = lengthened([Pair(prompt_ids=(1,), chosen_ids=(2, 3, 4), rejected_ids=(5,)), *PAIRS])
    assert [len(pair.prompt_ids) for pair in pairs] == [4, 5, 3]
    assert [pair.trained for pair in pairs] == [4, 5, 3]
    assert len({pair.prompt_ids[:2] for pair in pairs}) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PairTask, dict[str, Any]]:
    place = tmp_path_factory.mktemp("prepared")
    data = place / "rows.json"
    data.write_text(json.dumps(ROWS))
    made = prepare(Request(model=str(folder), data=str(data), folder=str(place), count=8, kind="dpo"))
    task = PairTask(
        model=str(folder),
        steps=3,
        batch=2,
        learning_rate=0.01,
        **made["task"],
    )
    return task, made["told"]


def test_pairs_survive_the_disk(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    assert read_pairs(tmp_path / "pairs.jsonl") == PAIRS
    assert (PAIRS[0].tokens, PAIRS[0].trained, PAIRS[0].longest, PAIRS[0].written) == (7, 5, 5, 9)


@pytest.mark.parametrize(
    "change",
    [
        lambda pair: replace(pair, chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids),
        lambda pair: replace(pair, prompt_ids=(5,), chosen_ids=(6, 7, 8, 2), rejected_ids=(6, 9, 2)),
        lambda pair: replace(pair, chosen_ids=(7, 8, 3)),
    ],
)
def test_the_fingerprint_knows_which_answer_was_chosen_and_where_it_begins(change: Callable[[Pair], Pair]) -> None:
    def known(pairs: list[Pair]) -> str:
        return pairs_fingerprint(pair.texts() for pair in pairs)

    assert known(PAIRS[::-1]) == known(PAIRS)
    assert known([change(PAIRS[0]), PAIRS[1]]) != known(PAIRS)


def test_what_is_timed_is_what_the_objective_makes_of_a_row(folder: Path) -> None:
    text, objective = load_text(str(folder)), Dpo()
    for place, example in enumerate(read_rows([{"prompt": "Is it?", "chosen": "Yes, it is.", "rejected": "No."}])):
        encoded = objective.encode(example, text)
        chosen, rejected = texts(encoded)
        shared = chosen.mask.index(1)
        pair = Pair(
            prompt_ids=chosen.tokens[:shared], chosen_ids=chosen.tokens[shared:], rejected_ids=rejected.tokens[shared:]
        )
        made = sample(pair, place)
        assert list(texts(made)) == [chosen, rejected] == list(pair.texts())
        assert made.target.tolist() == encoded.target.tolist()
        assert made.row == place


def test_a_prediction_of_another_token_than_follows_is_found() -> None:
    made = sample(PAIRS[0], 0)
    assert list(texts(made)) == list(PAIRS[0].texts())
    with pytest.raises(ValueError, match="follows"):
        list(texts(replace(made, target=np.flip(made.target))))


def test_preparing_keeps_answers_whole_and_says_what_they_are_like(prepared: tuple[PairTask, dict[str, Any]]) -> None:
    task, made = prepared
    pairs = read_pairs(Path(task.rows))
    text = load_text(task.model)
    assert len(pairs) == 8
    for pair in pairs:
        assert text.tokenizer.decode(list(pair.prompt_ids)).endswith("<|im_start|>assistant\n")
        assert text.tokenizer.decode(list(pair.chosen_ids)).startswith("The number is ")
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == text.tokenizer.convert_tokens_to_ids("<|im_end|>")
    share = sum(pair.trained for pair in pairs) / sum(pair.tokens for pair in pairs)
    assert made["trained_share"] == pytest.approx(share)
    assert made["lengths"][-1] == max(pair.tokens for pair in pairs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precompute", [False, True])
def test_both_sides_learn_the_same(prepared: tuple[PairTask, dict[str, Any]], precompute: bool) -> None:
    peer = pytest.importorskip("benchmarks.peers.trl_dpo")
    task, made = prepared
    setting = PairSetting(micro_batch=1, checkpointing=False, autocast=False, precompute=precompute)
    ours, theirs = run_ours(task), peer.measure(task, setting)
    assert ours.fingerprint == theirs.fingerprint == made["fingerprint"]
    assert (ours.real, ours.trained, ours.written) == (theirs.real, theirs.trained, theirs.written)
    assert sum(ours.read) < sum(theirs.read)
    assert sum(ours.processed) <= sum(ours.real) < sum(theirs.processed)
    assert ours.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert ours.losses == pytest.approx(theirs.losses, abs=2e-3)
    assert ours.margins == pytest.approx(theirs.margins, abs=4e-3)
    assert abs(theirs.margins[-1]) > 0.02  # something was learnt that could have differed
    assert ours.accuracies[1:] == theirs.accuracies[1:]
    assert ours.reference_seconds > 0
    assert (theirs.reference_seconds > 0) == precompute


ONE = PairOutcome(
    fingerprint="abc",
    seconds=[9.0, 2.0, 4.0],
    real=[100, 100, 200],
    processed=[150, 150, 300],
    read=[100, 100, 200],
    written=[150, 150, 300],
    trained=[50, 10, 30],
    losses=[math.log(2), 0.6, 0.5],
    gradient_norms=[0.5, 0.4, 0.6],
    change=0.001,
    loaded_bytes=GIB,
    peak_bytes=4 * GIB,
    versions={"trl": "1.16.0"},
    settings={"micro_batch": "8"},
    margins=[0.0, 0.1, 0.3],
    accuracies=[0.0, 0.5, 1.0],
    reference_seconds=3.0,
)
TASK = PairTask(model="tiny", rows="/somewhere/pairs.jsonl", adapter="/somewhere/adapter", steps=2, batch=6)


def test_a_first_epoch_is_charged_with_its_share_of_the_reference_pass() -> None:
    summary = summarise([ONE], TASK)
    assert summary.later_pairs.median == 12 / 6
    assert summary.first_pairs.median == 12 / (6 + 2)
    assert (summary.later_real.median, summary.first_real.median) == (50, 300 / 8)
    assert summary.reference.median == pytest.approx(3 / 18)
    assert summary.computed == 1.5
    assert summary.sharing == pytest.approx(2 / 3)
    assert (summary.mean_loss, summary.margin, summary.accuracy) == pytest.approx((0.55, 0.2, 0.75))
    within = summarise([replace(ONE, reference_seconds=0.0)], TASK)
    assert within.first_pairs == within.later_pairs


def test_a_side_that_begins_elsewhere_than_at_ln_2_is_named() -> None:
    assert not first_losses({"ours": [ONE]})
    (fault,) = first_losses({"ours": [ONE], "peer": [replace(ONE, losses=[0.75, 0.6, 0.5])]})
    assert fault.startswith("peer began with a loss of 0.7500")
    assert first_losses({"peer": [replace(ONE, losses=[math.nan, 0.6, 0.5])]})


def test_peers_are_compared_in_first_and_later_epochs() -> None:
    peer = replace(ONE, seconds=[9.0, 5.0, 10.0], peak_bytes=8 * GIB, reference_seconds=0.0)
    sides = {"ours": [ONE], "defaults": [peer]}
    (sentence,) = comparison({name: summarise(side, TASK) for name, side in sides.items()}, sides)
    assert sentence.startswith(
        "defaults: 1.88 times its pairs a second in a first epoch, 2.50 times in later ones, 0.50 of its peak memory"
    )
    assert "curves within 0.00%" in sentence


def test_the_note_says_where_the_reference_was_counted_and_has_both_curves() -> None:
    told = tell({"ours": [ONE]}, TASK, "abc", 100.0)
    report = {
        "machine": {"threads": "2"},
        "task": asdict(TASK),
        "rows": {"fingerprint": "abc"},
        "roof": {"gigaflops": 300.0},
        "sides": {"ours": [asdict(ONE)]},
    }
    page = note(CONTEST.title, report, told, datetime.date(2026, 1, 2))
    assert not told.faults
    assert "first epoch" in told.method and told.method in page and told.table in page
    assert "* loss of each step: 0.6931, 0.6000, 0.5000" in page
    assert "* reward margin of each step: 0.0000, 0.1000, 0.3000" in page
    assert "somewhere" not in page
    assert "| share of the matrix-product limit, first epoch | 56% |" in table(told.summaries, 100.0)


def test_the_command_knows_the_peers_settings() -> None:
    chosen = parser(CONTEST).parse_args(["--steps", "2", "--peer", "tuned", "--peer", "defaults"])
    assert (chosen.steps, chosen.batch, chosen.peer) == (2, 8, ["tuned", "defaults"])
    assert PAIR_SETTINGS["defaults"] == PairSetting()
    code = "import sys, benchmarks.dpo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
