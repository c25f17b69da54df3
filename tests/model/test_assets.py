"""Names become folders, and a GGUF file becomes a model that says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mingshi.errors import ModelError
from mingshi.model.assets import MANIFEST, asset_folder, convert_gguf, resolve


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def test_a_known_model_that_is_not_fetched_says_how_to_fetch_it() -> None:
    with pytest.raises(ModelError, match=r"smollm2-135m is not on this machine.*\./scripts/fetch smollm2-135m"):
        resolve("smollm2-135m")


def test_a_known_model_resolves_only_once_its_manifest_is_there() -> None:
    folder = asset_folder("smollm2-135m")
    folder.mkdir(parents=True)
    with pytest.raises(ModelError):
        resolve("smollm2-135m")
    (folder / MANIFEST).touch()
    assert resolve("smollm2-135m") == folder


def test_a_folder_is_itself_and_any_other_name_is_the_hubs(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve("organisation/model") == "organisation/model"


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/nowhere", "~/nowhere"])
def test_a_path_that_leads_nowhere_is_not_taken_for_a_name_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match=r"there is no such folder"):
        resolve(name)


def test_a_file_is_not_a_models_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(ModelError, match=r"not a model's folder"):
        resolve(str(file))


@pytest.fixture(scope="module")
def network() -> Any:
    """A Llama of one layer with more query heads than key heads, whose weights bfloat16 can hold."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    )
    return made.to(torch.bfloat16).float().eval()


def write_gguf(network: Any, file: Path, pre_tokenizer: str) -> None:
    """The network as a GGUF file: queries and keys in its own order of rows, a tokenizer of bytes and one merge."""
    gguf = pytest.importorskip("gguf")
    settings = network.config
    characters = [chr(code) for code in gguf_bytes()]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *characters, "ĠĠ", "ĊĠĠ"]
    tokens += [f"<unused{index}>" for index in range(settings.vocab_size - len(tokens))]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(settings.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "Ċ ĠĠ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, weight in network.model.named_parameters(prefix="model"):
        array = weight.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = 4 if "q_proj" in name else 2
            array = array.reshape(heads, 2, -1, 32).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_bytes() -> list[int]:
    """The 256 characters that byte-level tokenizers write bytes as (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*printable, *range(256, 256 + 256 - len(printable))]


@pytest.fixture(scope="module")
def converted(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    write_gguf(network, folder / "tiny.gguf", "smollm")
    convert_gguf(folder / "tiny.gguf", folder / "model")
    return folder / "model"


def test_a_converted_model_has_the_weights_that_went_in(network: Any, converted: Path) -> None:
    import torch
    from safetensors.torch import load_file

    expected = {name: weight.to(torch.bfloat16) for name, weight in network.named_parameters()}
    found = load_file(converted / "model.safetensors")
    assert {name: weight.dtype for name, weight in found.items()} == dict.fromkeys(expected, torch.bfloat16)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_converted_model_is_a_plain_folder(converted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(converted)
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.model_max_length == 128
    assert tokenizer.chat_template == "{{ messages[0].content }}"


def test_digits_stand_alone_where_the_file_says_so_and_only_there(
    network: Any, converted: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(converted).tokenize("\n  12") == ["ĊĠĠ", "1", "2"]
    write_gguf(network, tmp_path / "other.gguf", "gpt-2")
    convert_gguf(tmp_path / "other.gguf", tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").tokenize("\n  12") == ["Ċ", "Ġ", "Ġ", "1", "2"]
