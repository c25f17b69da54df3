"""Pictures and texts that belong together: two towers learn one space, in which a picture lies nearest to its text.

Where a tower is frozen its features are computed once, and epochs cost the maps alone. Where it trains, a step sees all
rows of its batch however large that is: activations are kept of `rows` rows at a time and made again for the backward
(GradCache, Gao et al. 2021), with the gradients of the whole.

Letters: `N` rows of a batch, `A` rows that others are told apart from, `E` width of the space.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mingshi.data import images
from mingshi.data.plan import pack
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.types import Batch, Captioned, Example, Loss, Network, Reject, Sample, Settings

if TYPE_CHECKING:
    import torch

    from mingshi.display import Display
    from mingshi.model.load import Model, Text
    from mingshi.model.pair import Pair

AGAINST = 64  # rows that each is told apart from where it is measured: the same ones, whatever stream it comes in
STARTS = {  # what each loss learns besides the maps, and where it begins
    "infonce": (("scale", math.log(1 / 0.07)),),
    "siglip": (("scale", math.log(10.0)), ("bias", -10.0)),
    "cosine": (),
}
SHARED = {"infonce": "positive", "siglip": "mask", "cosine": "negative"}


class Contrastive(Settings):
    """`loss = sum_i l_i / N` over all rows of a batch, `l` as in `contrastive_losses.py`."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Captioned,)
    additive: ClassVar[bool] = False
    headline: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    kind: Literal["contrastive"] = "contrastive"
    vision: str = ""
    """The image tower: a known name, a folder or a name on the Hub. The recipe's `model` is the text tower; left out
    where that has an image tower already."""
    form: Literal["infonce", "siglip", "cosine"] = "infonce"
    """infonce: CLIP's; siglip: each pair by itself; cosine: one shuffled row as unlike, an old baseline."""
    shared: Literal["auto", "positive", "mask", "negative"] = "auto"
    """Rows of a batch that share a picture or a text count as alike, count for nothing, or count as unlike."""
    width: int = Field(default=256, ge=1)
    """Of the space."""
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    """Of the text tower's states; auto: their mean, or the last of a model that reads one way."""
    margin: float = Field(default=0.0, ge=-1, lt=1)
    """cosine: how alike rows may stay that do not belong together."""
    rows: int = Field(default=32, ge=1)
    """Rows whose activations are kept at a time in towers that train: it changes the memory and not the result."""
    max_length: int = Field(default=64, ge=3)
    """Tokens of one text."""
    too_long: Literal["truncate", "drop", "error"] = "truncate"
    """A longer text loses its end, is left out, or stops the run."""

    def pair(self, *, seed: int) -> Pair:
        """What the two towers are joined by."""
        from mingshi.model.pair import Pair

        pooling = None if self.pooling == "auto" else self.pooling
        return Pair(vision=self.vision, width=self.width, pooling=pooling, logit=STARTS[self.form], seed=seed)

    # Rows

    def encode(self, example: Example, model: Text) -> Sample | Reject | list[Sample]:
        """The picture with each of its texts; pixels are kept on the way."""
        from mingshi.model.pair import seen_by

        assert isinstance(example, Captioned)
        name = images.keep(example.image, seen_by(self.vision, model.name))
        found = [self._sample(example, text, name, model) for text in example.texts]
        samples = [one for one in found if isinstance(one, Sample)]
        return samples if len(samples) > 1 else (samples or found)[0]

    def _sample(self, example: Captioned, said: str, image: str, model: Text) -> Sample | Reject:
        from mingshi.model.pair_features import text_sample

        tokens = model.template.plain(said).tokens
        if len(tokens) <= self.max_length or self.too_long == "truncate":
            return text_sample(tokens, model, limit=self.max_length, image=image, name=example.id)
        what = f"{len(tokens)} tokens, over max_length {self.max_length}"
        if self.too_long == "error":
            mend = "Raise objective.max_length, or set objective.too_long to drop or truncate."
            raise DataError(Problem(file=example.source, line=example.line, what=what, mend=mend))
        detail = f"{what}. Raise objective.max_length, or set objective.too_long to truncate."
        return Reject(source=example.source, line=example.line, reason="too_long", detail=detail)

    def collate(self, samples: Sequence[Sample], device: str) -> Batch:
        return pack(samples, device=device)

    # The network

    def companion(self, model: Model, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display) -> Any:
        """The features of frozen towers, and the rows that others are told apart from."""
        from mingshi.model import pair as pairs
        from mingshi.model.pair_features import picture_features, text_features

        network, names = model.network, tuple(dict.fromkeys(sample.image for sample in samples))
        seen = said = None
        if not pairs.trains(network, "image"):
            seen = picture_features(network, names, folder=folder / "features", track=display.track)
        if not pairs.trains(network, "text"):
            said = text_features(network, samples, folder=folder / "features", budget=budget, track=display.track)
        drawn = np.sort(np.random.default_rng(0).permutation(len(samples))[:AGAINST]).tolist()
        anchors = self.collate([samples[row] for row in drawn], model.device)
        return Beside({name: place for place, name in enumerate(names)}, seen, said, anchors)

    def loss(self, network: Network, batch: Batch, companion: Any) -> Loss:
        from mingshi.objectives import contrastive_losses as losses

        logit = network.joint["logit"]
        if "scale" in logit:
            logit["scale"].data.clamp_(0, losses.LARGEST)  # in place, as CLIP does after each step
        image_NE, text_NE = self._embedded(network, batch, companion)
        same, shared = losses.alike(*_identities(batch)), self._shared
        if self.form == "infonce":
            rows_N = losses.infonce(image_NE, text_NE, logit["scale"], same, shared=shared)
        elif self.form == "siglip":
            rows_N = losses.siglip(image_NE, text_NE, logit["scale"], logit["bias"], same, shared=shared)
        else:
            other_N = losses.shuffled(len(image_NE), image_NE.device)
            rows_N = losses.cosine(image_NE, text_NE, other_N, same, shared=shared, margin=self.margin)
        weight = batch.weights.sum()
        learnt = {name: weight * parameter.detach() for name, parameter in logit.items()}
        return Loss(sum=(rows_N * batch.weights).sum(), metrics={f"logit_{name}": one for name, one in learnt.items()})

    @property
    def _shared(self) -> Any:
        return SHARED[self.form] if self.shared == "auto" else self.shared

    def measure(self, network: Network, batch: Batch, companion: Any) -> Mapping[str, torch.Tensor]:
        """The loss of each row beside the same `AGAINST` others, and how often its own is the nearest of all these.

        A row of the batch that is no anchor is beside none of the batch: what it is worth does not depend on the
        stream that it comes in. Anchors that share its picture or its text are passed over.
        """
        import torch

        logit = network.joint["logit"]
        image_NE, text_NE = self._embedded(network, batch, companion)
        image_AE, text_AE = self._embedded(network, companion.anchors, companion)
        pairs = zip(_identities(batch), _identities(companion.anchors), strict=True)
        same_NA = torch.stack([mine[:, None] == theirs[None] for mine, theirs in pairs]).any(0)
        own_N = (image_NE * text_NE).sum(1)
        loss_N, nearest_N = torch.zeros_like(own_N), torch.zeros_like(own_N)
        for others_NA in (image_NE @ text_AE.T, text_NE @ image_AE.T):
            loss_N = loss_N + self._told_apart(own_N, others_NA, same_NA, logit) / 2
            nearest_N = nearest_N + (own_N[:, None] > others_NA).logical_or(same_NA).all(1) / 2
        return {self.headline: loss_N * batch.weights, "matched": nearest_N * batch.weights}

    def _told_apart(
        self, own_N: torch.Tensor, others_NA: torch.Tensor, same_NA: torch.Tensor, logit: Any
    ) -> torch.Tensor:
        """The loss of each row's own pair beside pairs with others, `[N]`, in one direction."""
        import torch
        from torch.nn.functional import softplus

        if self.form == "cosine":
            apart_NA = (others_NA - self.margin).clamp(min=0).masked_fill(same_NA, 0)
            return (1 - own_N + apart_NA.sum(1) / (~same_NA).sum(1).clamp(min=1)) / 2
        scale = logit["scale"].exp()
        if self.form == "siglip":
            others_NA = softplus(scale * others_NA + logit["bias"]).masked_fill(same_NA, 0)
            pairs_N: torch.Tensor = softplus(-scale * own_N - logit["bias"]) + others_NA.sum(1)
            return pairs_N
        all_NB = torch.cat([own_N[:, None], others_NA.masked_fill(same_NA, -math.inf)], 1) * scale
        loss_N: torch.Tensor = all_NB.logsumexp(1) - scale * own_N
        return loss_N

    def _embedded(self, network: Network, batch: Batch, beside: Beside) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and texts in the space, `[N, E]` each."""
        from mingshi.model import pair as pairs

        names, place_N = np.unique(np.array(batch.images), return_inverse=True)
        if beside.seen_UF is not None:
            image_UF = _tensor(beside.seen_UF[[beside.places[name] for name in names]], network)
        else:
            image_UF = self._in_parts(len(names), lambda part: _see(network, names[part.start : part.stop].tolist()))
        if beside.said_RF is not None:
            text_NF = _tensor(beside.said_RF[list(batch.rows)], network)
        else:
            text_NF = self._in_parts(len(batch.rows), lambda part: pairs.said(network, batch, part))
        image_UE = pairs.joined(network, "image", image_UF)
        return image_UE[_tensor(place_N, network)], pairs.joined(network, "text", text_NF)

    def _in_parts(self, count: int, of: Callable[[range], torch.Tensor]) -> torch.Tensor:
        """Features of all, made of `rows` at a time; with several parts nothing of a part is kept but they."""
        import torch
        from torch.utils.checkpoint import checkpoint

        parts = [range(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([of(part) for part in parts])
        return torch.cat([checkpoint(of, part, use_reentrant=False) for part in parts])


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What stands beside the network for a stage's samples."""

    places: Mapping[str, int]  # of each picture's name among those below
    seen_UF: np.ndarray | None  # features of the pictures; None: their tower trains
    said_RF: np.ndarray | None  # of the samples' texts
    anchors: Batch


def require_fit(objective: Contrastive, model: Model) -> None:
    """RecipeError where the text tower has no positions for texts as long as may come."""
    if objective.max_length > model.context:
        what = f"objective.max_length is {objective.max_length}, and {model.name} reads {model.context} tokens"
        raise RecipeError(what, f"Set objective.max_length to {model.context} or less.")


def _see(network: Network, names: Sequence[str]) -> torch.Tensor:
    import torch

    from mingshi.model import pair as pairs
    from mingshi.model.vision import see

    view = pairs.view(network)
    return see(network.vision, torch.from_numpy(images.pixels(names, view)), view)


def _tensor(values: np.ndarray, network: Network) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(network.device)


def _identities(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A number for each row's text and one for its picture, `[N]` each: equal where those are."""
    import torch

    tokens_T = batch.tokens.cpu().numpy()
    said = [tokens_T[start : start + length].tobytes() for start, length, _ in batch.segments.tolist()]
    numbers = [
        [int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "big", signed=True) for one in column]
        for column in (said, [name.encode() for name in batch.images])
    ]
    texts_N, images_N = (torch.tensor(one, dtype=torch.int64, device=batch.tokens.device) for one in numbers)
    return texts_N, images_N
