"""What every adapter keeps to, over the table of them: a new one is held to all of this without a line of its own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from networks import work
from peft import PeftModel
from pydantic import TypeAdapter, ValidationError
from tiny import tiny_model
from transformers import AutoModelForCausalLM

from mingshi.loop import Work, train
from mingshi.model import export
from mingshi.model.adapters import ADAPTERS, Adapter, Lora, fold, trainable
from mingshi.model.load import Model, load
from mingshi.objectives import Sft
from mingshi.optim import Optim, Optimiser
from mingshi.types import Chat, Message, Sample

CHATS = [
    Chat(
        id=str(number),
        source="",
        line=number,
        group="",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Say a number. " * number),
            Message(role="assistant", content=f"{number} and {number + 1}"),
        ),
    )
    for number in range(1, 5)
]
TEXT = torch.arange(3, 60)[None]

# Each kind as it comes, and what LoRA can be besides.
CASES: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in ADAPTERS} | {
    "dora": {"kind": "lora", "dora": True},
    "rslora": {"kind": "lora", "rslora": True, "rank": 4},
    "pissa": {"kind": "lora", "start": "pissa", "rank": 4},
    "lora+": {"kind": "lora", "up_rate": 16, "targets": ("q_proj", "model.layers.1.*")},
}
WHOLE = ("full", "last-layers", "bias")  # saved as models, not beside one
DRAWN = ("lora", "adalora", "qlora", "dora", "rslora", "lora+")  # what they start from is drawn
ROUNDED = ("pissa",)  # its base is taken apart and put together again
SHORTENED = ("pissa", "adalora")  # what is saved is a sum of other terms, and so rounded another way

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (mingshi[qlora])"
)


def cases(*left_out: str) -> Any:
    names = [name for name in CASES if name not in left_out]
    marks = {"qlora": needs_bitsandbytes}
    return pytest.mark.parametrize("case", [pytest.param(one, marks=marks.get(one, ())) for one in names])


def kinds() -> Any:
    return pytest.mark.parametrize("case", ADAPTERS)


def remade(place: Path, **changes: Any) -> Path:
    """The same model with other settings, and numbers in all of its weights."""
    model = load(place, precision="float32")
    torch.manual_seed(0)
    network = type(model.network)._from_config(
        type(model.network.config)(**model.network.config.to_dict() | changes), dtype=torch.float32
    )
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(place)
    return place


@cache
def base(*, template: bool = True, tied: bool = True) -> Path:
    """A small Llama with biases; without a template, the turns are marked with tokens that it has yet to learn."""
    place = tiny_model(Path(mkdtemp()) / "base", **({} if template else {"template": None}))
    return remade(place, attention_bias=True, mlp_bias=True, tie_word_embeddings=tied)


@torch.no_grad()
def logits(model: Model, text: torch.Tensor = TEXT) -> torch.Tensor:
    model.network.eval()
    found: torch.Tensor = model.network(input_ids=text).logits
    return found


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def attached(place: Path, case: str, *, seed: int = 0, precision: Any = "float32") -> tuple[Model, Any]:
    model = load(place, precision=precision)
    adapter: Any = TypeAdapter(Adapter).validate_python(CASES[case])
    return model, adapter.attach(model, seed=seed)


def stage(model: Model, held: Any, *, steps: int = 4, budget: int = 4096) -> Work:
    """On conversations as the model's own template renders them."""
    rows = [one for chat in CHATS if isinstance(one := Sft().encode(chat, model.text), Sample)]
    plain = work(model.network, rows, batch=4, steps=steps, budget=budget)
    optimiser = Optimiser(model.network.named_parameters(), Optim(weight_decay=0.01), rate=held.rate)
    return replace(plain, adapter=held, optimiser=optimiser)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in model.network.named_parameters()}


@dataclass(frozen=True)
class Trained:
    """One adapter's short life, and what was seen of it on the way. Tests look, and change nothing."""

    model: Model
    first: dict[str, torch.Tensor]  # weights as attached
    last: dict[str, torch.Tensor]
    start: torch.Tensor  # logits as attached
    end: torch.Tensor
    losses: list[float]
    saved: Path


@cache
def trained(case: str, *, template: bool = True, tied: bool = True) -> Trained:
    model, held = attached(base(template=template, tied=tied), case)
    first, start = weights(model), logits(model)
    losses = [step.loss for step in train(stage(model, held))]
    last, end = weights(model), logits(model)
    return Trained(model, first, last, start, end, losses, saved(model))


def saved(model: Model) -> Path:
    return export.save(model, Path(mkdtemp()) / "saved", facts={}, card="")


# Where it starts


@cases("qlora")
def test_attached_it_leaves_the_function_unchanged(case: str) -> None:
    plain = logits(load(base(), precision="float32"))
    start = trained(case).start
    assert gap(start, plain) < 1e-6 if case in ROUNDED else torch.equal(start, plain)


@cases()
def test_the_seed_alone_decides_where_it_starts(case: str) -> None:
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(starts))
        starts.append(weights(attached(base(), case, seed=seed)[0]))
    assert all(torch.equal(one, starts[1][name]) for name, one in starts[0].items())
    if case not in ROUNDED:
        assert all(torch.equal(one, starts[2][name]) for name, one in starts[0].items()) == (case not in DRAWN)


@kinds()
def test_its_default_rate_says_why(case: str) -> None:
    rate, reason = ADAPTERS[case]().default_learning_rate()
    assert 1e-6 < rate < 1e-1 and reason


@kinds()
def test_a_recipe_says_all_of_it(case: str) -> None:
    """What is dumped is read back; a key that it does not know is refused."""
    adapter: Any = TypeAdapter(Adapter).validate_python(CASES[case])
    assert type(adapter) is ADAPTERS[case]
    assert TypeAdapter(Adapter).validate_json(adapter.model_dump_json()) == adapter
    with pytest.raises(ValidationError):
        TypeAdapter(Adapter).validate_python({**CASES[case], "rnak": 4})


@kinds()
def test_every_field_is_explained(case: str) -> None:
    assert (ADAPTERS[case].__doc__ or "").strip()
    plain = {"kind", "rank", "dropout"}
    assert all(field.description for name, field in ADAPTERS[case].model_fields.items() if name not in plain)


# What it trains


@cases()
def test_all_of_its_weights_move_and_no_others(case: str) -> None:
    """The first step asks for gradients besides: it would have ended otherwise."""
    life = trained(case)
    moved = {name for name, one in life.first.items() if not torch.equal(one, life.last[name])}
    model, _ = attached(base(), case)
    assert moved == {name for name, one in model.network.named_parameters() if one.requires_grad}
    assert life.losses[-1] < life.losses[0]


@cases()
def test_its_share_is_what_moves(case: str) -> None:
    model, _ = attached(base(), case)
    trains, whole = trainable(model.network)
    assert trains == sum(one.numel() for one in model.network.parameters() if one.requires_grad)
    plain = sum(one.numel() for one in load(base(), precision="float32").network.parameters())
    assert 0 < trains <= whole and plain <= whole <= plain + trains + 100  # AdaLoRA counts its ranks in weights


@cases()
def test_streams_of_any_length_train_it_alike(case: str) -> None:
    """Gradient accumulation: one sum over the step, and whatever the adapter adds to it once."""
    found = []
    for budget in (1, 1 << 20):
        model, held = attached(base(), case)
        found.append(list(train(stage(model, held, steps=3, budget=budget))))
    for one, other in zip(*found, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-5)


@cases()
def test_resumed_it_goes_on_bit_for_bit(case: str) -> None:
    """After two of four steps, in a network that was attached anew."""
    model, held = attached(base(), case)
    half = stage(model, held)
    steps = train(half)
    before = [next(steps), next(steps)]
    kept = {part: {name: one.clone() for name, one in values.items()} for part, values in half.tensors().items()}
    again, anew = attached(base(), case)
    rest = stage(again, anew)
    rest.restore(kept)
    after = list(train(rest, start=2))
    assert [step.loss for step in before + after] == trained(case).losses
    assert all(torch.equal(one, trained(case).last[name]) for name, one in weights(again).items())
    for part, values in rest.tensors().items():
        assert all(torch.isfinite(one).all() for one in values.values()), part


@cases()
def test_in_bfloat16_it_trains_in_float32(case: str) -> None:
    model, held = attached(base(), case, precision="bf16")
    steps = stage(model, held, steps=3)
    assert {weight.master.dtype for weight in steps.optimiser.weights} == {torch.float32}
    assert all(torch.isfinite(torch.tensor(step.loss)) for step in train(steps))
    again = load(saved(model), precision="bf16")
    assert gap(logits(again), logits(model)) < (2e-2 if case in SHORTENED else 1e-9)


# What becomes of it


@cases()
def test_merged_it_computes_the_same(case: str) -> None:
    model, held = attached(base(), case)
    list(train(stage(model, held)))
    before = logits(model)
    fold(model)
    assert (model.adapter, model.quantised, model.start) == (None, False, {})
    names = [name for name, _ in model.network.named_modules()]
    assert names == [name for name, _ in load(base(), precision="float32").network.named_modules()]
    assert gap(logits(model), before) < 1e-5
    assert torch.equal(logits(load(saved(model), precision="float32")), logits(model))


@pytest.mark.parametrize("template", [True, False])
@cases()
def test_saved_and_loaded_it_is_the_same(case: str, template: bool) -> None:
    life = trained(case, template=template)
    again = load(life.saved, precision="float32")
    assert gap(logits(again), life.end) < 1e-5 if case in SHORTENED else torch.equal(logits(again), life.end)
    assert not torch.equal(life.end, life.start)
    assert (again.adapter is None) == (case in WHOLE)
    assert again.template.jinja == life.model.template.jinja
    assert again.template.stop == life.model.template.stop
    assert all(check.passed for check in export.verify(life.saved))


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys")
@cases("qlora")
def test_others_read_what_was_saved(case: str) -> None:
    """transformers, and peft where there is an adapter, in their own attention."""
    life = trained(case)
    if case in WHOLE:
        theirs: Any = AutoModelForCausalLM.from_pretrained(life.saved, dtype=torch.float32)
    else:
        plain = AutoModelForCausalLM.from_pretrained(base(), dtype=torch.float32)
        theirs = PeftModel.from_pretrained(plain, life.saved)
    with torch.no_grad():
        assert gap(theirs.eval()(input_ids=TEXT).logits, life.end) < 1e-5


@cases(*WHOLE)
def test_it_is_folded_into_a_model_with_proof(case: str, tmp_path: Path) -> None:
    proof = export.merge(trained(case).saved, tmp_path / "merged", precision=torch.float32, limit=1e-6)
    assert proof.agreement == 1.0 and proof.positions > 20
    assert gap(logits(load(tmp_path / "merged", precision="float32")), trained(case).end) < 1e-5


@cases()
def test_another_one_attached_later_starts_from_what_was_learnt(case: str) -> None:
    """The next stage, or a model that was asked for by its adapter's folder."""
    life = trained(case)
    again = load(life.saved, precision="float32")
    Lora(rank=2, targets=("q_proj",)).attach(again, seed=1)
    assert gap(logits(again), life.end) < 1e-5
    assert again.changed == (life.model.adapter is not None)


# New tokens


@pytest.mark.parametrize("tied", [True, False])
@cases()
def test_new_tokens_are_learnt_and_kept(case: str, tied: bool) -> None:
    life = trained(case, template=False, tied=tied)
    new = list(life.model.text.new_tokens)
    assert len(new) == 4 and set(new) <= set(life.model.tokenizer.all_special_ids)
    prompt = torch.tensor([life.model.template.prompt((Message(role="user", content="Hello?"),))])
    again = load(life.saved, precision="float32")
    assert gap(logits(again, prompt), logits(life.model, prompt)) < 1e-5
    assert again.network.config.tie_word_embeddings == tied and again.text.new_tokens == ()

    fold(again)
    plain = load(base(template=False, tied=tied), precision="float32")
    old = [row for row in range(len(plain.tokenizer)) if row not in new]
    for end, begin in zip(ends(again), ends(plain), strict=True):
        assert not bool((end[new] == begin[new]).all(-1).any())
        if case != "full" and not (case == "last-layers" and begin is ends(plain)[1] and not tied):
            assert torch.equal(end[old], begin[old])
    assert (ends(again)[0] is ends(again)[1]) == tied


def ends(model: Model) -> list[torch.Tensor]:
    return [model.network.get_input_embeddings().weight, model.network.get_output_embeddings().weight]


@pytest.mark.parametrize("tied", [True, False])
@cases(*WHOLE)
def test_new_tokens_cost_their_own_rows_and_no_more(case: str, tied: bool) -> None:
    from safetensors.torch import load_file

    sizes = []
    for template in ("turns", "zh-instruction"):
        model = load(base(template=False, tied=tied), precision="float32", template=template)
        TypeAdapter[Any](Adapter).validate_python(CASES[case]).attach(model, seed=0)
        tensors = load_file(saved(model) / "adapter_model.safetensors")
        sizes.append(sum(one.numel() for one in tensors.values()))
    assert sizes[0] - sizes[1] == 4 * 32 * (1 if tied else 2)
