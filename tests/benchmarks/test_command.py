"""`python -m benchmarks NAME`, and the benchmark of starting."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.__main__ import BENCHMARKS, main


def test_every_name_is_a_module() -> None:
    assert all(find_spec(f"benchmarks.{name}") is not None for name in BENCHMARKS)


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told and about in told for name, about in BENCHMARKS.items())
    assert main(["speed"]) == 2
    assert "no benchmark 'speed'" in capsys.readouterr().err


def test_a_name_gets_the_rest_of_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["generate", "--help"])
    assert "--new-tokens" in capsys.readouterr().out


def test_help_starts_and_takes_time() -> None:
    assert 0 < startup.seconds_of_help() < 60


def test_a_run_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: nothing\n")
    with pytest.raises(RuntimeError, match=r"recipe\.yaml"):
        startup.seconds_to_step(recipe)
