"""A language model that is asked to say texts in other words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mingshi.data.row_problem import RowProblem
from mingshi.display import Display
from mingshi.errors import DataError, ModelError
from mingshi.model.generate import generate
from mingshi.remedies.rewording import Ask
from mingshi.types import Message
from mingshi.use import open_model

ROOM = (16, 1024)  # tokens of an answer: twice its prompt's, within these
TEMPERATURE, NUCLEUS = 0.7, 0.9


def asking(place: str, display: Display) -> Ask:
    """Asks this model; what it draws depends on the seeds alone. Raises ModelError for a classifier."""
    model = open_model(place)
    if model.classes is not None:
        raise ModelError(f"{model.name} is a classifier and writes nothing", "Name a language model with --model.")

    def ask(prompts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        if not prompts:
            return []
        try:
            tokens = [model.template.prompt([Message(role="user", content=prompt)]) for prompt in prompts]
        except RowProblem as problem:
            raise DataError(problem.detail) from None
        answers = generate(
            model,
            tokens,
            max_new_tokens=min(max(ROOM[0], 2 * max(map(len, tokens))), ROOM[1]),
            temperature=TEMPERATURE,
            top_p=NUCLEUS,
            seed=int(np.random.SeedSequence(list(seeds[0])).generate_state(1)[0]),
            progress=display.track,
        )
        return [
            str(model.tokenizer.decode(list(answer.tokens), skip_special_tokens=True)) if answer.finished else None
            for answer in answers
        ]

    return ask
