"""Every finding has its words in both languages, and what they have places for is in its evidence."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import mingshi
from mingshi.checks import bias, safety, wording
from mingshi.report.words_health import KINDS, LEAKS, RULES, message, remedy

PACKAGE = Path(mingshi.__file__).parent
LOOKED_INTO = [*sorted((PACKAGE / "checks").glob("*.py")), *sorted((PACKAGE / "workflows").glob("check*.py"))]
OF_RUNS = {"tokens", "preferences"}  # checks of a run's own report


def texts(node: ast.expr | None) -> list[str]:
    """The constants that an expression may be."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def findings() -> Iterator[tuple[str, set[str] | None]]:
    """Check and kind of every finding that is written out, and the keys of its evidence where they are."""
    for path in LOOKED_INTO:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                given = {word.arg: word.value for word in node.keywords if word.arg}
                evidence, keys = given.get("evidence"), None
                if evidence is None or (isinstance(evidence, ast.Dict) and all(evidence.keys)):
                    keys = {key for each in (evidence.keys if evidence else ()) for key in texts(each)}
                for check in texts(given["check"]):
                    for kind in texts(given["kind"]):
                        yield f"{check}.{kind}", keys


FOUND = [(name, keys) for name, keys in findings() if name.partition(".")[0] not in OF_RUNS]


@pytest.mark.parametrize(("name", "keys"), FOUND)
def test_every_finding_has_words_that_its_evidence_fills(name: str, keys: set[str] | None) -> None:
    if name.endswith(".summary"):
        return  # a table, and no sentence
    words = KINDS[name]
    needed = {field for text in (words.message, words.remedy) for _, field, _, _ in Formatter().parse(text) if field}
    if keys is not None:
        assert needed <= keys | {"count"}


def test_every_rule_and_every_leak_has_words() -> None:
    assert {f"wording.{kind}" for kind in wording.TOLD} | {f"safety.{kind}" for kind in safety.TOLD} == set(RULES)
    assert len(FOUND) > 20 and {f"leakage.{kind}" for kind in LEAKS} <= set(KINDS)


@pytest.mark.parametrize("confounder", bias.CONFOUNDERS)
@pytest.mark.parametrize("kind", ["confounded", "masked"])
def test_what_a_difference_goes_with_is_named_in_chinese(kind: str, confounder: str) -> None:
    contrast = {"label": "x", "most": "y", "least": "z"}
    evidence = {"attribute": "region", "contrast": contrast, "confounder": confounder}
    finding = {"check": "bias", "kind": kind, "count": 3, "evidence": evidence, "message": "", "remedy": ""}
    for told in (message(finding).zh, remedy(finding).zh):
        assert told and confounder not in told
