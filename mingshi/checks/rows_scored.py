"""What a language model makes of answers with and without their prompts: free-text rows that may be wrong, or teach
nothing.

Instruction-following difficulty is `IFD = PPL(answer | prompt) / PPL(answer)` (Li et al. 2024, equation 3; a small
model ranks rows much as a large one does: Superfiltering, section 4). An answer that its prompt does not help (IFD at 1
or above) may belong to another; one that is certain already teaches nothing. Both ends are for a person to read: those
who keep the highest IFD keep the mistakes. Short answers scatter more than long ones, so a row is compared with rows of
about its own length (`deviation`, `rank`).

Prompt and answer are read as plain text with an empty line between, which comes before the answer without its prompt
too: both readings predict the same tokens.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mingshi.checks.rows import SPLITS, Row
from mingshi.data.row_problem import RowProblem
from mingshi.types import Finding, Sample

if TYPE_CHECKING:
    from mingshi.model.load import Model

BETWEEN = "\n\n"
LONGEST = 512  # tokens that are read of an answer from its beginning, and of a prompt to its end
BLOCK = 64  # rows scored and kept at a time
BUDGET = 4096  # tokens of one packed stream
FORMAT = 1  # of what is kept and of how it is computed
FEWEST = 50  # rows of a split, and of a bin of lengths
BINS = 10  # of lengths, at most
FAR = 3.0  # deviations from the median of a bin
CERTAIN = 0.9  # mean probability of an answer's tokens
USELESS = 0.98  # median IFD from which on the model makes nothing of the prompts
MANY = 0.02  # share of rows not helped by their prompts from which on the finding is a warning


@dataclass(slots=True)
class _Kept:
    """Rows as numbers."""

    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    splits: array[int] = field(default_factory=lambda: array("B"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """What a model makes of N answers."""

    tokens: np.ndarray  # [N] of the answer
    nats: np.ndarray  # [N] per token, given the prompt
    alone: np.ndarray  # [N] per token, without it
    probability: np.ndarray  # [N] mean of the tokens' probabilities, given the prompt

    @property
    def difficulty(self) -> np.ndarray:
        """IFD. [N]"""
        found: np.ndarray = np.exp(self.nats - self.alone)
        return found

    def of(self, rows: np.ndarray) -> Scored:
        return Scored(
            tokens=self.tokens[rows],
            nats=self.nats[rows],
            alone=self.alone[rows],
            probability=self.probability[rows],
        )


class RowsScored:
    """Rows of a prompt and an answer, of all splits but production."""

    def __init__(self, scorer: str | Path, *, folder: Path | None = None) -> None:
        """Loads the model: ModelError where that fails. `folder` keeps what is computed."""
        from mingshi.model.assets import cache_root
        from mingshi.model.load import load
        from mingshi.model.reference import fingerprint

        self.name = str(scorer)
        self._model = load(scorer)
        self._between = self._ids(BETWEEN)
        self._longest = min(LONGEST, (self._model.context - len(self._between)) // 2)
        self._folder = folder or cache_root() / "companions" / "scored"
        self._key = f"{FORMAT} {fingerprint(self._model.network)}"
        self._kept = _Kept()
        self._names: dict[str, int] = {}  # files, numbered
        self._waiting: list[Sample] = []  # two for each row
        self._blocks: list[np.ndarray] = []  # [BLOCK, 4]

    def add(self, row: Row) -> None:
        if row.split == "production" or row.label is not None or not row.prompt.strip() or not row.answer.strip():
            return
        samples = self._samples(f"{row.system}\n{row.prompt}".strip(), row.answer.strip())
        if not samples:
            return
        self._kept.sources.append(self._names.setdefault(row.source, len(self._names)))
        self._kept.lines.append(row.line)
        self._kept.splits.append(SPLITS.index(row.split))
        self._waiting += samples
        if len(self._waiting) == 2 * BLOCK:
            self._score()

    def scored(self) -> Scored:
        """Of all rows so far, in their order."""
        self._score()
        tokens, nats, alone, probability = np.concatenate([*self._blocks, np.zeros((0, 4))]).T
        return Scored(tokens=tokens.astype(np.int64), nats=nats, alone=alone, probability=probability)

    def findings(self) -> list[Finding]:
        scored = self.scored()
        splits = np.asarray(self._kept.splits)
        found = []
        for number in sorted(set(splits.tolist())):
            rows = np.flatnonzero(splits == number)
            if len(rows) >= FEWEST:
                found += self._judged(scored.of(rows), rows, SPLITS[number])
        return found

    def _judged(self, scored: Scored, rows: np.ndarray, split: str) -> list[Finding]:
        difficulty = scored.difficulty
        evidence = {
            "split": split,
            "of": len(rows),
            "scorer": self.name,
            "difficulty": np.quantile(difficulty, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
        }
        median = float(np.median(difficulty))
        if median >= USELESS:
            return [_useless(len(rows), median, evidence)]
        away, rank = within_bins(np.log(difficulty), scored.tokens)
        unhelped = np.flatnonzero((difficulty >= 1) | (away >= FAR))
        easy = np.flatnonzero((scored.probability >= CERTAIN) & (difficulty < 1))
        chosen = (
            ("unhelped", unhelped[np.argsort(-away[unhelped], kind="stable")]),
            ("easy", easy[np.argsort(-scored.probability[easy], kind="stable")]),
        )
        return [
            Finding(
                check="scored",
                kind=kind,
                severity="warning" if kind == "unhelped" and len(places) > MANY * len(rows) else "note",
                count=len(places),
                message=f"{len(places)} of {len(rows)} answers of {split} {TOLD[kind]}",
                rows=[
                    {
                        **self._place(int(rows[at])),
                        "difficulty": float(difficulty[at]),
                        "nats": float(scored.nats[at]),
                        "alone": float(scored.alone[at]),
                        "probability": float(scored.probability[at]),
                        "tokens": int(scored.tokens[at]),
                        "deviation": float(away[at]),
                        "rank": float(rank[at]),
                    }
                    for at in places.tolist()
                ],
                remedy=REMEDIES[kind],
                evidence=evidence,
            )
            for kind, places in chosen
            if len(places)
        ]

    def _place(self, row: int) -> dict[str, Any]:
        return {"source": list(self._names)[self._kept.sources[row]], "line": self._kept.lines[row]}

    def _ids(self, text: str) -> list[int]:
        return list(self._model.template.encoder.encode(text, [(0, len(text))]).ids)

    def _samples(self, prompt: str, answer: str) -> list[Sample]:
        """The answer after its prompt, and after the empty line alone; nothing where there is no token to predict."""
        try:  # more characters than tokens could be read
            asked, said = self._ids(prompt[-16 * LONGEST :]), self._ids(answer[: 16 * LONGEST])
        except RowProblem:
            return []
        asked, said = asked[-self._longest :], said[: self._longest]
        before = [*self._model.template.begin, *asked, *self._between]
        return [_sample([*start, *said], len(start)) for start in (before, self._between)] if said else []

    def _score(self) -> None:
        """The rows that wait, from disk where the same model has scored them before."""
        from mingshi.model.reference import keep, kept

        if not self._waiting:
            return
        digest = sha256(self._key.encode())
        for sample in self._waiting:
            digest.update(f" {len(sample.tokens)} {len(sample.target)} ".encode())
            digest.update(sample.tokens.tobytes() + sample.target.tobytes())
        key = digest.hexdigest()
        found = kept(self._folder, key)
        if found is None:
            found = scores(self._model, self._waiting)
            keep(self._folder, key, found)
        self._blocks.append(np.asarray(found))
        self._waiting.clear()


def scores(model: Model, samples: list[Sample]) -> np.ndarray:
    """Tokens, nats a token given the prompt, without it, and mean probability given it, of rows of two samples each.

    [len(samples) / 2, 4] float64. Samples are read as packed streams.
    """
    from mingshi.data.plan import pack
    from mingshi.model.generate import inference
    from mingshi.model.logprob import token_log_probabilities
    from mingshi.model.reference import streams

    sums, chances = np.zeros(len(samples)), np.zeros(len(samples))
    with inference(model.network):
        for cut in streams([len(sample.tokens) for sample in samples], BUDGET):
            batch = pack([samples[place] for place in cut], device=model.device)
            found = token_log_probabilities(model.network, batch).double().cpu().numpy()
            sequence = batch.sequence.cpu().numpy()
            sums[cut] = np.bincount(sequence, weights=-found, minlength=len(cut))
            chances[cut] = np.bincount(sequence, weights=np.exp(found), minlength=len(cut))
    tokens = np.array([len(sample.target) for sample in samples], dtype=np.float64)
    return np.stack([tokens, sums / tokens, np.roll(sums / tokens, -1), chances / tokens], axis=1)[::2]


def _sample(tokens: list[int], start: int) -> Sample:
    """Predictions for every token from `start` on."""
    count = len(tokens) - start
    read = np.asarray(tokens[:-1], dtype=np.int32)
    return Sample(
        tokens=read,
        segments=np.array([[0, len(read), -1]], dtype=np.int32),
        source=np.arange(start - 1, len(read), dtype=np.int32),
        target=np.asarray(tokens[start:], dtype=np.int32),
        weight=np.ones(count, dtype=np.float32),
        sequence=np.zeros(count, dtype=np.int32),
        labels=np.zeros(1, dtype=np.float32),
    )


def within_bins(values_N: np.ndarray, lengths_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each value lies above the median of rows about as long, in robust standard deviations; and its rank.

    [N], and [N] from 0 to 1. Bins hold equally many rows, FEWEST or more.
    """
    bins = max(1, min(BINS, len(values_N) // FEWEST))
    away, rank = np.zeros(len(values_N)), np.zeros(len(values_N))
    for rows in np.array_split(np.argsort(lengths_N, kind="stable"), bins):
        here = values_N[rows]
        middle = np.median(here)
        spread = 1.4826 * np.median(np.abs(here - middle))
        away[rows] = (here - middle) / max(spread, 1e-9)
        rank[rows[np.argsort(here, kind="stable")]] = np.arange(len(rows)) / max(len(rows) - 1, 1)
    return away, rank


TOLD = {
    "unhelped": "are no likelier after their prompts than alone, or far less helped by them than others as long: they "
    "may answer something else",
    "easy": f"are certain to the model already (mean probability of a token {CERTAIN} or more): they teach little",
}
REMEDIES = {
    "unhelped": "Read them, the first first: mend or drop an answer that belongs to another prompt.",
    "easy": "Keep fewer of them where they are many; look for prompts that hold their own answers.",
}


def _useless(rows: int, median: float, evidence: dict[str, Any]) -> Finding:
    return Finding(
        check="scored",
        kind="not_helped",
        severity="note",
        count=rows,
        message=f"{evidence['scorer']} makes nothing of the prompts of {rows} rows of {evidence['split']} (median IFD "
        f"{median:.2f}): its scores would mean nothing",
        remedy="Score with a model that knows the language and the task.",
        evidence={**evidence, "median": median},
    )
