"""Cut function-to-docstring pairs out of the standard library of the Python that runs this.

Data for instruction tuning that needs no download: about 4,500 pairs, written as `instruction`, `input`, `output`.
Run it as `python scripts/docstrings.py`; a second call with the same options finds its files and ends at once.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import os
import platform
import re
import sys
import sysconfig
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTRUCTION = "Write the docstring of this function."
SKIPPED = {"test", "tests", "idlelib", "turtledemo", "lib2to3", "site-packages", "dist-packages", "encodings"}
LONGEST_SOURCE = 1500  # characters
SHORTEST_DOCSTRING, LONGEST_DOCSTRING = 10, 600  # characters
CHARACTERS_PER_TOKEN = 3.6  # of these rows with the default model's tokenizer
TOKENS_AROUND = 40  # what its template and the instruction add to a row

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One function and what its author said of it."""

    group: str  # the top-level module: functions of one module resemble each other
    name: str
    source: str
    docstring: str

    @property
    def place(self) -> str:
        """Where the pair stands in an order that is the same everywhere and has nothing to do with its content."""
        return stable(f"{self.group} {self.name}")

    @property
    def row(self) -> dict[str, str]:
        row = {"id": f"{self.group}:{self.name}", "group": self.group, "instruction": INSTRUCTION}
        return {**row, "input": self.source, "output": self.docstring}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write train, validation and test files; print what is in them."""
    parser = argparse.ArgumentParser(prog="docstrings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/docstrings"), help="folder to write")
    parser.add_argument("--rows", type=int, default=None, help="training rows to keep (all)")
    parser.add_argument("--validation", type=int, default=150, help="validation rows (150)")
    parser.add_argument("--test", type=int, default=200, help="test rows (200)")
    parser.add_argument("--longest", type=int, default=2100, help="characters of function and docstring (2100)")
    chosen = parser.parse_args(arguments)
    asked = {name: value for name, value in vars(chosen).items() if name != "output"}
    made_from = {**asked, "python": platform.python_version(), "script": stable(Path(__file__).read_text("utf-8"))}
    if made_before(chosen.output, made_from):
        print(f"docstrings: ready in {chosen.output}")
        return 0
    found = [pair for pair in unique(read_library()) if len(pair.source) + len(pair.docstring) <= chosen.longest]
    sides = divide(found, validation=chosen.validation, test=chosen.test)
    sides["train"] = sides["train"][: chosen.rows]
    write(chosen.output, sides, made_from)
    for side, pairs in sides.items():
        characters = sum(len(pair.source) + len(pair.docstring) for pair in pairs)
        tokens = round(characters / CHARACTERS_PER_TOKEN + TOKENS_AROUND * len(pairs), -2)
        print(
            f"{side:10} {len(pairs):5} rows of {len({pair.group for pair in pairs}):3} modules, ~{tokens:,.0f} tokens"
        )
    return 0


def read_library(root: Path | None = None) -> Iterator[Pair]:
    """Every function and method with a docstring of a usable length, in the order of their files."""
    root = root or Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED.isdisjoint(relative.parts) and not relative.parts[0].startswith("config-"):
            try:
                with tokenize.open(path) as stream:  # honours the file's declared encoding
                    text = stream.read()
                tree = ast.parse(text)
            except (SyntaxError, UnicodeDecodeError):
                continue
            module = ".".join(relative.with_suffix("").parts)
            yield from read_module(text, tree, module)


def read_module(text: str, tree: ast.Module, module: str) -> Iterator[Pair]:
    """The pairs of one file."""
    lines = text.splitlines(keepends=True)
    for name, function in functions(tree, module):
        source = without_docstring(lines, function)
        docstring = inspect.cleandoc(ast.get_docstring(function, clean=False) or "").strip()
        if source and len(source) <= LONGEST_SOURCE and SHORTEST_DOCSTRING <= len(docstring) <= LONGEST_DOCSTRING:
            yield Pair(group=module.partition(".")[0], name=name, source=source, docstring=docstring)


def functions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function]]:
    """Functions of a module and methods of its classes, with their full names."""
    for node in parent.body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}.{node.name}")
        elif isinstance(node, Function):
            yield f"{prefix}.{node.name}", node


def without_docstring(lines: Sequence[str], function: Function) -> str:
    """The function's own text, comments and all, dedented; "" if the docstring shares a line or nothing is left."""
    said, *rest = function.body
    if not rest or ast.get_docstring(function) is None:
        return ""
    first, last = said.lineno - 1, said.end_lineno or said.lineno
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)]) - 1
    shared = lines[first][: said.col_offset].strip() or rest[0].lineno <= last
    if shared:
        return ""
    kept = [*lines[start:first], *lines[last : function.end_lineno]]
    return textwrap.dedent("".join(kept)).strip("\n")


def unique(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Pairs whose docstring and code have not been seen, letters and digits compared alone, nor their name.

    A name comes twice where a property has a setter.
    """
    seen: set[str] = set()
    for pair in pairs:
        keys = {normalised(pair.docstring), "code " + normalised(pair.source), pair.name}
        if seen.isdisjoint(keys):
            yield pair
        seen |= keys


def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def divide(pairs: Sequence[Pair], *, validation: int, test: int) -> dict[str, list[Pair]]:
    """Rows for training, validation and test; every module is on one side alone.

    Modules are taken in the order of a hash, test first. None gives more than a quarter of a held-out side, which
    would else measure one author's habits: larger ones train.
    """
    sizes = Counter(pair.group for pair in pairs)
    order = sorted(sizes, key=stable)
    side_of: dict[str, str] = {}
    for side, wanted in (("test", test), ("validation", validation)):
        held = 0
        for group in order:
            if held < wanted and group not in side_of and sizes[group] <= wanted // 4:
                side_of[group] = side
                held += sizes[group]
    sides: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in sorted(pairs, key=lambda pair: pair.place):
        sides[side_of.get(pair.group, "train")].append(pair)
    return {**sides, "validation": sides["validation"][:validation], "test": sides["test"][:test]}


def stable(text: str) -> str:
    """A hash that is the same in every process."""
    return hashlib.sha256(text.encode()).hexdigest()


def made_before(folder: Path, made_from: dict[str, object]) -> bool:
    try:
        return bool(json.loads((folder / "made.json").read_bytes()) == made_from)
    except (OSError, ValueError):
        return False


def write(folder: Path, sides: dict[str, list[Pair]], made_from: dict[str, object]) -> None:
    """JSON lines, each file replaced whole; what they were made from is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.json").unlink(missing_ok=True)
    texts = {f"{side}.jsonl": [json.dumps(pair.row, ensure_ascii=False) for pair in sides[side]] for side in sides}
    for name, rows in {**texts, "made.json": [json.dumps(made_from)]}.items():
        part = folder / f".{name}.{os.getpid()}"
        part.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        os.replace(part, folder / name)


if __name__ == "__main__":
    sys.exit(main())
