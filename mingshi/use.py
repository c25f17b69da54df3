"""What is done with a model once it is there: measure it, ask it, talk to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mingshi.data.formats import DataSource, read
from mingshi.data.row_problem import RowProblem
from mingshi.display import Display, Silent
from mingshi.errors import DataError, ModelError, Problem
from mingshi.evaluate import run_evaluator
from mingshi.model.generate import generate
from mingshi.model.load import Model, load
from mingshi.objectives import Sft
from mingshi.prepare import TestSet, prepare_tests
from mingshi.recipe import Evaluator
from mingshi.record import RUN
from mingshi.types import Chat, Example, Message, Scores

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


def measure(
    model: Model, source: DataSource, evaluators: Sequence[Evaluator], *, seed: int = 0, display: Display | None = None
) -> dict[str, Scores]:
    """Scores with intervals, by evaluator kind, on a file of conversations."""
    display = display or Silent()
    tests: TestSet = prepare_tests((source,), Sft(), model.text, display)
    if not len(tests.samples):
        raise DataError(Problem(file=source.path, what="holds no row that could be scored", mend="See `preview`."))
    return {
        evaluator.kind: run_evaluator(
            evaluator, model, tests, objective=Sft(), stream=STREAM, seed=seed, display=display
        )
        for evaluator in evaluators
    }


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

    The row's last assistant turn, where it has one, is the reference and not part of the prompt.
    """
    examples = [example for example in read(source) if isinstance(example, Example)]
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
