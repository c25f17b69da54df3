"""YAML 1.2 and the tree it stands for: read with care, changed in place, written back.

A file is text of a stranger: its size and depth are bounded, aliases and duplicate keys are refused, and every mistake
is told with its line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from mingshi.errors import Problem, RecipeError

MAX_BYTES = 1 << 20
DEEPEST = 20  # levels; fields lie at most seven deep


def load(path: Path) -> CommentedMap:
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise RecipeError(Problem(file=str(path), what=f"a recipe of {len(data)} bytes", mend="Is it the data?"))
        text = data.decode("utf-8")
        yaml = YAML(typ="rt")
        yaml.version = (1, 2)
        _refuse_tricks(text, path)
        values = yaml.load(text)
    except FileNotFoundError:
        raise RecipeError(Problem(file=str(path), what="there is no such recipe", mend="Check the path.")) from None
    except OSError as error:
        raise RecipeError(Problem(file=str(path), what=f"cannot be read ({error.strerror})")) from None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start})"
        raise RecipeError(Problem(file=str(path), what=what, mend="Save it as UTF-8.")) from None
    except YAMLError as error:
        raise RecipeError(_yaml_problem(error, path)) from None
    if not isinstance(values, CommentedMap):
        raise RecipeError(Problem(file=str(path), what="a recipe is keys and values", mend="Begin with `model: …`."))
    return values


def _refuse_tricks(text: str, path: Path) -> None:
    """Aliases multiply a text, and nesting costs time and stack; a recipe needs neither."""
    depth = 0
    for event in YAML().parse(text):
        name = type(event).__name__
        if name == "AliasEvent":
            raise RecipeError(Problem(file=str(path), what="aliases are not used in recipes", mend="Write it out."))
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise RecipeError(Problem(file=str(path), line=line, what="nests too deep", mend="No field is so deep."))


def _yaml_problem(error: YAMLError, path: Path) -> Problem:
    mark = next((mark for mark in (vars(error).get("problem_mark"), vars(error).get("context_mark")) if mark), None)
    what = str(vars(error).get("problem") or error).splitlines()[0]
    return Problem(file=str(path), line=mark.line + 1 if mark else None, what=f"not YAML: {what}")


def apply(values: Any, sets: Sequence[str]) -> None:
    """Carry out `a.b=c` assignments in place, in order."""
    for assignment in sets:
        _assign(values, assignment)


def _assign(values: Any, assignment: str) -> None:
    """`stages.0.optim.learning_rate=1e-4` in place; the value is YAML."""
    name, equals, text = assignment.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {assignment}: not of the form a.b=c", "For example --set stages.0.batch=8.")
    place = values
    try:
        for key in keys[:-1]:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        value = YAML(typ="safe", pure=True).load(text)
        if isinstance(place, list):
            place[int(keys[-1])] = value
        else:
            place[keys[-1]] = value
    except (IndexError, ValueError, TypeError, AttributeError, YAMLError):
        raise RecipeError(f"--set {name}: there is no such place in the recipe", "Count stages from 0.") from None


def line_of(values: Any, place: Sequence[Any]) -> int | None:
    """The 1-based line of the deepest key on the way that the text has."""
    line = None
    for key in place:
        if not isinstance(values, CommentedMap | CommentedSeq):
            return line
        try:
            position = values.lc.key(key) if isinstance(values, CommentedMap) else values.lc.item(key)
            values = values[key]
        except (KeyError, IndexError, TypeError, AttributeError):
            return line
        line = int(position[0]) + 1
    return line


def dump(values: Mapping[str, Any], path: Path) -> None:
    yaml = YAML()
    yaml.default_flow_style = None
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(_quoted(values), stream)


def _quoted(value: Any) -> Any:
    """Texts with characters that cannot be seen go between double quotes: elsewhere YAML reads some as line breaks."""
    if isinstance(value, Mapping):
        return {_quoted(key): _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_quoted(inner) for inner in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and not value.isprintable() else value
