"""A name or a folder becomes a Model: network, tokenizer, template, and proof that its attention can be packed."""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mingshi.data.template import ChatTemplate, make_template, missing_tokens, template_notes
from mingshi.errors import ModelError, Problem
from mingshi.model import attention, encoder, heads
from mingshi.model import pair as pairs
from mingshi.model.assets import resolve
from mingshi.model.lean import lean
from mingshi.model.probe import probe
from mingshi.model.streamlined import streamline

FORBIDDEN_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "auto_mapping", "model_file")
SUSPECT = re.compile(rb"\\u00[5-7]|" + "|".join(FORBIDDEN_KEYS).encode())  # one of them, or an escaped letter or _

Precision = Literal["auto", "bf16", "float32"]


@dataclass(slots=True, eq=False)
class Text:
    """How a model reads and writes: all that encoding, preview and verification need, without its weights."""

    name: str
    tokenizer: PreTrainedTokenizerFast
    template: ChatTemplate
    new_tokens: tuple[int, ...]  # ids that the template added, whose embeddings have yet to be trained

    @property
    def tokenizer_sha256(self) -> str:
        """Of everything that turns text into tokens."""
        return hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


@dataclass(slots=True, eq=False)
class Model:
    """What everything that uses a language model is handed."""

    text: Text
    network: Any  # a transformers causal language model or classifier; adapter layers, if any, are in it
    folder: Path | None  # None: straight from the Hub's cache
    adapter: Any = None  # peft's wrapper of the same network, which saves and merges
    changed: bool = False  # the weights are no longer those of the folder: an adapter alone would not bring them back
    quantised: bool = False  # linear layers of the base are in four bits
    start: dict[str, torch.Tensor] = field(default_factory=dict)  # PiSSA: what the update began as, taken from the base
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.text.name

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.text.tokenizer

    @property
    def template(self) -> ChatTemplate:
        return self.text.template

    @property
    def device(self) -> str:
        return str(self.network.device)

    @property
    def context(self) -> int:
        """The longest text that the network was made for, in tokens."""
        positions = int(self.network.config.get_text_config().max_position_embeddings)
        return positions - heads.position_offset(self.network)

    @property
    def packs(self) -> bool:
        return bool(self.network.config._attn_implementation == attention.NAME)

    @property
    def classes(self) -> heads.Classes | None:
        """What a classifier tells apart; None for a language model."""
        return heads.classes_of(self.network.config) if heads.is_classifier(self.network) else None


def load(
    name: str | Path,
    *,
    precision: Precision = "auto",
    device: str = "auto",
    template: str = "auto",
    classes: heads.Classes | None = None,
    pair: pairs.Pair | None = None,
) -> Model:
    """Load from a known name, a folder (a full model or an adapter), or the Hub. Only safetensors and JSON are read.

    With `classes` it becomes a classifier of these, with a new head unless it has theirs already. A folder that was
    saved with a classifier is one without being asked.

    With `pair` an image tower stands beside it, and maps of both into one space; the same holds of such a folder.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # transformers warns of its own attribute each time peft asks every attribute of a network for its name
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    attention.register()
    place, base = _places(name)
    device = choose_device(device)
    network = _network(place, base, classes, pair, precision=precision, device=device)
    network.to(device).eval()
    network.requires_grad_(False)
    classifies = heads.is_classifier(network)
    reads = classifies or pairs.is_pair(network)
    text = load_text(name, template=encoder.NO_TEMPLATE if reads else template)
    model = Model(text, network, place if isinstance(place, Path) else None)
    if pairs.is_pair(network):
        model.changed = True  # an adapter alone would not bring the image tower and the maps back
    elif classifies:
        encoder.fit_padding(network, text.tokenizer, text.template)
        model.changed = not heads.pools_its_own_way(network)  # whoever put an adapter on the base would pool otherwise
    else:
        model.notes.extend(f"The template {note}." for note in template_notes(text.template))
    with pairs.text_alone(network):
        lean(network)
        gap = probe(network)
        if gap is None:
            streamline(network)
    if gap is not None:
        capped = network.config.get_text_config().to_dict().get("attn_logit_softcapping") is not None
        network.set_attn_implementation("eager" if capped else "sdpa")  # sdpa knows no soft cap
        model.notes.append(f"Packed attention does not fit this model ({gap}): padded batches are used, slower.")
    _fit_embeddings(model)
    if place != base:
        from mingshi.model.adapter_files import read_adapter

        read_adapter(model, Path(place), quantised=bool(read_saved(Path(place)).get("quantised")))
    return model


def load_text(name: str | Path, *, template: str = "auto") -> Text:
    """The tokenizer and the template, with the tokens added that the template writes and the tokenizer lacks."""
    place, base = _places(name)
    tokenizer = _tokenizer(place)
    if template == encoder.NO_TEMPLATE:
        return Text(str(name), tokenizer, encoder.bare_template(tokenizer), ())
    has_ends = isinstance(place, Path) and (place / "generation_config.json").is_file()
    added = missing_tokens(tokenizer, template)
    if added:
        tokenizer.add_special_tokens({"extra_special_tokens": list(added)}, replace_extra_special_tokens=False)
    made = make_template(tokenizer, name=template, end_tokens=_declared_ends(place if has_ends else base))
    return Text(str(name), tokenizer, made, tuple(tokenizer.convert_tokens_to_ids(list(added))))


def _places(name: str | Path) -> tuple[Path | str, Path | str]:
    """Where the named thing lies, and where its base does: the same, unless it is an adapter."""
    place = base = resolve(str(name))
    if isinstance(place, Path):
        refuse_code(place)
        if (place / "adapter_config.json").is_file():
            base = resolve(str(_json(place / "adapter_config.json")["base_model_name_or_path"]))
            if isinstance(base, Path):
                refuse_code(base)
    return place, base


def base_place(name: str | Path) -> Path | str:
    """Where the weights of a model's base lie."""
    return _places(name)[1]


def _declared_ends(place: Path | str) -> tuple[int, ...]:
    """The end tokens of the model's generation settings, or of its configuration where it has none."""
    local = isinstance(place, Path)
    try:
        ends = GenerationConfig.from_pretrained(place, local_files_only=local).eos_token_id
    except OSError:
        ends = AutoConfig.from_pretrained(place, local_files_only=local, trust_remote_code=False).eos_token_id
    if ends is None:
        return ()
    return tuple(ends) if isinstance(ends, list) else (ends,)


def choose_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_precision(precision: Precision, device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it; emulation elsewhere is many times slower than float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32


def refuse_code(folder: Path) -> None:
    """No key of any JSON file may name code to run."""
    problems = []
    for path in sorted(folder.glob("*.json")):
        facts = path.stat()
        if facts.st_size > 64 << 20:
            continue
        for key in _keys_of_code(path, facts.st_mtime_ns, facts.st_size):
            mend = "Mingshi runs no code that comes with a model; use a folder without it."
            problems.append(Problem(file=str(path), field=key, what="the model asks to run its own code", mend=mend))
    weights = list(folder.glob("*.safetensors"))
    if not weights and any(folder.glob("*.bin")):
        problems.append(
            Problem(file=str(folder), what="its weights are pickled", mend="Convert them to safetensors first.")
        )
    if problems:
        raise ModelError(problems)


@functools.lru_cache(maxsize=256)
def _keys_of_code(path: Path, modified: int, size: int) -> tuple[str, ...]:
    """The keys of a JSON file that name code; one that has not changed is read once.

    Its keys are gone through only where its bytes hold such a word, or an escape that could stand for a letter of one:
    a tokenizer has a hundred thousand others.
    """
    values = _json(path)
    if not SUSPECT.search(path.read_bytes()):
        return ()
    return tuple(sorted(_set_keys(values).intersection(FORBIDDEN_KEYS)))


def _set_keys(value: Any) -> set[str]:
    """Keys at any depth whose value says something: peft writes `auto_mapping: null` into every adapter."""
    if isinstance(value, dict):
        return {key for key, inner in value.items() if inner}.union(*map(_set_keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(_set_keys, value))
    return set()


def _json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(Problem(file=str(path), what=f"not readable JSON ({error})", mend="Fetch it again.")) from None


def read_saved(folder: Path | None) -> dict[str, Any]:
    """What Mingshi wrote beside a model that it saved; empty for any other folder."""
    path = folder / "mingshi.json" if folder is not None else None
    return dict(_json(path)) if path is not None and path.is_file() else {}


def _network(
    place: Path | str,
    base: Path | str,
    classes: heads.Classes | None,
    pair: pairs.Pair | None,
    *,
    precision: Precision,
    device: str,
) -> Any:
    """Of the base, for what lies at `place`; an adapter of a classifier brings its configuration and its head.

    A saved classifier's precision is by default its own: whoever else loads it gets the same scores.
    """
    adapter = place != base
    own = place if isinstance(place, Path) and adapter and (place / "config.json").is_file() else base
    try:
        if pair is not None or pairs.saved_in(place):
            dtype = choose_precision(precision, device)
            return pairs.load_pair(place, pair, dtype=dtype, chosen=precision != "auto")
        settings = encoder.read_settings(own)
        dtype = choose_precision(precision, device)
        if classes is None and not encoder.says_classifier(settings):
            return _language_model(base, settings, dtype)
        if classes is None and precision == "auto":
            dtype = settings.dtype or dtype
        return encoder.load_classifier(base, settings, classes=classes, dtype=dtype, head_follows=adapter)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise unloadable(base, error) from None


def unloadable(place: Path | str, error: Exception) -> ModelError:
    what = f"{place} cannot be loaded: {str(error).splitlines()[0][:160]}"
    return ModelError(what, "Give a known name (`./scripts/fetch --list`), a model folder, or a Hub name.")


def _language_model(place: Path | str, settings: Any, precision: torch.dtype) -> Any:
    encoder.refuse_encoder(place, settings)
    loader: Any = AutoModelForCausalLM  # its functions carry no types
    network, told = loader.from_pretrained(
        place,
        config=settings,
        dtype=precision,
        attn_implementation=attention.NAME,
        use_safetensors=True,
        local_files_only=isinstance(place, Path),
        trust_remote_code=False,
        output_loading_info=True,
    )
    if absent := sorted(told["missing_keys"]):  # transformers would go on with random numbers in their place
        what = f"{len(absent)} of its weights are not in its files: {', '.join(absent[:3])}"
        raise ModelError(Problem(file=str(place), what=what, mend="Fetch it again, whole."))
    return network


def _tokenizer(place: Path | str) -> PreTrainedTokenizerFast:
    local = isinstance(place, Path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        what = f"{place} has no tokenizer that can be read: {str(error).splitlines()[0][:120]}"
        raise ModelError(what, "Fetch it again, with tokenizer.json.") from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"{place} has no tokenizer.json", "Masks need a fast tokenizer: save one with `AutoTokenizer`."
        )
    return tokenizer


def _fit_embeddings(model: Model) -> None:
    """Rows for tokens that the template added, started at the mean of the others so that none stands out."""
    rows = model.network.get_input_embeddings().weight.shape[0]
    if len(model.tokenizer) > rows:
        torch.manual_seed(0)
        model.network.resize_token_embeddings(len(model.tokenizer), mean_resizing=True)
