"""Retrieval: is a picture's text the nearest of all texts to it, and a text's picture the nearest of all pictures?

All of the rows are one gallery, however many: the nearest of a batch would be found more easily. A picture with several
texts is found by any of them. Texts that are equal are one, and so are pictures.

Letters: `G` pictures, `T` texts, `Q` queries, `E` width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mingshi.data import images
from mingshi.data.row_problem import RowProblem
from mingshi.errors import DataError, ModelError
from mingshi.evals import statistics
from mingshi.types import Captioned, Example, Score, Scores, Settings

if TYPE_CHECKING:
    from mingshi.model.generate import Track
    from mingshi.model.load import Model

BLOCK = 1024  # queries whose similarities are held at a time
SHOWN = 6  # queries of each direction that the page shows
NEAREST = 5  # that it shows of each
MAPPED = 24  # rows of its map of similarities
SIDE = 64  # pixels of its pictures

Direction = Literal["image_to_text", "text_to_image"]


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Rows as one gallery, in the space."""

    paths: tuple[str, ...]  # of the pictures
    texts: tuple[str, ...]
    image_GE: np.ndarray
    text_TE: np.ndarray
    own: tuple[tuple[int, ...], ...]  # the texts of each picture
    first_T: np.ndarray  # the picture that each text came with first


class Retrieval(Settings):
    """Recall among the first so many, and the median rank, both ways."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Captioned,)
    reads: ClassVar[Literal["examples"]] = "examples"

    kind: Literal["retrieval"] = "retrieval"
    at: tuple[int, ...] = Field(default=(1, 5, 10), min_length=1)
    """Among how many of the nearest its own must be."""

    def run(
        self, model: Model, examples: Sequence[Captioned], *, seed: int = 0, progress: Track | None = None
    ) -> Scores:
        """Intervals are over pictures, each drawn with all of its texts; one as near as its own counts as nearer."""
        gallery = gallery_of(model, examples, progress)
        scores: dict[str, Score] = {}
        items: dict[str, list[float]] = {}
        digest = statistics.items_digest(gallery.texts)
        for direction in ("image_to_text", "text_to_image"):
            rank_Q, picture_Q = ranks(gallery, direction)
            size = len(gallery.texts) if direction == "image_to_text" else len(gallery.paths)
            same = f"gallery:{size}|items:{digest}"
            weights = np.bincount(picture_Q, minlength=len(gallery.paths)).astype(float)
            asked_G = weights > 0  # a picture whose texts came with another first asks nothing
            columns = {f"{direction}_r{k}": (rank_Q <= k).astype(float) for k in self.at}
            for name, hit_Q in (columns | {f"{direction}_mrr": 1 / rank_Q}).items():
                sums = np.bincount(picture_Q, weights=hit_Q, minlength=len(gallery.paths))
                items[f"{name}.sum"], items[f"{name}.weight"] = sums[asked_G].tolist(), weights[asked_G].tolist()
                scores[name] = statistics.ratio(
                    items[f"{name}.sum"], items[f"{name}.weight"], signature=f"{name}|{same}", seed=seed
                )
            scores[f"{direction}_median_rank"] = median(rank_Q, picture_Q, signature=f"median_rank|{same}", seed=seed)
        for name, count in (("gallery_images", len(gallery.paths)), ("gallery_texts", len(gallery.texts))):
            scores[name] = Score(value=count, low=np.nan, high=np.nan, count=count, signature=f"{name}|{digest}")
        return Scores(scores=scores, items=items, samples=shown(gallery))


def gallery_of(model: Model, examples: Sequence[Captioned], progress: Track | None) -> Gallery:
    """Every picture that can be read, with its texts; DataError where there are none."""
    from mingshi.model.pair_features import pictures_in_space, texts_in_space

    paths, names, texts, own = collected(examples, view_of(model))
    first_T = np.full(len(texts), len(names))
    for place, mine in enumerate(own):
        for text in mine:
            first_T[text] = min(first_T[text], place)
    return Gallery(
        paths=tuple(paths),
        texts=tuple(texts),
        image_GE=pictures_in_space(model, names, progress),
        text_TE=texts_in_space(model, texts, progress),
        own=own,
        first_T=first_T,
    )


def view_of(model: Model) -> images.View:
    """What the model's image tower sees; ModelError where it has none."""
    from mingshi.model import pair as pairs

    if not pairs.is_pair(model.network):
        raise ModelError(f"{model.name} has no image tower", "Name what a run with objective contrastive has trained.")
    return pairs.view(model.network)


def collected(
    examples: Sequence[Captioned], view: images.View
) -> tuple[list[str], list[str], list[str], tuple[tuple[int, ...], ...]]:
    """Paths and kept names of the pictures, the texts, each once in the order of the rows' ids, and whose is which."""
    places: dict[str, int] = {}
    paths: list[str] = []
    texts: dict[str, int] = {}
    own: list[dict[int, None]] = []
    for example in sorted(examples, key=lambda example: example.id):
        with suppress(RowProblem):  # the ledger has said so
            name = images.keep(example.image, view)
            if name not in places:
                places[name] = len(paths)
                paths.append(example.image)
                own.append({})
            for text in example.texts:
                own[places[name]][texts.setdefault(text, len(texts))] = None
    if not paths:
        raise DataError(f"none of {len(examples)} rows has a picture that can be read", "Give rows with pictures.")
    return paths, list(places), list(texts), tuple(tuple(mine) for mine in own)


def ranks(gallery: Gallery, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """`[Q]` the best rank of each query's own, from 1, and the picture that each query belongs to.

    Others that are as near as the best of its own stand before it: a space in which all is alike finds nothing.
    """
    whose: list[tuple[int, ...]] = list(gallery.own)
    query_QE, key_KE = gallery.image_GE, gallery.text_TE
    if direction == "text_to_image":
        turned: list[list[int]] = [[] for _ in gallery.texts]
        for place, texts in enumerate(gallery.own):
            for text in texts:
                turned[text].append(place)
        whose, query_QE, key_KE = [tuple(one) for one in turned], key_KE, query_QE
    found = np.empty(len(whose), dtype=np.int64)
    for start in range(0, len(whose), BLOCK):
        near_BK = query_QE[start : start + BLOCK] @ key_KE.T
        for place, row_K in enumerate(near_BK):
            mine = list(whose[start + place])
            best = row_K[mine].max()
            found[start + place] = 1 + int((row_K >= best).sum()) - int((row_K[mine] >= best).sum())
    return found, np.arange(len(whose)) if direction == "image_to_text" else gallery.first_T


def median(rank_Q: np.ndarray, picture_Q: np.ndarray, *, signature: str, seed: int) -> Score:
    """The median of ranks, and its interval over pictures."""
    asked, picture_Q = np.unique(picture_Q, return_inverse=True)
    order_Q = np.argsort(rank_Q, kind="stable")
    sorted_Q, picture_Q = rank_Q[order_Q].astype(float), picture_Q[order_Q]

    def middle(counts_RN: np.ndarray) -> np.ndarray:
        below_RQ = counts_RN[:, picture_Q].cumsum(1)
        half_R1 = below_RQ[:, -1:] / 2
        low_R, high_R = (below_RQ >= half_R1).argmax(1), (below_RQ > half_R1).argmax(1)
        middle_R1: np.ndarray = (sorted_Q[low_R] + sorted_Q[high_R])[:, None] / 2
        return middle_R1

    (score,) = statistics.measured(middle, len(asked), signatures=[signature], seed=seed)
    return score


# For people


def shown(gallery: Gallery) -> list[dict[str, Any]]:
    """Queries of both directions with the nearest that they found, and how near rows are to each other."""
    evenly = np.linspace(0, len(gallery.paths) - 1, min(SHOWN, len(gallery.paths))).round().astype(int).tolist()
    told = [_asked_by_picture(gallery, place) for place in evenly]
    told += [_asked_by_text(gallery, gallery.own[place][0]) for place in evenly]
    spread = np.linspace(0, len(gallery.paths) - 1, min(MAPPED, len(gallery.paths))).round().astype(int)
    texts = [gallery.own[place][0] for place in spread.tolist()]
    near = gallery.image_GE[spread] @ gallery.text_TE[texts].T
    return [*told, {"similarity": near.round(3).tolist(), "texts": [gallery.texts[text][:40] for text in texts]}]


def _asked_by_picture(gallery: Gallery, place: int) -> dict[str, Any]:
    near_T = gallery.text_TE @ gallery.image_GE[place]
    found = [
        {
            "text": gallery.texts[text][:120],
            "similarity": round(float(near_T[text]), 3),
            "right": text in gallery.own[place],
        }
        for text in np.argsort(-near_T, kind="stable")[:NEAREST].tolist()
    ]
    return {
        "direction": "image_to_text",
        "image": images.thumbnail(gallery.paths[place], SIDE),
        "own": gallery.texts[gallery.own[place][0]][:120],
        "found": found,
    }


def _asked_by_text(gallery: Gallery, text: int) -> dict[str, Any]:
    near_G = gallery.image_GE @ gallery.text_TE[text]
    found = [
        {
            "image": images.thumbnail(gallery.paths[place], SIDE),
            "text": gallery.texts[gallery.own[place][0]][:120],
            "similarity": round(float(near_G[place]), 3),
            "right": text in gallery.own[place],
        }
        for place in np.argsort(-near_G, kind="stable")[:NEAREST].tolist()
    ]
    return {"direction": "text_to_image", "text": gallery.texts[text][:120], "found": found}
