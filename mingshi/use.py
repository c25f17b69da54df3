"""What is done with a model once it is there: measure it, ask it, talk to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mingshi.data.formats import DataSource, detect
from mingshi.data.formats.questions import read_to_answer, turn
from mingshi.data.plan import micro_batches
from mingshi.data.row_problem import RowProblem
from mingshi.display import Display, Silent
from mingshi.errors import DataError, ModelError, Problem
from mingshi.evals import (
    Choice,
    Classification,
    Evaluator,
    Generation,
    Instructions,
    Perplexity,
    PreferenceAccuracy,
    Retrieval,
)
from mingshi.evals.preference import without_rewards
from mingshi.evaluate import run_evaluator
from mingshi.model import pair as pairs
from mingshi.model.generate import generate
from mingshi.model.heads import Classes
from mingshi.model.load import Model, load
from mingshi.objectives import Classify, Contrastive, Dpo, Sft
from mingshi.prepare import TestSet, counted, prepare_task, prepare_tests
from mingshi.record import RUN
from mingshi.tasks import Task
from mingshi.types import Answered, Chat, Choices, Example, Labelled, Message, Preference, Sample, Scores

STREAM = 4096  # tokens of one packed stream while measuring


def trained_model(folder: Path) -> Path:
    """Where a run keeps what it trained; ModelError where it has not come so far."""
    for name in ("adapter", "model"):
        if (folder / name / "mingshi.json").is_file():
            return folder / name
    what = "this run has no trained model yet"
    raise ModelError(Problem(file=str(folder), what=what, mend="Finish it: mingshi train RECIPE --resume."))


def open_model(place: str | Path, *, template: str = "auto") -> Model:
    """A model from a run folder (its trained model or adapter), a model folder, or a name."""
    folder = Path(place)
    return load(trained_model(folder) if (folder / RUN).is_file() else place, template=template)


def usual_evaluators(
    model: Model, *, source: DataSource | None = None, generation: Generation | None = None
) -> list[Evaluator]:
    """What can be measured of a model on these rows.

    A classifier is measured by its classes, a language model by what it prefers where the rows are preferences, by what
    it chooses where they offer choices, by what it follows where they have constraints, and else by perplexity and by
    what it writes.
    """
    if model.classes is not None:
        return [Classification()]
    if pairs.is_pair(model.network):
        return [Retrieval()]
    if source is not None and _format(source) == "preference":
        return [PreferenceAccuracy()]
    if source is not None and _format(source) == "choices":
        return [Choice()]
    if source is not None and _format(source) == "constrained":
        settings = {} if generation is None else generation.model_dump(include={"limit", "max_new_tokens"})
        return [Instructions(**settings)]
    return [Perplexity(), generation] if generation is not None else [Perplexity()]


def _format(source: DataSource) -> str:
    return detect(source.path, columns=source.columns)[0] if source.format == "auto" else source.format


def _objective(model: Model, evaluators: Sequence[Evaluator] = ()) -> Sft | Dpo | Classify | Contrastive:
    """What encodes the rows that these measure."""
    if any(isinstance(evaluator, PreferenceAccuracy) for evaluator in evaluators):
        return Dpo()
    if pairs.is_pair(model.network):
        return Contrastive(max_length=min(model.tokenizer.model_max_length, model.context))
    if model.classes is None:
        return Sft()
    return Classify.of(model.classes, max_length=min(model.tokenizer.model_max_length, model.context))


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores by evaluator kind, and the rows of the file: `read = used + sum of rejected`."""

    scores: Mapping[str, Scores]
    read: int
    used: int
    rejected: Mapping[str, int]  # by reason


def measure(
    model: Model, source: DataSource, evaluators: Sequence[Evaluator], *, seed: int = 0, display: Display | None = None
) -> Measured:
    """Scores with intervals on a file of conversations, of preferences, of choices, or of texts with labels.

    Of preferences there are no rewards here: those are changes since a first measurement. Rows that cannot be scored
    are counted, and aloud; where no row asks for an answer, what else there is to measure is measured.
    """
    display = display or Silent()
    _refuse_others(model, source)
    objective = _objective(model, evaluators)
    if any(evaluator.reads == "samples" for evaluator in evaluators):
        tests: TestSet = prepare_tests((source,), objective, model.text, display)
    else:
        rows = Task(name="rows", data=(source,), evals=tuple(evaluators))
        tests = prepare_task(rows, objective, model.text, display)
    (entry,) = tests.ledger
    if entry["rejected"]:
        display.say(counted(entry))
    if len(evaluators) > 1 and not tests.examples:
        evaluators = [evaluator for evaluator in evaluators if not isinstance(evaluator, Generation)]
    found: dict[str, Scores] = {}
    for evaluator in evaluators:
        scores = run_evaluator(evaluator, model, tests, objective=objective, stream=STREAM, seed=seed, display=display)
        found[evaluator.kind] = without_rewards(scores) if isinstance(evaluator, PreferenceAccuracy) else scores
    return Measured(found, entry["rows"], entry["used"], entry["rejected"])


def _refuse_others(model: Model, source: DataSource) -> None:
    """DataError for rows of labels and a language model, or for other rows and a classifier."""
    form = _format(source)
    if (form == "labelled") == (model.classes is not None):
        return
    what = f"holds rows of the format {form}, and {model.name} is a "
    what += "language model" if model.classes is None else "classifier"
    mend = "Measure a classifier on them." if model.classes is None else "Give rows with `text` and `label`."
    raise DataError(Problem(file=source.path, what=what, mend=mend))


def predict(
    model: Model,
    source: DataSource,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    display: Display | None = None,
) -> Iterator[dict[str, Any]]:
    """An answer to each row: `{id, prompt, prediction, reference?, finished}`, in the file's order.

    The row's last assistant turn, where it has one, is the reference and not part of the prompt; of a preference it is
    the chosen answer. Rows may also ask alone. A classifier's rows are `{id, text, prediction, probabilities,
    reference?}`, or without probabilities where it predicts numbers.
    """
    display = display or Silent()
    outcomes = list(read_to_answer(source))
    examples = [outcome for outcome in outcomes if isinstance(outcome, Example)]
    if len(examples) < len(outcomes):
        display.say(f"{source.path}: {len(outcomes)} rows = {len(examples)} used, {len(outcomes) - len(examples)} bad")
    if model.classes is not None:
        yield from classified(model, examples, display)
        return
    asked = [_asked(example) for example in examples]
    answers = generate(
        model,
        [_prompt(model, each) for each in asked],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        progress=display.track,
    )
    for each, answer in zip(asked, answers, strict=True):
        row = {"id": each.example.id, "prompt": [turn(message) for message in each.prompt]}
        row["prediction"] = _text(model, answer.tokens)
        if each.reference is not None:
            row["reference"] = each.reference
        yield row | {"finished": answer.finished}


def classified(model: Model, examples: Sequence[Example], display: Display) -> Iterator[dict[str, Any]]:
    """What a classifier says of each text, in their order: rows as those of `predict`."""
    from mingshi.model import heads
    from mingshi.model.generate import inference

    objective, classes = _objective(model), model.classes
    assert isinstance(objective, Classify) and classes is not None
    samples = [text_sample(model, objective, example) for example in examples]
    outputs: dict[int, list[float]] = {}
    cuts = micro_batches([len(sample.tokens) for sample in samples], STREAM)
    with inference(model.network):
        for cut in display.track(cuts, len(cuts), "classify"):
            batch = objective.collate([samples[place] for place in cut], model.device)
            logits_NK = heads.logits(model.network, heads.features(model.network, batch))
            outputs.update(zip(cut, heads.probabilities(logits_NK, classes.problem).tolist(), strict=True))
    for place, example in enumerate(examples):
        row = {"id": example.id, "text": _content(example), **_decision(classes, outputs[place])}
        yield row | ({"reference": example.label} if isinstance(example, Labelled) else {})


def _content(example: Example) -> str:
    """The text of a row, whether it has a label or not."""
    if isinstance(example, Labelled):
        return example.content
    if isinstance(example, Chat) and example.plain:
        return example.messages[-1].content
    what = "is a conversation, and a classifier reads texts"
    raise DataError(Problem(file=example.source, line=example.line, what=what, mend="Give rows with `text`."))


def text_sample(model: Model, objective: Classify, example: Example) -> Sample:
    try:
        tokens = model.template.plain(_content(example)).tokens
    except RowProblem as problem:
        raise DataError(Problem(file=example.source, line=example.line, what=problem.detail)) from None
    return objective.sample(tokens, model.text, labels=np.zeros(1, dtype=np.float32), name=example.id)


def _decision(classes: Classes, outputs: Sequence[float]) -> dict[str, Any]:
    if classes.problem == "regression":
        return {"prediction": outputs[0]}
    told = dict(zip(classes.names, outputs, strict=True))
    if classes.problem == "multi_label":
        return {"prediction": [name for name, share in told.items() if share > 0.5], "probabilities": told}
    return {"prediction": max(told, key=lambda name: told[name]), "probabilities": told}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a row asks, and the answer that it has, if any."""

    example: Example
    prompt: tuple[Message, ...]
    reference: str | None


def _asked(example: Example) -> _Asked:
    if isinstance(example, Chat) and not example.plain:
        last = example.messages[-1]
        answered = last.role == "assistant"
        return _Asked(
            example, example.messages[:-1] if answered else example.messages, last.content if answered else None
        )
    if isinstance(example, Preference):
        return _Asked(example, example.prompt, example.chosen[0].content)
    if isinstance(example, Answered):
        return _Asked(example, example.prompt, None)
    if isinstance(example, Choices):
        return _Asked(example, example.prompt, example.choices[example.answer])
    what = "is not a conversation, so there is nothing to answer"
    raise DataError(Problem(file=example.source, line=example.line, what=what, mend="Give `messages` or `prompt`."))


def _prompt(model: Model, asked: _Asked) -> list[int]:
    tools = asked.example.tools if isinstance(asked.example, Chat) else ()
    try:
        return model.template.prompt(asked.prompt, tools)
    except RowProblem as problem:
        place = asked.example
        raise DataError(Problem(file=place.source, line=place.line, what=problem.detail)) from None


def _text(model: Model, tokens: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True))


@dataclass(slots=True, eq=False)
class Conversation:
    """A talk with a model: every turn is rendered by the template that training used."""

    model: Model
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    messages: list[Message] = field(default_factory=list)

    def ask(self, text: str) -> str:
        """The model's answer to a user's turn; both are remembered."""
        if self.model.classes is not None:
            raise ModelError(f"{self.model.name} is a classifier and writes nothing", "Use mingshi predict.")
        asked = [*self.messages, Message(role="user", content=text)]
        try:
            prompt = self.model.template.prompt(asked)
        except RowProblem as problem:
            raise DataError(problem.detail) from None
        room = self.model.context - len(prompt)
        if room < 1:
            raise ModelError(f"the conversation is {len(prompt)} tokens long, the model's limit {self.model.context}")
        (answer,) = generate(
            self.model,
            [prompt],
            max_new_tokens=min(self.max_new_tokens, room),
            temperature=self.temperature,
            seed=self.seed + len(asked),
        )
        said = _text(self.model, answer.tokens)
        self.messages = [*asked, Message(role="assistant", content=said)]
        return said
