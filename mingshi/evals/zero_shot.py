"""Classes that nobody trained: a picture belongs to the class whose words lie nearest to it.

Words stand in several sentences, and a class is the mean of them (Radford et al. 2021, section 3.1.4).

Letters: `N` pictures, `K` classes, `P` sentences of a class, `E` width of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from mingshi.data import images
from mingshi.data.images import View
from mingshi.data.row_problem import RowProblem
from mingshi.errors import DataError
from mingshi.evals import statistics
from mingshi.evals.retrieval import view_of
from mingshi.types import Captioned, Example, Scores, Settings

if TYPE_CHECKING:
    from mingshi.model.generate import Track
    from mingshi.model.load import Model

SENTENCES = {
    "en": ("{}", "a picture of {}.", "a drawing of {}.", "this shows {}.", "an icon of {}."),
    "zh": ("{}", "{}的图片。", "一幅画，画的是{}。", "图中是{}。", "表示{}的图标。"),
}


class ZeroShot(Settings):
    """How often the class with the nearest words is a picture's own."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Captioned,)
    reads: ClassVar[Literal["examples"]] = "examples"

    kind: Literal["zero-shot"] = "zero-shot"
    attribute: str = Field(default="class", min_length=1)
    """The attribute of the rows that names a picture's class."""
    sentences: Literal["en", "zh"] | tuple[str, ...] = "en"
    """A language's own set, or some with `{}` where the class's words go."""
    words: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """What classes are called in the sentences, each word in all of them; a class without stands for itself."""

    @field_validator("sentences")
    @classmethod
    def _have_a_place(cls, sentences: str | tuple[str, ...]) -> str | tuple[str, ...]:
        wrong = [one for one in sentences if "{}" not in one] if isinstance(sentences, tuple) else []
        if wrong or not sentences:
            raise ValueError("a sentence has no {} for the class's words. Write one, such as 'a picture of {}.'")
        return sentences

    def run(
        self, model: Model, examples: Sequence[Captioned], *, seed: int = 0, progress: Track | None = None
    ) -> Scores:
        """Among the classes of these rows; `majority` is what the most frequent one would have.

        DataError where fewer than two classes are there.
        """
        from mingshi.model.pair_features import pictures_in_space, texts_in_space

        rows = sorted((row for row in examples if self.attribute in row.attributes), key=lambda row: row.id)
        names = sorted({row.attributes[self.attribute] for row in rows})
        if len(names) < 2:
            what = f"{len(names)} classes are in the attribute {self.attribute!r} of {len(examples)} rows"
            raise DataError(what, "Name an attribute that tells the pictures apart.")
        own_N, kept = self._kept(rows, names, view_of(model))
        spoken = [self.spoken(name) for name in names]
        said_PE = texts_in_space(model, [one for each in spoken for one in each], progress)
        ends = np.cumsum([len(each) for each in spoken])[:-1]
        class_KE = np.stack([each_PE.mean(0) for each_PE in np.split(said_PE, ends)])
        class_KE /= np.linalg.norm(class_KE, axis=1, keepdims=True)
        order_NK = np.argsort(-pictures_in_space(model, kept, progress) @ class_KE.T, axis=1, kind="stable")
        digest = statistics.items_digest(own_N.tolist(), kept)
        same = f"classes:{len(names)}|sentences:{statistics.items_digest([one for each in spoken for one in each])}"
        items = {
            name: (order_NK[:, :k] == own_N[:, None]).any(1).astype(float).tolist()
            for name, k in (("accuracy", 1), ("accuracy_top5", 5))
            if k < len(names)
        }
        scores = {
            name: statistics.mean(values, signature=f"{name}|{same}|items:{digest}", seed=seed)
            for name, values in items.items()
        }
        most = int(np.bincount(own_N).max())
        scores["majority"] = statistics.rate(most, len(own_N), signature=f"majority|items:{digest}")
        return Scores(scores=scores, items=items)

    def _kept(self, rows: Sequence[Captioned], names: Sequence[str], view: View) -> tuple[np.ndarray, list[str]]:
        """The class of each row whose picture can be read, and the name of its pixels."""
        own, kept = [], []
        for row in rows:
            with suppress(RowProblem):  # the ledger has said so
                kept.append(images.keep(row.image, view))
                own.append(names.index(row.attributes[self.attribute]))
        return np.array(own, dtype=np.int64), kept

    def spoken(self, name: str) -> tuple[str, ...]:
        """The sentences that stand for a class."""
        sentences = SENTENCES[self.sentences] if isinstance(self.sentences, str) else self.sentences
        words = self.words.get(name, (name,))
        return tuple(dict.fromkeys(one.replace("{}", word) for word in words for one in sentences))
