"""Models beside the one that trains, teachers and references: found, and held against it, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson
from transformers import AutoConfig

from mingshi.errors import ModelError, Problem
from mingshi.model import encoder
from mingshi.model.assets import resolve
from mingshi.model.load import Text, base_place, load_text, refuse_code

Role = Literal["teacher", "reference"]

MENDS: dict[Role, str] = {
    "teacher": "Train on what `mingshi predict {name} DATA` writes, with objective sft and columns "
    "{{completion: prediction}}.",
    "reference": "Leave objective.reference out: the network as the stage begins is the usual one.",
}


def require(name: str, student: Text, *, role: Role, output: Path) -> None:
    """ModelError where a model cannot stand beside one with this tokenizer, as far as its small files tell.

    `output` is the folder of the run, which holds no model before its end.
    """
    if Path(name).resolve() in [folder.resolve() for folder in (output, output / "adapter", output / "model")]:
        what = f"the {role} is what this very run makes, which is saved at its end"
        raise ModelError(Problem(file=name, what=what, mend="Make two recipes: one for its training, one for this."))
    refuse_run(name)
    place = resolve(name)
    if isinstance(place, Path):
        refuse_code(place)
    base = _base(name)
    for one in dict.fromkeys((place, base)):
        _require_files(one, of="" if one == place else f", the base of {name},", settings=one == base)
    own = place if isinstance(place, Path) and (place / "config.json").is_file() else base
    if encoder.says_classifier(_settings(own)):
        raise ModelError(f"the {role} {name} is a classifier, and has no distribution over tokens")
    template_beside(name, student, role=role)


def refuse_run(name: str) -> None:
    """ModelError for a run's folder: what it trained lies in a folder of its own."""
    folder = Path(name).expanduser()
    if not (folder / "run.json").is_file() or (folder / "config.json").is_file():
        return
    made = next((folder / kind for kind in ("adapter", "model") if (folder / kind / "mingshi.json").is_file()), None)
    mend = "Finish it: mingshi train RECIPE --resume." if made is None else f"Name what it trained: {made}."
    raise ModelError(Problem(file=name, what="a run's folder, not a model's", mend=mend))


def template_beside(name: str, student: Text, *, role: Role) -> str:
    """The template to load a model with so that it counts tokens as the student does; ModelError if there is none.

    What it renders does not matter, for the model is shown the student's tokens. The tokens that it adds do: `alpaca`
    adds none, and so fits a base model beside a student with a chat template of its own. The student's template may add
    tokens that are as new to a reference as to the student; a teacher must know them.
    """
    if load_text(name).tokenizer_sha256 == student.tokenizer_sha256:
        return "auto"
    for template in ("alpaca",) if role == "teacher" else ("alpaca", student.template.name):
        with suppress(ModelError):  # it does not go with this tokenizer
            if load_text(name, template=template).tokenizer_sha256 == student.tokenizer_sha256:
                return template
    what = f"the {role} {name} has another tokenizer than {student.name}: their tokens cannot be compared"
    raise ModelError(what, MENDS[role].format(name=name))


def revision(place: str) -> Any:
    """The Hub's hash of what it has under a name; ModelError where it has nothing, or cannot be asked."""
    return _settings(place)._commit_hash


def _base(name: str) -> Path | str:
    config = Path(resolve(name)) / "adapter_config.json"
    if config.is_file() and not orjson.loads(config.read_bytes()).get("base_model_name_or_path"):
        mend = "Write the name or the folder of the model that the adapter belongs to."
        raise ModelError(Problem(file=str(config), what="base_model_name_or_path is empty", mend=mend))
    try:
        return base_place(name)
    except ModelError as error:
        told = [replace(problem, what=f"{problem.what}, and the adapter {name} needs it") for problem in error.problems]
        raise ModelError(told) from None


def _require_files(place: Path | str, *, of: str, settings: bool) -> None:
    """Weights, and `settings`: a configuration; of a name on the Hub that it is known there."""
    if settings:
        _settings(place, of=of)
    if isinstance(place, Path) and not any(place.glob("*.safetensors")):
        raise ModelError(Problem(file=str(place), what="holds no weights (*.safetensors)", mend="Fetch it again."))


def _settings(place: Path | str, *, of: str = "") -> Any:
    try:
        if isinstance(place, Path):
            return encoder.read_settings(place)
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(place, Path):
            what = f"has no config.json that can be read ({type(error).__name__})"
            raise ModelError(Problem(file=str(place), what=what, mend="Name the folder of a model.")) from None
        what = f"{place}{of} is no folder here, and the Hub does not give it: {str(error).splitlines()[0][:120]}"
        raise ModelError(what, "Check the name.") from None


def in_field(error: ModelError, field: str) -> Sequence[Problem]:
    """The problems, each with the place in the recipe that it comes from."""
    return [replace(one, field=": ".join(filter(None, (field, one.field)))) for one in error.problems]
