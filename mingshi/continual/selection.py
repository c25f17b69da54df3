"""Which rows of a stage are remembered, and why: for the file, and for whoever reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mingshi.continual import choose
from mingshi.continual.settings import Rehearsal
from mingshi.continual.states import mean_states
from mingshi.evals import answers
from mingshi.evals.generation import question_of
from mingshi.evals.scoring import GRAM
from mingshi.evals.tokens import cutter
from mingshi.model.assets import cache_root
from mingshi.objectives import Classify
from mingshi.types import Answered, Chat, Choices, Example, Labelled, Message, Objective, Preference, Sample

if TYPE_CHECKING:
    from mingshi.display import Display
    from mingshi.model.load import Model

REPEATS = 0.5  # share of an answer's runs of three tokens that came before in it: more is no answer


@dataclass(frozen=True, slots=True)
class Chosen:
    """A place among a stage's samples."""

    row: int
    why: str


def chosen(
    samples: Sequence[Sample],
    rows: int,
    asked: Rehearsal,
    objective: Objective,
    *,
    model: Model,
    seed: int,
    budget: int,
    display: Display,
) -> list[Chosen]:
    """`rows` of the samples of one stage, by the model as it is; `budget` is tokens of one stream."""
    if asked.choose == "random":
        return [Chosen(row, "drawn at random") for row in choose.random_rows(len(samples), rows, seed=seed)]
    folder = cache_root() / "companions" / "states"
    features_NW = mean_states(model.network, samples, folder=folder, budget=budget, display=display)
    if asked.choose == "kmeans":
        places = choose.kmeans(features_NW, rows, seed=seed)
        return [Chosen(row, f"nearest to one of {rows} centres") for row in places]
    if asked.choose == "k_centre":
        places = choose.k_centre(features_NW, rows)
        return [Chosen(row, f"farthest from those before it, as number {n}") for n, row in enumerate(places, start=1)]
    found = []
    groups = classes(samples, objective)
    shares = choose.quotas([len(members) for members in groups.values()], rows)
    for (name, members), share in zip(groups.items(), shares, strict=True):
        places = choose.herding(features_NW[members], share)
        told = f" of {name}" if name else ""
        found += [Chosen(members[row], f"nearest mean, as number {n}{told}") for n, row in enumerate(places, start=1)]
    return found


def classes(samples: Sequence[Sample], objective: Objective) -> dict[str, list[int]]:
    """Rows by class where each has one; else all of them under no name."""
    if not isinstance(objective, Classify) or objective.problem != "single_label":
        return {"": list(range(len(samples)))}
    found: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        found.setdefault(objective.labels[int(sample.labels[0])], []).append(row)
    return dict(sorted(found.items()))


def shown(example: Example) -> str:
    """What a person knows a row by."""
    match example:
        case Labelled():
            return example.content
        case Chat():
            asked = [message.content for message in example.messages if message.role == "user"]
            return (asked or [message.content for message in example.messages])[-1]
        case Preference() | Choices() | Answered():
            return example.prompt[-1].content if example.prompt else ""
    return ""


# The model's own answers


def own_answers(
    model: Model, examples: Mapping[int, Chat], *, max_new_tokens: int, display: Display
) -> dict[int, tuple[str | None, str]]:
    """Its greedy answer in the place of each conversation's last one; None, and why, where the given one is to stay."""
    from mingshi.model.generate import generate

    asked = {key: question for key, example in examples.items() if (question := question_of(example)) is not None}
    prompts = [model.template.prompt(messages, examples[key].tools) for key, (messages, _) in asked.items()]
    outputs = generate(model, prompts, max_new_tokens=max_new_tokens, progress=display.track)
    found: dict[int, tuple[str | None, str]] = dict.fromkeys(examples, (None, "nothing is asked in it"))
    for key, output in zip(asked, outputs, strict=True):
        text = str(model.tokenizer.decode(list(output.tokens), skip_special_tokens=True)).strip()
        flaw = unfit(text, finished=output.finished)
        found[key] = (None if flaw else text, flaw)
    return found


def unfit(answer: str, *, finished: bool) -> str:
    """Why an answer is not one to learn from; nothing where it is."""
    if not answer.strip():
        return "its own is empty"
    if not finished:
        return "its own is unfinished"
    distinct = answers.distinct(cutter("char", False).tokenize(answer), GRAM)
    if distinct is not None and 1 - distinct > REPEATS:
        return "its own repeats itself"
    return ""


def answered(example: Chat, answer: str) -> Chat:
    """The conversation with another last answer; what came after it is left out."""
    question = question_of(example)
    assert question is not None, "it has an answer"
    messages, given = question
    said: tuple[Message, ...] = (*messages, replace(given, content=answer, reasoning=None, tool_calls=()))
    return replace(example, messages=said)


def by_id(examples: Iterable[object], wanted: Mapping[str, Sequence[int]]) -> dict[int, Example]:
    """The rows of these ids, by what is wanted of each; a sample of several has its row's id and `#number`."""
    found: dict[int, Example] = {}
    for example in examples:
        if isinstance(example, Example):
            found.update(dict.fromkeys(wanted.get(example.id, ()), example))
    return found
