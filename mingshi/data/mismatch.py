"""Which objective takes rows of which format, told where a file's rows and the objective do not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mingshi.errors import DataError, Problem
from mingshi.types import Answered, Captioned, Chat, Choices, Constrained, Example, Labelled, Preference

# Formats whose rows become this kind of example, and objectives that learn from it.
TOLD: Mapping[type[Example], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Chat: (("chat", "instruct"), ("sft", "distill")),
    Labelled: (("labelled",), ("classify",)),
    Preference: (("preference",), ("dpo",)),
    Captioned: (("captions",), ("contrastive",)),
    Answered: (("answers",), ()),
    Choices: (("choices",), ()),
    Constrained: (("constrained",), ()),
}


def mismatch(example: Example, accepts: Iterable[type[Example]], *, objective: str) -> DataError:
    """The error for a row that this objective does not take."""
    formats, objectives = TOLD[type(example)]
    wanted = [name for kind in accepts for name in TOLD[kind][0]]
    what = f"is read as {' or '.join(formats)}, and the objective {objective} takes rows of {' or '.join(wanted)}"
    mend = f"Use objective {' or '.join(objectives)}, or give other rows."
    if isinstance(example, Answered):
        mend = "No objective takes these: make preferences of them with `mingshi pairs`, and use objective dpo."
    if isinstance(example, Choices):
        mend = "No objective takes these: name them among `tasks`, with `evals: [{kind: choice}]`."
    if isinstance(example, Constrained):
        mend = "No objective takes these: name them among `tasks`, with `evals: [{kind: instructions}]`."
    return DataError(Problem(file=example.source, line=example.line, what=what, mend=mend))
