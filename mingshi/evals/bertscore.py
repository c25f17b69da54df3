"""BERTScore (Zhang et al. 2020) on any local encoder.

Every token of one text is matched with the token of the other whose state is nearest by cosine (equations 1 and 2,
with the weights of section 3's importance weighting and the rescaling that follows it). As in the authors' program the
special tokens around a text may be matched with, and have no weight of their own; of several references the best counts
for precision, recall and F1 each, and an empty text scores 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mingshi.errors import ModelError, RecipeError
from mingshi.evals.predictions import Item
from mingshi.evals.tallies import MOST_ITEMS, quotients

NAMES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
BEST_LAYERS: Mapping[str, int] = {  # by correlation with human judgement, as the authors' program has them
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "bert-base-chinese": 8,
    "roberta-base": 10,
    "roberta-large": 17,
    "distilbert-base-uncased": 5,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
BATCH = 32  # texts encoded together
PAIRS = 1000  # of unrelated texts, for the baseline
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")  # count positions from after the padding's number


@dataclass(slots=True, eq=False)
class Encoder:
    """A network, the layer whose states are compared, and what its scores are weighed and moved by."""

    network: Any
    tokenizer: Any
    name: str
    layer: int
    chosen: str  # how the layer was: given, known, or two-thirds
    longest: int  # tokens that it reads of a text
    weights: Mapping[int, float] | None = None  # inverse document frequencies
    baseline: tuple[float, float, float] = (0.0, 0.0, 0.0)
    special: frozenset[int] = field(default=frozenset())

    def signature(self, name: str) -> str:
        moved = f"{self.baseline[NAMES.index(name)]:.6f}" if any(self.baseline) else "no"
        weighed = "yes" if self.weights is not None else "no"
        return f"{name}|model:{self.name}|layer:{self.layer}:{self.chosen}|idf:{weighed}|baseline:{moved}"

    def tokens(self, text: str) -> list[int]:
        """With the special tokens around it, cut off where the network's positions end."""
        return list(self.tokenizer(text.strip(), truncation=True, max_length=self.longest)["input_ids"])


def open_encoder(name: str, *, layer: int | None = None) -> Encoder:
    """Load an encoder in float32. Raises ModelError if it cannot be had, RecipeError for a layer that it has not."""
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    from mingshi.model.assets import resolve
    from mingshi.model.load import refuse_code, unloadable

    place = resolve(name)
    local = isinstance(place, Path)
    if isinstance(place, Path):
        refuse_code(place)
    loader: Any = AutoModel  # its functions carry no types
    common = {"local_files_only": local, "trust_remote_code": False}
    try:
        network, told = loader.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **common
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(place, **common)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise unloadable(place, error) from None
    if absent := [key for key in sorted(told["missing_keys"]) if "pooler" not in key]:
        raise ModelError(
            f"{name} lacks {len(absent)} of its weights: {', '.join(absent[:3])}", "Fetch it again, whole."
        )
    return as_encoder(network, tokenizer, name=Path(name).name, layer=layer)


def as_encoder(network: Any, tokenizer: Any, *, name: str, layer: int | None = None) -> Encoder:
    """A loaded network, ready to compare; RecipeError for a layer that it has not."""
    settings = network.config
    depth = int(settings.num_hidden_layers)
    known = BEST_LAYERS.get(name)
    chosen = "given" if layer is not None else "two-thirds" if known is None else "known"
    layer = layer if layer is not None else known if known is not None else max(1, round(2 * depth / 3))
    if layer > depth:
        raise RecipeError(f"--layer {layer}: {name} has {depth} layers", "Give a number from 0 to that.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    skipped = int(settings.pad_token_id or 0) + 1 if settings.model_type in OFFSET_POSITIONS else 0
    positions = settings.to_dict().get("max_position_embeddings")
    longest = min(tokenizer.model_max_length, positions - skipped) if positions else tokenizer.model_max_length
    network.eval()
    special = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return Encoder(network, tokenizer, name, layer, chosen, min(longest, 1 << 20), special=special)


def document_weights(encoder: Encoder, references: Iterable[str]) -> dict[int, float]:
    """`log((M + 1) / (df + 1))` of every token over `M` references; of a token that none has, `log(M + 1)`."""
    seen: Counter[int] = Counter()
    count = 0
    for text in references:
        seen.update(set(encoder.tokens(text)))
        count += 1
    rest = math.log(count + 1)
    return defaultdict(lambda: rest, {token: math.log((count + 1) / (df + 1)) for token, df in seen.items()})


def measured_baseline(encoder: Encoder, texts: Sequence[str], *, seed: int) -> tuple[float, float, float]:
    """What unrelated texts score on average: precision, recall and F1 of random pairs. RecipeError for too few."""
    different = sorted(set(texts))
    if len(different) < 2:
        raise RecipeError("--rescale needs at least two different references", "Leave it out.")
    generator = np.random.default_rng(seed)
    first_P = generator.integers(0, len(different), PAIRS)
    second_P = (first_P + generator.integers(1, len(different), PAIRS)) % len(different)
    pairs = [(different[one], different[other]) for one, other in zip(first_P, second_P, strict=True)]
    precision, recall, f1 = np.mean(raw_scores(encoder, pairs), axis=0).tolist()
    return precision, recall, f1


def raw_scores(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Precision, recall and F1 of each (prediction, reference), `[N, 3]`, as yet unmoved."""
    texts = sorted({text for pair in pairs for text in pair}, key=lambda text: (len(text), text))
    states: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for start in range(0, len(texts), BATCH):
        states.update(_encoded(encoder, texts[start : start + BATCH]))
    return np.array([_matched(states[prediction], states[reference]) for prediction, reference in pairs])


def _encoded(encoder: Encoder, texts: Sequence[str]) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Unit states `[L, width]` and weights `[L]` of each text's tokens, both in float64."""
    ids = [encoder.tokens(text) for text in texts]
    width = max(1, *map(len, ids))
    padded = torch.full((len(ids), width), encoder.tokenizer.pad_token_id)
    mask = torch.zeros_like(padded)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = 1
    mask[:, 0] = 1  # a text without any token: its state is not looked at
    with torch.inference_mode():
        found = encoder.network(input_ids=padded, attention_mask=mask, output_hidden_states=True)
    states_BLW = torch.nn.functional.normalize(found.hidden_states[encoder.layer].double(), dim=-1)
    return {
        text: (states_BLW[row, : len(tokens)], _weights(encoder, tokens))
        for row, (text, tokens) in enumerate(zip(texts, ids, strict=True))
    }


def _weights(encoder: Encoder, tokens: Sequence[int]) -> torch.Tensor:
    plain = [0.0 if token in encoder.special else 1.0 for token in tokens]
    if encoder.weights is None:
        return torch.tensor(plain, dtype=torch.float64)
    weighed = [encoder.weights[token] * each for token, each in zip(tokens, plain, strict=True)]
    return torch.tensor(weighed if sum(weighed) > 0 else plain, dtype=torch.float64)  # all in every reference: alike


def _matched(
    prediction: tuple[torch.Tensor, torch.Tensor], reference: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float, float]:
    (states_PW, weights_P), (states_RW, weights_R) = prediction, reference
    if not weights_P.sum() > 0 or not weights_R.sum() > 0:
        return 0.0, 0.0, 0.0
    cosines_PR = states_PW @ states_RW.T
    precision = float(cosines_PR.amax(1) @ weights_P / weights_P.sum())
    recall = float(cosines_PR.amax(0) @ weights_R / weights_R.sum())
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class BertScore:
    """BERTScore's tally over the rows of a file."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.sums_NK = np.zeros((MOST_ITEMS, 2 * len(NAMES)))

    def names(self) -> Sequence[str]:
        return NAMES

    def signature(self, name: str) -> str:
        return self.encoder.signature(name)

    def add(self, items: Sequence[Item], places: Sequence[int]) -> None:
        scores = self.scores([(item.prediction, item.references) for item in items])
        both = np.stack([scores, np.ones_like(scores)], axis=2).reshape(len(items), -1)
        np.add.at(self.sums_NK, np.asarray(places), both)

    def scores(self, rows: Sequence[tuple[str, Sequence[str]]]) -> np.ndarray:
        """Precision, recall and F1 of predictions with their references, `[N, 3]`."""
        raw = raw_scores(self.encoder, [(prediction, each) for prediction, references in rows for each in references])
        ends = np.cumsum([len(references) for _, references in rows])
        best = np.stack([part.max(0) for part in np.split(raw, ends[:-1])])
        baseline = np.array(self.encoder.baseline)
        moved: np.ndarray = (best - baseline) / (1 - baseline)
        return moved

    def columns(self, count: int) -> np.ndarray:
        return self.sums_NK[:count]

    def values(self, sums_RK: np.ndarray) -> np.ndarray:
        return quotients(sums_RK)
