"""Functions and their docstrings come apart cleanly, and no module is on two sides."""

from __future__ import annotations

import ast
import inspect
import json
import sysconfig
from pathlib import Path

import pytest

from scripts.docstrings import Pair, divide, main, read_library, read_module, unique

MODULE = '''
import functools

class Box:
    """A class is no function."""

    # above the function: not its own
    @functools.cache
    async def open(self):  # beside the head
        """Open the box.

            An indented line.
        The last.
        """
        # inside
        return "é"  # after

def shared(): """All of it is on one line."""; return 1

def nothing_left():
    """A docstring and nothing else."""

def silent():
    return 1

def short():
    """Short."""
    return 1

def outer():
    """Functions in functions are left out."""
    def inner():
        """Left out as well."""
        return 1
    return inner
'''


def pair(group: str, number: int, **changes: str) -> Pair:
    values = {"source": f"def f{number}(): {group}", "docstring": f"Says {group} {number}."}
    return Pair(group=group, name=f"{group}.f{number}", **{**values, **changes})


def test_a_pair_is_a_function_without_its_docstring_and_the_docstring_cleaned() -> None:
    found = {pair.name: pair for pair in read_module(MODULE, ast.parse(MODULE), "shop.boxes")}
    assert list(found) == ["shop.boxes.Box.open", "shop.boxes.outer"]
    opened = found["shop.boxes.Box.open"]
    assert opened.group == "shop"
    assert opened.docstring == "Open the box.\n\n    An indented line.\nThe last."
    assert opened.source == (
        '@functools.cache\nasync def open(self):  # beside the head\n    # inside\n    return "é"  # after'
    )


def test_every_cut_function_of_a_real_package_is_the_original_less_its_docstring() -> None:
    root = Path(sysconfig.get_path("stdlib"), "logging")
    found = list(read_library(root))
    assert len(found) > 50
    originals = {}
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node, clean=False)):
                node.body = node.body[1:]
                originals[ast.dump(node)] = inspect.cleandoc(docstring).strip()
    for each in found:
        (function,) = ast.parse(each.source).body
        assert originals[ast.dump(function)] == each.docstring


@pytest.mark.parametrize(
    "twin",
    [
        pair("b", 1, docstring="says  A 1!"),
        pair("b", 1, source="def f1():\n    a"),
        Pair(group="a", name="a.f1", source="def f1(self, value)", docstring="Another."),
    ],
    ids=["docstring", "code", "name"],
)
def test_near_duplicates_are_dropped(twin: Pair) -> None:
    first, other = pair("a", 1), pair("a", 2)
    assert list(unique([first, twin, other])) == [first, other]


def test_no_module_is_on_two_sides_and_every_row_is_on_one() -> None:
    pairs = [pair(f"module{group}", number) for group in range(60) for number in range(group % 20 + 1)]
    sides = divide(pairs, validation=40, test=60)
    groups = {side: {pair.group for pair in found} for side, found in sides.items()}
    assert len(sides["test"]) == 60
    assert len(sides["validation"]) == 40
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])
    assert groups["validation"].isdisjoint(groups["test"])
    assert max(sum(pair.group == group for pair in sides["test"]) for group in groups["test"]) <= 15
    assert divide(pairs[::-1], validation=40, test=60) == sides


def test_the_files_have_the_rows_asked_for_and_are_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.docstrings.read_library", lambda: (pair(f"m{n % 100}", n) for n in range(400)))
    asked = ["--output", str(tmp_path), "--validation", "20", "--test", "30"]
    assert main([*asked, "--rows", "50"]) == 0
    rows = {path.stem: path.read_text("utf-8").splitlines() for path in tmp_path.glob("*.jsonl")}
    assert {side: len(lines) for side, lines in rows.items()} == {"train": 50, "validation": 20, "test": 30}
    assert json.loads(rows["train"][0]).keys() == {"id", "group", "instruction", "input", "output"}
    assert "train         50 rows" in capsys.readouterr().out
    main([*asked, "--rows", "50"])
    assert "ready" in capsys.readouterr().out
    main(asked)
    more = (tmp_path / "train.jsonl").read_text("utf-8").splitlines()
    assert len(more) == 400 - 20 - 32, "eight modules of four rows hold the 30 of the test"
    assert more[:50] == rows["train"]
