"""What both sides of a benchmark are given."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.environment import ROOT, answer, variables
from benchmarks.machine import Usage, facts
from benchmarks.roof import body, head, limit
from benchmarks.rows import Row, fingerprint, read_rows, trained_share, write_rows
from benchmarks.side_by_side import changed, refuse_if_busy
from benchmarks.task import ALLOCATOR, SETTINGS, Task, resident_bytes

ROWS = [Row(tokens=(5, 6, 7, 8), mask=(0, 0, 1, 1)), Row(tokens=(5, 9), mask=(0, 1))]


def pairs(rows: list[Row]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(row.tokens, row.mask) for row in rows]


def test_rows_survive_the_disk(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS)
    assert read_rows(tmp_path / "rows.jsonl") == ROWS
    assert ROWS[0].labels() == [-100, -100, 7, 8]
    assert trained_share(ROWS) == 3 / 6


def test_the_fingerprint_ignores_order_and_the_first_mask_bit_and_nothing_else() -> None:
    known = fingerprint(pairs(ROWS))
    assert fingerprint(pairs(ROWS[::-1])) == known
    assert fingerprint([(ROWS[0].tokens, (1, 0, 1, 1)), pairs(ROWS)[1]]) == known
    assert fingerprint([(ROWS[0].tokens, (False, False, True, True)), pairs(ROWS)[1]]) == known
    assert fingerprint([((5, 6, 7, 9), ROWS[0].mask), pairs(ROWS)[1]]) != known
    assert fingerprint([(ROWS[0].tokens, (0, 1, 1, 1)), pairs(ROWS)[1]]) != known
    assert fingerprint(pairs(ROWS + ROWS[:1])) != known


def test_only_a_side_that_asks_gets_the_allocator_setting() -> None:
    inherited = {"PATH": "/bin", "MALLOC_ARENA_MAX": "1"} | ALLOCATOR
    plain, tuned = variables(inherited, allocator=False), variables(inherited, allocator=True)
    assert not any(name.startswith("MALLOC_") for name in plain)
    assert tuned == plain | ALLOCATOR
    assert plain["PATH"] == "/bin"


def test_a_setting_can_be_changed_and_an_unknown_one_is_refused() -> None:
    tuned = SETTINGS["tuned"]
    made = changed(tuned, ["micro_batch=4", "grouped=false", "attention=eager"], batch=16)
    assert made == asdict(tuned) | {"micro_batch": 4, "grouped": False, "attention": "eager"}
    with pytest.raises(SystemExit, match="no such setting"):
        changed(tuned, ["micro=4"], batch=16)


def test_a_micro_batch_divides_its_batch() -> None:
    assert changed(SETTINGS["defaults"], [], batch=4)["micro_batch"] == 4
    with pytest.raises(SystemExit, match="12"):
        changed(SETTINGS["defaults"], [], batch=12)


def test_a_task_reaches_the_other_process_whole() -> None:
    task = Task(model="m", rows="r", adapter="a", steps=7)
    assert Task(**json.loads(json.dumps(asdict(task)))) == task


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No such file"):
        answer(sys.executable, "benchmarks.roof", str(tmp_path), allocator=False, log=tmp_path / "log")


def test_the_driver_stays_small() -> None:
    drivers = "benchmarks.sft, benchmarks.distill, benchmarks.generate, benchmarks.startup, benchmarks.__main__"
    code = f"import sys, {drivers}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_busy_machine_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (50.0, 50.0, 50.0))
    refuse_if_busy(force=True)
    with pytest.raises(SystemExit, match="--force"):
        refuse_if_busy(force=False)


def test_others_work_is_told_from_our_own_childrens() -> None:
    before = Usage(machine=100.0, children=10.0, wall=1000.0)
    assert Usage(machine=150.0, children=50.0, wall=1100.0).others_since(before) == pytest.approx(0.1)
    now = Usage.now()
    assert 0 < now.machine < now.wall
    assert int(facts()["threads"]) >= 1


def test_memory_at_its_highest_is_not_below_memory_now() -> None:
    assert 0 < resident_bytes() <= resident_bytes("VmHWM")


def test_the_limit_counts_every_weight_of_the_body() -> None:
    config = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    }
    norms = 576 * (2 * 30 + 1)
    assert sum(product.weights for product in body(config)) + head(config).weights + norms == 134_515_008
    measured = {"body_seconds": 0.001, "head_seconds": 0.002}
    assert limit(measured, trained_share=0.5) == pytest.approx(500)
    assert limit(measured, trained_share=0.5, whole=True) == pytest.approx(500 / 1.5)
