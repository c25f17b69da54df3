"""Classification heads: which hidden states of a text become its features, and what is made of them.

Each architecture's own `…ForSequenceClassification` pools in one way and has one head: both are followed exactly, so
that `transformers.pipeline("text-classification", folder)` gives the scores that were trained. Another pooling can be
chosen; a folder with one cannot be loaded by transformers, which would pool in its own way and say nothing.

Letters: `N` texts of a batch, `T` tokens, `W` hidden width, `K` outputs of the head.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mingshi.errors import ModelError
from mingshi.model import attention
from mingshi.types import Batch, Network

Problem = Literal["single_label", "multi_label", "regression"]
Pooling = Literal["first", "last", "mean"]

POOLING_KEY = "mingshi_pooling"  # of a configuration: a pooling that is not the architecture's own
VIEW_KEY = "mingshi_view"  # of a text tower's configuration: an image tower stands beside it (`pair.py`)
OURS = "mingshi_classifier"  # the model type of such a folder, which transformers does not know and so refuses


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """What a classifier tells apart, and how: all that a new head needs."""

    names: tuple[str, ...]  # of the outputs, in their order; a regression has one
    problem: Problem
    pooling: Pooling | None = None  # None: the architecture's own
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of one kind of architecture."""

    pooling: Pooling  # its own
    modules: tuple[str, ...]  # what is in it, by the last name
    output: str  # its last linear layer, by path
    logits: Callable[[Network, torch.Tensor], torch.Tensor]  # pooled states [N, W] -> [N, K]


def _score(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.score(pooled_NW)


def _pooler(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.classifier(network.dropout(network.base_model.pooler(pooled_NW[:, None])))


def _classifier(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.classifier(network.dropout(pooled_NW))


def _whole(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.classifier(pooled_NW[:, None])


def _distilled(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.classifier(network.dropout(torch.relu(network.pre_classifier(pooled_NW))))


def _modern(network: Network, pooled_NW: torch.Tensor) -> Any:
    return network.classifier(network.drop(network.head(pooled_NW)))


def head_of(network: Network) -> Head:
    """Causal models, BERT, RoBERTa and ELECTRA, DistilBERT, ModernBERT; ModelError for a head of another kind."""
    parts = {name for name, _ in network.named_children()}
    if "score" in parts:
        return Head("last", ("score",), "score", _score)
    if {"head", "drop", "classifier"} <= parts:
        own: Pooling = "mean" if network.config.classifier_pooling == "mean" else "first"
        return Head(own, ("head", "classifier"), "classifier", _modern)
    if {"pre_classifier", "dropout", "classifier"} <= parts:
        return Head("first", ("pre_classifier", "classifier"), "classifier", _distilled)
    if "classifier" in parts and _has(network, "classifier.out_proj"):
        return Head("first", ("classifier",), "classifier.out_proj", _whole)
    if {"dropout", "classifier"} <= parts and vars(network.config).get(POOLING_KEY):
        return Head("first", ("classifier",), "classifier", _classifier)  # the pooler is the first token's
    if {"dropout", "classifier"} <= parts:
        return Head("first", ("pooler", "classifier"), "classifier", _pooler)
    raise ModelError(
        f"{type(network).__name__} has a head of an unknown kind", "Use a causal model, or one of the BERT family."
    )


def _has(network: Network, path: str) -> bool:
    """Whether a module of this path is there, under an adapter's wrapper too."""
    first, _, last = path.partition(".")
    return any(name.startswith(f"{first}.") and name.endswith(f".{last}") for name, _ in network.named_modules())


def is_classifier(network: Network) -> bool:
    """Whether a network has a head of classes, and none of words."""
    return type(network).__name__.endswith("ForSequenceClassification")


def head_modules(network: Network) -> tuple[str, ...]:
    """Names of the modules that are trained whole beside an adapter; none for a language model."""
    if vars(network.config).get(VIEW_KEY):
        return ("joint",)
    return head_of(network).modules if is_classifier(network) else ()


def in_head(network: Network, parameter: str) -> bool:
    """Whether a parameter of this name belongs to the head."""
    return not set(head_modules(network)).isdisjoint(parameter.split("."))


def body_trains(network: Network) -> bool:
    """Whether any weight that the features are made of moves."""
    named = network.named_parameters()
    return any(parameter.requires_grad and not in_head(network, name) for name, parameter in named)


def pooling_of(network: Network) -> Pooling:
    chosen: Pooling | None = vars(network.config).get(POOLING_KEY)
    return chosen or head_of(network).pooling


def classes_of(settings: Any) -> Classes:
    """What a classifier of this configuration tells apart."""
    names = tuple(str(settings.id2label[number]) for number in range(settings.num_labels))
    told = str(settings.problem_type or "").removesuffix("_classification")
    problem: Problem = "regression" if len(names) == 1 and not told else "single_label"
    if told in ("single_label", "multi_label", "regression"):
        problem = told  # type: ignore[assignment]  # one of the three
    return Classes(names=names, problem=problem, pooling=vars(settings).get(POOLING_KEY))


def pools_its_own_way(network: Network) -> bool:
    return not vars(network.config).get(POOLING_KEY)


def features(network: Network, batch: Batch) -> torch.Tensor:
    """Pooled last hidden states `[N, W]`, one for each sample of a batch."""
    return pooled(network, batch.tokens, batch.positions, batch.segments)


def pooled(network: Network, tokens_T: torch.Tensor, positions_T: torch.Tensor, segments: np.ndarray) -> torch.Tensor:
    """Pooled last hidden states `[N, W]` of texts that are a segment each."""
    packs = network.config._attn_implementation == attention.NAME
    starts, lengths = segments[:, 0], segments[:, 1]
    device = tokens_T.device
    places_T = positions_T + position_offset(network)
    pooling = pooling_of(network)
    if pooling == "mean":
        every = attention.packed_hidden if packs else attention.padded_hidden
        hidden_TW = every(network, tokens_T, places_T, segments)
        lengths_N = torch.from_numpy(lengths.astype("int64")).to(device)
        owner_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=device), lengths_N)
        sums_NW = hidden_TW.new_zeros(len(lengths_N), hidden_TW.shape[1], dtype=torch.float32)
        return (sums_NW.index_add_(0, owner_T, hidden_TW.float()) / lengths_N[:, None]).to(hidden_TW.dtype)
    rows = torch.from_numpy((starts if pooling == "first" else starts + lengths - 1).astype("int64")).to(device)
    if packs:
        return attention.packed_hidden(network, tokens_T, places_T, segments, rows_M=rows)
    return attention.padded_hidden(network, tokens_T, places_T, segments).index_select(0, rows)


def logits(network: Network, pooled_NW: torch.Tensor) -> torch.Tensor:
    """The head's outputs `[N, K]` float32, its own product in the network's precision."""
    outputs: torch.Tensor = head_of(network).logits(network, pooled_NW)
    return outputs.float()


def probabilities(logits_NK: torch.Tensor, problem: Problem) -> torch.Tensor:
    """`[N, K]`: of the one class, of each class by itself, or a regression's numbers as they are."""
    if problem == "single_label":
        return logits_NK.softmax(-1)
    return logits_NK.sigmoid() if problem == "multi_label" else logits_NK


def position_offset(network: Network) -> int:
    """RoBERTa and its kin count positions from one past their padding token."""
    embeddings = dict(network.base_model.named_children()).get("embeddings")
    padding = None if embeddings is None else vars(embeddings).get("padding_idx")
    return 0 if padding is None else int(padding) + 1


# A new head


def configure(settings: Any, classes: Classes) -> None:
    """Write the classes into a transformers configuration, in place."""
    settings.num_labels = len(classes.names)
    settings.id2label = dict(enumerate(classes.names))
    settings.label2id = {name: number for number, name in enumerate(classes.names)}
    settings.problem_type = classes.problem + ("" if classes.problem == "regression" else "_classification")


def choose_pooling(network: Network, pooling: Pooling | None) -> None:
    """Another pooling than the architecture's own."""
    if pooling in (None, head_of(network).pooling):
        return
    network.config.mingshi_pooling = pooling
    drop_pooler(network)


def drop_pooler(network: Network) -> None:
    """Leave out BERT's pooler where the first token is not what is pooled."""
    if vars(network.config).get(POOLING_KEY) and dict(network.base_model.named_children()).get("pooler") is not None:
        network.base_model.pooler = None


def start_output(network: Network, seed: int) -> None:
    """The head's last layer drawn anew, as transformers draws it, from the seed alone."""
    layer = network.get_submodule(head_of(network).output)
    deviation = network.config.get_text_config().to_dict().get("initializer_range") or 0.02
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * deviation)
        if layer.bias is not None:
            layer.bias.zero_()


# Folders that transformers must not read


def hide_from_transformers(folder: Path) -> None:
    """Put a saved configuration into an envelope of a model type that transformers refuses."""
    path = folder / "config.json"
    inner = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({"model_type": OURS, "network": inner}, indent=2), encoding="utf-8")
