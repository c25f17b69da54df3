"""What is loaded and what is refused: no code, no pickles, and an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from mingshi.errors import ModelError
from mingshi.model import attention
from mingshi.model.load import choose_precision, load, load_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


def change(path: Path, **values: Any) -> None:
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | values))


def test_a_folder_becomes_a_model_at_rest(folder: Path) -> None:
    model = load(folder, precision="float32")
    assert model.network.dtype == torch.float32 and not model.network.training
    assert not any(one.requires_grad for one in model.network.parameters())
    assert model.packs and model.network.config._attn_implementation == attention.NAME
    assert (model.context, model.device, model.folder) == (512, "cpu", folder)
    assert model.adapter is None and not model.changed


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_folder_that_names_code_to_run_is_refused(folder: Path, file: str) -> None:
    change(folder / file, auto_map={"AutoModelForCausalLM": "evil.Network"})
    with pytest.raises(ModelError, match="own code") as caught:
        load(folder)
    (problem,) = caught.value.problems
    assert (problem.file, problem.field) == (str(folder / file), "auto_map")


def test_code_is_found_however_deep_it_hides(folder: Path) -> None:
    change(folder / "config.json", inner=[{"deeper": {"trust_remote_code": True}}])
    with pytest.raises(ModelError, match="trust_remote_code"):
        load(folder)


@pytest.mark.parametrize("key", [r"\u0061uto_map", r"auto\u005Fmap", r"model_fil\u0065", r"custom_pipeline\u0073"])
def test_code_is_found_behind_an_escape(folder: Path, key: str) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", f'{{"{key}": {{"AutoConfig": "evil.Settings"}},', 1))
    with pytest.raises(ModelError, match="own code"):
        load(folder)


def test_a_key_that_says_nothing_is_no_code(folder: Path) -> None:
    change(folder / "config.json", custom_pipelines=None)
    assert load(folder).packs


def test_the_base_of_an_adapter_is_looked_at_too(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_bytes(orjson.dumps({"base_model_name_or_path": str(folder)}))
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Settings"})
    with pytest.raises(ModelError, match="own code"):
        load(adapter)


def test_pickled_weights_are_refused_and_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ModelError, match="pickled"):
        load(folder)


def test_pickled_weights_beside_safe_ones_are_not_read(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load(folder).packs


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "content"), [("config.json", b"{broken"), ("config.json", None), ("model.safetensors", b"\x00" * 16)]
)
def test_a_damaged_folder_is_an_error_and_no_traceback(folder: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelError):
        load(folder)


def test_a_weight_that_is_missing_is_named_and_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        load(folder)


def test_a_weight_of_another_shape_is_an_error(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError):
        load(folder)


def test_a_folder_without_a_tokenizer_is_an_error_and_no_traceback(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load(folder)


def test_an_unknown_template_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(ModelError, match="zh-instruction"):
        load(folder, template="zh-instructions")


def test_text_alone_needs_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    text = load_text(folder)
    assert text.template.name == "own"
    assert text.tokenizer_sha256 == load_text(folder).tokenizer_sha256


def test_another_tokenizer_has_another_hash(folder: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["brandnew"])
    tokenizer.save_pretrained(other)
    assert load_text(other).tokenizer_sha256 != load_text(folder).tokenizer_sha256


def test_a_template_with_new_tokens_gets_rows_for_them_and_the_others_stay(tmp_path: Path) -> None:
    bare = tiny_model(tmp_path / "bare", template=None)
    before = load(bare, precision="float32", template="zh-instruction").network
    model = load(bare, precision="float32")
    old, new = (net.get_input_embeddings().weight for net in (before, model.network))
    assert model.template.name == "turns" and len(new) == len(old) + 4
    assert torch.equal(new[: len(old)], old)
    assert model.network.get_output_embeddings().weight is new
    assert model.tokenizer.convert_ids_to_tokens(list(model.text.new_tokens)) == [
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
    ]
    again = load(bare, precision="float32").network.get_input_embeddings().weight
    assert torch.equal(new, again)


def test_the_precision_is_what_was_asked_for() -> None:
    assert choose_precision("bf16", "cpu") == torch.bfloat16
    assert choose_precision("float32", "cpu") == torch.float32
    assert choose_precision("auto", "cpu") in (torch.bfloat16, torch.float32)
