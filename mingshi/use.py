"""What is done with a model once it is there: measure it, ask it, talk to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mingshi.data.formats import DataSource, detect, read
from mingshi.data.plan import micro_batches
from mingshi.data.row_problem import RowProblem
from mingshi.display import Display, Silent
from mingshi.errors import DataError, ModelError, Problem
from mingshi.evals import Classification, Generation, Perplexity, PreferenceAccuracy
from mingshi.evals.preference import without_rewards
from mingshi.evaluate import run_evaluator
from mingshi.model.generate import generate
from mingshi.model.heads import Classes
from mingshi.model.load import Model, load
from mingshi.objectives import Classify, Dpo, Sft
from mingshi.prepare import TestSet, prepare_tests
from mingshi.recipe import Evaluator
from mingshi.record import RUN
from mingshi.types import Chat, Example, Labelled, Message, Sample, Scores

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

    A classifier is measured by its classes, a language model by what it prefers where the rows are preferences, and
    else by perplexity and by what it writes.
    """
    if model.classes is not None:
        return [Classification()]
    if source is not None and "preference" in (source.format, detect(source.path)[0]):
        return [PreferenceAccuracy()]
    return [Perplexity(), generation] if generation is not None else [Perplexity()]


def _objective(model: Model, evaluators: Sequence[Evaluator] = ()) -> Sft | Dpo | Classify:
    """What encodes the rows that these measure."""
    if any(isinstance(evaluator, PreferenceAccuracy) for evaluator in evaluators):
        return Dpo()
    if model.classes is None:
        return Sft()
    return Classify.of(model.classes, max_length=min(model.tokenizer.model_max_length, model.context))


def measure(
    model: Model, source: DataSource, evaluators: Sequence[Evaluator], *, seed: int = 0, display: Display | None = None
) -> dict[str, Scores]:
    """Scores with intervals, by evaluator kind, on a file of conversations, of preferences, or of texts with labels.

    Of preferences there are no rewards here: those are changes since a first measurement.
    """
    display = display or Silent()
    objective = _objective(model, evaluators)
    tests: TestSet = prepare_tests((source,), objective, model.text, display)
    if not len(tests.samples):
        raise DataError(Problem(file=source.path, what="holds no row that could be scored", mend="See `preview`."))
    found: dict[str, Scores] = {}
    for evaluator in evaluators:
        scores = run_evaluator(evaluator, model, tests, objective=objective, stream=STREAM, seed=seed, display=display)
        found[evaluator.kind] = without_rewards(scores) if isinstance(evaluator, PreferenceAccuracy) else scores
    return found


def predict(
    model: Model,
    source: DataSource,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    display: Display | None = None,
) -> Iterator[dict[str, Any]]:
    """An answer to each row: `{id, prediction, reference?, finished}`, in the file's order.

    The row's last assistant turn, where it has one, is the reference and not part of the prompt. A classifier's rows
    are `{id, prediction, probabilities, reference?}`, or without probabilities where it predicts numbers.
    """
    examples = [example for example in read(source) if isinstance(example, Example)]
    if model.classes is not None:
        yield from _classified(model, examples, display or Silent())
        return
    chats = [_as_chat(example) for example in examples]
    prompts = [_prompt(model, chat) for chat in chats]
    answers = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        progress=(display or Silent()).track,
    )
    for chat, answer in zip(chats, answers, strict=True):
        row: dict[str, Any] = {"id": chat.id, "prediction": _text(model, answer.tokens)}
        if chat.messages[-1].role == "assistant":
            row["reference"] = chat.messages[-1].content
        yield row | {"finished": answer.finished}


def _classified(model: Model, examples: Sequence[Example], display: Display) -> Iterator[dict[str, Any]]:
    from mingshi.model import heads
    from mingshi.model.generate import inference

    objective, classes = _objective(model), model.classes
    assert isinstance(objective, Classify) and classes is not None
    samples = [_text_sample(model, objective, example) for example in examples]
    outputs: dict[int, list[float]] = {}
    cuts = micro_batches([len(sample.tokens) for sample in samples], STREAM)
    with inference(model.network):
        for cut in display.track(cuts, len(cuts), "classify"):
            batch = objective.collate([samples[place] for place in cut], model.device)
            logits_NK = heads.logits(model.network, heads.features(model.network, batch))
            outputs.update(zip(cut, heads.probabilities(logits_NK, classes.problem).tolist(), strict=True))
    for place, example in enumerate(examples):
        row = {"id": example.id, **_decision(classes, outputs[place])}
        yield row | ({"reference": example.label} if isinstance(example, Labelled) else {})


def _text_sample(model: Model, objective: Classify, example: Example) -> Sample:
    """The text of a row, whether it has a label or not."""
    if isinstance(example, Labelled):
        content = example.content
    elif isinstance(example, Chat) and example.plain:
        content = example.messages[-1].content
    else:
        what = "is a conversation, and a classifier reads texts"
        raise DataError(Problem(file=example.source, line=example.line, what=what, mend="Give rows with `text`."))
    try:
        tokens = model.template.plain(content).tokens
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


def _as_chat(example: Example) -> Chat:
    if isinstance(example, Chat) and not example.plain:
        return example
    what = "is not a conversation, so there is nothing to answer"
    raise DataError(Problem(file=example.source, line=example.line, what=what, mend="Give `messages` or `prompt`."))


def _prompt(model: Model, chat: Chat) -> list[int]:
    messages = chat.messages[:-1] if chat.messages[-1].role == "assistant" else chat.messages
    try:
        return model.template.prompt(messages, chat.tools)
    except RowProblem as problem:
        raise DataError(Problem(file=chat.source, line=chat.line, what=problem.detail)) from None


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
