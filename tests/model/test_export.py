"""A saved folder reproduces its prompts, shows any change to itself, and opens in plain transformers and peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from networks import samples, work
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from mingshi.errors import ModelError
from mingshi.loop import train
from mingshi.model import export
from mingshi.model.adapters import ADAPTERS
from mingshi.model.export import Check, merge, messages_of, verify
from mingshi.model.load import Model, load

TEXT = torch.arange(3, 60)[None]


def made(
    root: Path, kind: str, *, template: str = "auto", bare: bool = False, rate: float = 1e-2
) -> tuple[Model, Path]:
    """A model that was trained for a few steps, and its folder."""
    base = tiny_model(root / "base", **({"template": None} if bare else {}))
    settings = orjson.loads((base / "generation_config.json").read_bytes())
    settings["eos_token_id"] = [2, 0]  # a second end of text, which nothing but this file knows
    (base / "generation_config.json").write_bytes(orjson.dumps(settings))
    model = load(base, precision="float32", template=template)
    ADAPTERS[kind]().attach(model, seed=0)
    list(train(work(model.network, samples([30, 12]), batch=2, steps=3)))
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=rate)
    return model, export.save(
        model, root / "saved", facts={"kind": "adapter" if model.adapter else "model"}, card="# A"
    )


@torch.no_grad()
def logits(network: Any) -> torch.Tensor:
    found: torch.Tensor = network.eval()(input_ids=TEXT).logits
    return found


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize("template", ["auto", "zh-instruction", "alpaca"])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_folder_alone_renders_the_prompts_of_its_training(kind: str, template: str, tmp_path: Path) -> None:
    model, saved = made(tmp_path, kind, template=template)
    assert failed(verify(saved)) == []
    again = load(saved, precision="float32")
    for turns in export.PROBES[:2]:
        assert again.template.prompt(messages_of(turns)) == model.template.prompt(messages_of(turns))
    assert sorted(again.template.stop) == sorted(model.template.stop) and {0, 2} <= set(again.template.stop)
    told = orjson.loads((saved / "mingshi.json").read_bytes())
    assert len(told["prompts"]) >= 2 and len({proof["sha256"] for proof in told["prompts"]}) == len(told["prompts"])


def test_new_tokens_are_verified_too(tmp_path: Path) -> None:
    _, saved = made(tmp_path, "lora", bare=True)
    assert failed(verify(saved)) == []


def change_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def reseal(saved: Path) -> None:
    """The hash of every file as it is now: what is left to notice a change is what the folder does."""
    told = orjson.loads((saved / "mingshi.json").read_bytes())
    told["files"] = {name: export._hash_file(saved / name) for name in told["files"]}
    (saved / "mingshi.json").write_bytes(orjson.dumps(told))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "one character of the template": (
        lambda saved: change_text(saved / "chat_template.jinja", "<|im_start|>assistant\\n", "<|im_start|>assistant "),
        "prompt: Hello. Who are you?",
    ),
    "a template that does not parse": (
        lambda saved: change_text(saved / "chat_template.jinja", "{%-", "{%%"),
        "template",
    ),
    "a template that refuses": (
        lambda saved: change_text(saved / "chat_template.jinja", "{%- for", "{{ raise_exception('no') }}{%- for"),
        "template",
    ),
    "a dropped stop token": (
        lambda saved: (saved / "generation_config.json").write_bytes(orjson.dumps({"eos_token_id": 2})),  # type: ignore[func-returns-value]
        "stop tokens",
    ),
}


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_what_it_does_is_seen_even_where_every_hash_was_mended(
    what: str, kind: str, tmp_path: Path
) -> None:
    _, saved = made(tmp_path, kind)
    apply, noticed = CHANGES[what]
    apply(saved)
    assert noticed in failed(verify(saved))
    reseal(saved)
    assert noticed in failed(verify(saved))


@pytest.mark.parametrize(("kind", "file"), [("full", "model.safetensors"), ("lora", "adapter_model.safetensors")])
def test_a_flipped_bit_is_seen(kind: str, file: str, tmp_path: Path) -> None:
    _, saved = made(tmp_path, kind)
    data = bytearray((saved / file).read_bytes())
    data[-5] ^= 1
    (saved / file).write_bytes(data)
    assert failed(verify(saved)) == [file]


def test_a_missing_file_and_a_foreign_one_are_seen(tmp_path: Path) -> None:
    _, saved = made(tmp_path, "lora")
    (saved / "README.md").unlink()
    (saved / "notes.txt").write_text("added")
    assert failed(verify(saved)) == ["README.md", "no other files"]


def test_a_folder_of_somebody_else_is_not_ours_to_verify(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not saved by Mingshi"):
        verify(tiny_model(tmp_path))


@pytest.mark.parametrize("bare", [False, True])
def test_a_full_model_opens_in_plain_transformers(bare: bool, tmp_path: Path) -> None:
    model, saved = made(tmp_path, "full", bare=bare)
    plain = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, attn_implementation="eager")
    torch.testing.assert_close(logits(plain), logits(model.network), rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    ask = [{"role": "user", "content": "你好?"}]
    tokens = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
    assert tokens == model.template.prompt(messages_of([("user", "你好?")]))
    assert sorted(plain.generation_config.eos_token_id) == sorted(model.template.stop)


@pytest.mark.parametrize("bare", [False, True])
def test_an_adapter_opens_in_plain_peft(bare: bool, tmp_path: Path) -> None:
    model, saved = made(tmp_path, "lora", bare=bare)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation="eager")
    if bare:
        base.resize_token_embeddings(len(AutoTokenizer.from_pretrained(saved)))
    plain = PeftModel.from_pretrained(base, saved)
    torch.testing.assert_close(logits(plain), logits(model.network), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bare", [False, True])
def test_a_merge_is_proved_and_equals_the_adapter(bare: bool, tmp_path: Path) -> None:
    model, saved = made(tmp_path, "lora", bare=bare)
    proof = merge(saved, tmp_path / "merged", precision=torch.float32)
    assert 0 <= abs(proof.kl) < 1e-6 and proof.agreement == 1.0 and proof.positions > 20
    assert failed(verify(tmp_path / "merged")) == []
    again = load(tmp_path / "merged", precision="float32")
    assert again.adapter is None
    torch.testing.assert_close(logits(again.network), logits(model.network), rtol=1e-5, atol=1e-5)
    narrow = merge(saved, tmp_path / "narrow")
    assert proof.kl < narrow.kl < 0.02
    assert load_file(tmp_path / "narrow" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


def test_a_merge_that_is_too_far_off_leaves_nothing_behind(tmp_path: Path) -> None:
    _, saved = made(tmp_path, "lora")
    with pytest.raises(ModelError, match="nats a token"):
        merge(saved, tmp_path / "merged", limit=1e-12)
    assert not (tmp_path / "merged").exists()


def test_a_whole_model_is_not_merged(tmp_path: Path) -> None:
    _, saved = made(tmp_path, "full")
    with pytest.raises(ModelError, match="no adapter"):
        merge(saved, tmp_path / "merged")


def test_saving_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    model, saved = made(tmp_path, "lora")
    (saved / "left-over").write_text("old")
    export.save(model, saved, facts={}, card="")
    assert failed(verify(saved)) == [] and not (saved / "left-over").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "saved"}


def test_a_save_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, saved = made(tmp_path, "lora")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(model.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="full"):
        export.save(model, saved, facts={}, card="")
    assert failed(verify(saved)) == []
    assert {path.name for path in tmp_path.iterdir()} == {"base", "saved"}


@pytest.mark.parametrize("damage", ["shape", "missing"])
def test_an_adapter_that_does_not_fit_its_base_is_an_error(damage: str, tmp_path: Path) -> None:
    _, saved = made(tmp_path, "lora")
    tensors = load_file(saved / "adapter_model.safetensors")
    first = next(iter(tensors))
    whole = tensors.pop(first)
    if damage == "shape":
        tensors[first] = whole[:, :-1].contiguous()
    save_file(tensors, saved / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="does not fit its base"):
        load(saved)
