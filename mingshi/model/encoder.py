"""Classifiers are loaded here: any body, with its own head or a new one, and a template that only frames a text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from mingshi.data.literal import Encoder
from mingshi.data.template import ChatTemplate
from mingshi.errors import ModelError, Problem
from mingshi.model import attention, heads
from mingshi.model.heads import Classes

NO_TEMPLATE = "none"  # the name of a template that has no turns


def bare_template(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    """What the tokenizer itself puts around a text, such as `[CLS]` and `[SEP]`; it renders no conversation."""
    framed, inner = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = [place for place in range(len(framed)) if framed[place : place + len(inner)] == inner]
    after = framed[starts[0] + len(inner) :] if starts else framed
    if len(after) > 1:
        raise ModelError(f"the tokenizer puts {framed} around {inner}, which is no beginning and end")
    encoder = Encoder(tokenizer, "")
    begin, end = tuple(framed[: starts[0]]), (after[0] if after else None)
    shape = orjson.dumps([NO_TEMPLATE, begin, end, encoder.controls], option=orjson.OPT_SORT_KEYS)
    return ChatTemplate(
        name=NO_TEMPLATE,
        jinja="",
        stop=(),
        end=end,
        begin=begin,
        fingerprint=hashlib.sha256(shape).hexdigest(),
        variables={},
        encoder=encoder,
    )


def read_settings(place: Path | str) -> Any:
    """The configuration of a model folder, out of our envelope where it is in one, or of a name on the Hub."""
    if isinstance(place, Path):
        told = json.loads((place / "config.json").read_bytes())
        if told.get("model_type") == heads.OURS:
            inner = dict(told["network"])
            return AutoConfig.for_model(inner.pop("model_type"), **inner)
    return AutoConfig.from_pretrained(place, local_files_only=isinstance(place, Path), trust_remote_code=False)


def says_classifier(settings: Any) -> bool:
    """Whether a configuration was saved with a classifier."""
    return any(name.endswith("ForSequenceClassification") for name in settings.architectures or ())


def refuse_encoder(place: Path | str, settings: Any) -> None:
    """ModelError for one of BERT's kin where a language model is wanted: each token sees those after it.

    transformers would load it all the same, and draw the weights that it lacks.
    """
    told = settings.to_dict()
    reads_both_ways = settings.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not told.get("is_encoder_decoder")
    if reads_both_ways and not told.get("is_decoder"):
        what = f"an encoder ({settings.model_type}), which reads texts and writes none"
        mend = "Train it as a classifier (objective classify), or name a language model."
        raise ModelError(Problem(file=str(place), what=what, mend=mend))


def load_classifier(
    place: Path | str, settings: Any, *, classes: Classes | None, dtype: torch.dtype, head_follows: bool
) -> Any:
    """The network of `place` with its own head, or with a new one where it has none for these classes.

    `head_follows`: an adapter brings it. ModelError where weights are missing that neither gives.
    """
    keeps = classes is None or (says_classifier(settings) and _same(heads.classes_of(settings), classes))
    if classes is not None:
        heads.configure(settings, classes)
        torch.manual_seed(classes.seed)  # transformers draws what is missing
    loader: Any = AutoModelForSequenceClassification  # its functions carry no types
    network, told = loader.from_pretrained(
        place,
        config=settings,
        dtype=dtype,
        attn_implementation=attention.NAME,
        use_safetensors=True,
        local_files_only=isinstance(place, Path),
        trust_remote_code=False,
        ignore_mismatched_sizes=classes is not None,
        output_loading_info=True,
    )
    pooling = heads.pooling_of(network)
    heads.choose_pooling(network, classes.pooling if classes is not None else None)
    heads.drop_pooler(network)
    keeps = keeps and pooling == heads.pooling_of(network)
    needed = dict(network.named_parameters())
    lost = [*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])]
    may_lack = classes is not None or head_follows
    absent = [name for name in lost if name in needed and not (may_lack and heads.in_head(network, name))]
    if absent:  # transformers would go on with random numbers in their place
        what = f"{len(absent)} of its weights are not in its files: {', '.join(sorted(absent)[:3])}"
        raise ModelError(Problem(file=str(place), what=what, mend="Fetch it again, whole."))
    if classes is not None and not keeps:
        heads.start_output(network, classes.seed)
    network.config.architectures = [type(network).__name__]
    return network


def _same(there: Classes, wanted: Classes) -> bool:
    return (there.names, there.problem) == (wanted.names, wanted.problem)


def fit_padding(network: Any, tokenizer: PreTrainedTokenizerFast, template: ChatTemplate) -> None:
    """A padding token for those who pad, since causal classifiers of transformers pool at the last token that is none.

    Where every text ends in what would be that token, there is none: transformers then refuses to pad, instead of
    pooling one token too early.
    """
    if heads.head_of(network).output != "score":
        return
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    padding = tokenizer.pad_token_id
    network.config.get_text_config().pad_token_id = None if padding == template.end else padding
