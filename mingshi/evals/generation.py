"""What a model writes after the prompts of held-out conversations, against the answers that stand there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from mingshi.errors import DataError
from mingshi.evals import scoring, statistics
from mingshi.evals.predictions import Item
from mingshi.evals.scoring import CHUNK, BertScore, Digest, Sample, Scoring, TextMetric
from mingshi.evals.tallies import MOST_ITEMS, Corpus, Places, Tally
from mingshi.evals.tokens import Cut
from mingshi.types import Chat, Example, Message, Scores, Settings

if TYPE_CHECKING:
    from mingshi.model.generate import Generated, Track
    from mingshi.model.load import Model

SHOWN = 16  # samples kept for the report


@dataclass(frozen=True, slots=True)
class Case:
    """One question: what the model is given, and the answer that the data has."""

    id: str
    prompt: Sequence[int]
    reference: str


class Generation(Settings):
    """Answers written by the model, by the metrics of `mingshi score`; and how many are empty, unfinished or without
    room, and how much they repeat."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Chat,)
    reads: ClassVar[Literal["examples"]] = "examples"

    kind: Literal["generation"] = "generation"
    metrics: tuple[TextMetric, ...] = ("exact_match", "rouge")
    """`rouge` is ROUGE-1, -2, -L and -Lsum; a Chinese character is a token."""
    tokens: Cut = "char"
    """A Chinese character is a token, or (`word`) what rjieba takes for a word."""
    stem: bool = False
    """Porter's stemmer on Latin words, for ROUGE."""
    bertscore: BertScore | None = None
    limit: int = Field(default=64, ge=1, le=MOST_ITEMS)
    """At most so many conversations, chosen by a hash of their ids: the order of the file does not matter."""
    max_new_tokens: int = Field(default=128, ge=1)
    """An answer that is longer counts as unfinished."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0 takes the likeliest token; above 0 it samples, with the run's seed."""

    @model_validator(mode="after")
    def _check_use(self) -> Generation:
        self._scoring(0)
        return self

    def run(
        self,
        model: Model,
        examples: Sequence[Chat],
        *,
        seed: int = 0,
        progress: Track | None = None,
    ) -> Scores:
        """Ask for the last assistant turn of each chosen conversation.

        Conversations without an assistant text, and plain texts, are left out; `count` is what remains. Raises
        DataError if nothing remains, RecipeError for metrics that cannot be computed.
        """
        from mingshi.model.generate import generate

        cases = choose(model, examples, limit=self.limit)
        tallies = self._tallies([case.reference for case in cases], seed)
        outputs = generate(
            model,
            [case.prompt for case in cases],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed,
            progress=progress,
        )
        texts = [str(model.tokenizer.decode(list(output.tokens), skip_special_tokens=True)) for output in outputs]
        places, digest = Places(), Digest()
        rows = [_item(number, case, text) for number, (case, text) in enumerate(zip(cases, texts, strict=True))]
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            where = [places.of(None) for _ in chunk]
            for row in chunk:
                digest.add(row)
            for tally in tallies:
                tally.add(chunk, where)
        same = f"{digest.signature()}|{self._decoding(seed)}|prompts:{_digest(cases)}"
        scores = scoring.scores_of(tallies, places, rows=len(rows), same=same, seed=seed)
        items = {name: column for tally in tallies for name, column in scoring.items_of(tally, len(rows)).items()}
        endings = _endings(model, cases, outputs)
        for name, shares in endings.items():
            scores[name] = statistics.rate(int(sum(shares)), len(shares), signature=f"{name}|{same}")
        shown = _shown(tallies, len(rows)) | endings
        samples = [
            {
                "id": case.id,
                "prompt": model.tokenizer.decode(list(case.prompt), skip_special_tokens=False),
                "prediction": text,
                "reference": case.reference,
                "scores": {name: column[place] for name, column in shown.items() if math.isfinite(column[place])},
            }
            for place, (case, text) in enumerate(zip(cases[:SHOWN], texts, strict=False))
        ]
        return Scores(scores=scores, items=items | endings, samples=samples)

    def _tallies(self, references: Sequence[str], seed: int) -> list[Tally]:
        """What was asked for, and in any case empty answers and repetition. Made before any answer is written, so that
        a package or an encoder that is missing costs no time."""
        sample = Sample()
        for reference in references:
            sample.add(reference)
        wanted = self._scoring(seed)
        encoder = scoring.encoder_of(wanted.bertscore, references=lambda: references, sample=sample, seed=seed)
        found = scoring.tallies(wanted, chinese=scoring.is_chinese(sample.texts), known_classes={}, encoder=encoder)
        return found if "length" in self.metrics else [*found, scoring.empty()]

    def _scoring(self, seed: int) -> Scoring:
        metrics = self.metrics if "repetition" in self.metrics else (*self.metrics, "repetition")
        return Scoring(metrics=metrics, tokens=self.tokens, stem=self.stem, bertscore=self.bertscore, seed=seed)

    def _decoding(self, seed: int) -> str:
        way = "greedy" if self.temperature == 0 else f"sampled:{self.temperature}:seed{seed}"
        return f"{way}|max_new:{self.max_new_tokens}"


def choose(model: Model, examples: Sequence[Chat], *, limit: int) -> list[Case]:
    """The first `limit` conversations by the hash of their ids that have an answer, as prompts and references."""
    questions = ((example, question_of(example)) for example in sorted(examples, key=_by_hash))
    asked = islice(((example, question) for example, question in questions if question is not None), limit)
    cases = [
        Case(example.id, model.template.prompt(messages, example.tools), answer.content)
        for example, (messages, answer) in asked
    ]
    if not cases:
        what = f"none of {len(examples)} conversations has an assistant turn to be written"
        raise DataError(what, "Give generation conversations that end in an answer, or leave it out of `evals`.")
    return cases


def question_of(example: Chat) -> tuple[tuple[Message, ...], Message] | None:
    """The messages before the last assistant turn, and that turn; None if there is nothing to ask or to compare."""
    turns = [place for place, message in enumerate(example.messages) if message.role == "assistant"]
    if example.plain or not turns or turns[-1] == 0 or not example.messages[turns[-1]].content.strip():
        return None
    return example.messages[: turns[-1]], example.messages[turns[-1]]


def _by_hash(example: Chat) -> tuple[bytes, str]:
    return hashlib.blake2b(example.id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), example.id


def _digest(cases: Sequence[Case]) -> str:
    columns = [case.id for case in cases], [list(case.prompt) for case in cases], [case.reference for case in cases]
    return statistics.items_digest(*columns)


def _item(number: int, case: Case, text: str) -> Item:
    return Item(
        line=number + 1,
        prediction=text,
        references=(case.reference,),
        label=None,
        id=case.id,
        group=None,
        classified=False,
    )


def _endings(model: Model, cases: Sequence[Case], outputs: Sequence[Generated]) -> dict[str, list[float]]:
    """Of each answer: whether it was cut off, and whether its prompt had left it any room."""
    return {
        "unfinished": [float(not output.finished) for output in outputs],
        "no_room": [float(len(case.prompt) >= model.context) for case in cases],
    }


def _shown(tallies: Sequence[Tally], count: int) -> dict[str, list[float]]:
    """Each answer's own value of every metric but those of the whole file, which say little of one answer."""
    shown: dict[str, list[float]] = {}
    for tally in tallies:
        if not isinstance(tally, Corpus):
            shown |= dict(zip(tally.names(), tally.values(tally.columns(count)).T.tolist(), strict=True))
    return shown
