"""Merged folders compute the merged weights, say what they came from, and refuse what does not belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from mingshi.errors import ModelError, RecipeError
from mingshi.model import export
from mingshi.model.adapters import ADAPTERS, fold
from mingshi.model.load import load, read_saved
from mingshi.model.merging import Merge, ties
from mingshi.model.merging_files import merge_folders

State = dict[str, torch.Tensor]


def trained(base: Path, folder: Path, *, seed: int, kind: str = "lora", **told: Any) -> Path:
    """A saved model or adapter whose weights were moved at random."""
    model = load(base, precision="float32")
    ADAPTERS[kind](**told).attach(model, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    facts = {"kind": "adapter" if model.adapter else "model", "base": str(base), "run": f"run-{seed}"}
    return export.save(model, folder, facts=facts, card="# A")


def state(folder: Path) -> State:
    model = load(folder, precision="float32")
    fold(model)
    return {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}


def added(folder: Path, base: Path) -> State:
    start = state(base)
    return {name: value - start[name] for name, value in state(folder).items()}


def gap(found: State, expected: State) -> float:
    """Relative, over all weights (Frobenius)."""
    lost = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    whole = sum(float(value.square().sum()) for value in expected.values())
    return float((lost / whole) ** 0.5)


def summed(states: Sequence[State], weights: Sequence[float]) -> State:
    return {
        name: sum((weight * one[name] for one, weight in zip(states, weights, strict=True)), torch.tensor(0.0))
        for name in states[0]
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of different ranks, scales and layers."""
    place = tmp_path_factory.mktemp("adapters")
    return [
        trained(base, place / "one", seed=1, rank=4),
        trained(base, place / "two", seed=2, rank=2, alpha=3.0, targets=["q_proj", "down_proj"]),
        trained(base, place / "three", seed=3, rank=3, rslora=True),
    ]


@pytest.fixture(scope="module")
def wholes(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("wholes")
    return [trained(base, place / str(seed), seed=seed, kind="full") for seed in (1, 2)]


def test_concatenated_adapters_are_the_sum_of_their_updates(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    weights = (1.0, -0.5, 2.0)
    done = merge_folders(adapters, tmp_path / "out", Merge(method="cat", weights=weights))
    assert (done.kind, done.rank, done.truncation) == ("adapter", 9, None)
    expected = summed([added(folder, base) for folder in adapters], weights)
    assert gap(added(tmp_path / "out", base), expected) < 1e-5
    assert all(check.passed for check in export.verify(tmp_path / "out"))


def test_an_average_of_adapters_is_an_adapter_too(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    merge_folders(adapters, tmp_path / "out", Merge(method="average", scale=0.5))
    expected = summed([added(folder, base) for folder in adapters], [0.5 / 3] * 3)
    assert gap(added(tmp_path / "out", base), expected) < 1e-5


def test_a_chosen_rank_loses_what_it_says(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    done = merge_folders(adapters, tmp_path / "out", Merge(method="svd"))
    expected = summed([added(folder, base) for folder in adapters], [1.0] * 3)
    assert done.rank == 4 and done.truncation is not None and 0.05 < done.truncation < 1
    assert gap(added(tmp_path / "out", base), expected) == pytest.approx(done.truncation, abs=1e-4)
    all_of_it = merge_folders(adapters, tmp_path / "all", Merge(method="svd", rank=9))
    assert all_of_it.truncation is not None and all_of_it.truncation < 1e-5


def test_ties_of_adapters_works_on_their_updates_never_on_a_and_b(
    base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    how = Merge(method="ties", density=0.5)
    done = merge_folders(adapters, tmp_path / "out", how, precision=torch.float32)
    assert done.kind == "merged" and done.rank is None
    each = [added(folder, base) for folder in adapters]
    expected = {name: ties([one[name] for one in each], [1.0] * 3, density=0.5) for name in each[0]}
    assert gap(added(tmp_path / "out", base), expected) < 1e-5
    cut = merge_folders(adapters, tmp_path / "cut", Merge(method="ties", density=0.5, rank=32))
    assert cut.kind == "adapter" and cut.truncation is not None and cut.truncation < 1e-5
    assert gap(added(tmp_path / "cut", base), expected) < 1e-5


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 0.5)])
def test_whole_models_are_merged_by_task_vectors_norms_included(
    base: Path, wholes: list[Path], weights: tuple[float, ...], tmp_path: Path
) -> None:
    how = Merge(method="arithmetic", weights=weights, scale=0.5)
    merge_folders(wholes, tmp_path / "out", how, precision=torch.float32)
    expected = summed([added(folder, base) for folder in wholes], [0.5 * weight for weight in weights])
    assert gap(added(tmp_path / "out", base), expected) < 1e-5
    assert all(check.passed for check in export.verify(tmp_path / "out"))
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")  # tied: one weight, merged once


def test_one_model_goes_part_of_the_way_from_its_base(base: Path, wholes: list[Path], tmp_path: Path) -> None:
    merge_folders(wholes[:1], tmp_path / "out", Merge(method="arithmetic", scale=0.3), precision=torch.float32)
    start, end, found = state(base), state(wholes[0]), state(tmp_path / "out")
    assert gap(found, {name: 0.7 * start[name] + 0.3 * end[name] for name in start}) < 1e-6


def test_an_adapter_and_a_whole_model_can_be_averaged(
    base: Path, adapters: list[Path], wholes: list[Path], tmp_path: Path
) -> None:
    parts = [adapters[0], wholes[0]]
    merge_folders(parts, tmp_path / "out", Merge(method="average"), precision=torch.float32)
    expected = summed([added(folder, base) for folder in parts], [0.5, 0.5])
    assert gap(added(tmp_path / "out", base), expected) < 1e-5


def test_dare_repeats_itself_under_a_seed_and_not_under_another(adapters: list[Path], tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        merge_folders(adapters, tmp_path / name, Merge(method="dare", seed=seed), precision=torch.float32)
    one, again, other = (state(tmp_path / name) for name in ("one", "again", "other"))
    assert gap(one, again) == 0 and gap(one, other) > 1e-4


def test_rows_of_new_tokens_are_averaged(tmp_path: Path) -> None:
    bare = tiny_model(tmp_path / "bare", template=None)
    parts = [trained(bare, tmp_path / str(seed), seed=seed, rank=2) for seed in (1, 2)]
    merge_folders(parts, tmp_path / "out", Merge(method="cat", weights=(3.0, 1.0)))
    merge_folders(parts, tmp_path / "whole", Merge(method="ties", weights=(3.0, 1.0)), precision=torch.float32)
    name = "model.embed_tokens.weight"
    first, second, out, whole = (state(folder)[name] for folder in (*parts, tmp_path / "out", tmp_path / "whole"))
    assert len(first) > 400 and not torch.equal(first[400:], second[400:])
    torch.testing.assert_close(out[400:], 0.75 * first[400:] + 0.25 * second[400:])
    torch.testing.assert_close(whole, out)
    assert load(tmp_path / "out").template.jinja == load(parts[0]).template.jinja


def test_a_merge_says_what_it_came_from(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    merge_folders(adapters[:2], tmp_path / "out", Merge(method="cat", weights=(1.0, 0.5)))
    told = read_saved(tmp_path / "out")
    assert told["kind"] == "adapter" and told["base"] == str(base) and told["rank"] == 6
    lineage = told["merged"]
    assert lineage["method"] == "cat" and list(lineage["base_files"]) == ["model.safetensors"]
    assert [(part["name"], part["run"], part["factor"]) for part in lineage["parts"]] == [
        ("one", "run-1", 1.0),
        ("two", "run-2", 0.5),
    ]
    name = "adapter_model.safetensors"
    assert lineage["parts"][0]["files"] == {name: read_saved(adapters[0])["files"][name]}


def test_models_that_do_not_belong_together_are_refused(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    other = trained(tiny_model(tmp_path / "elsewhere", seed=5), tmp_path / "other", seed=4, rank=4)
    renders = trained(tiny_model(tmp_path / "bare", template=None), tmp_path / "renders", seed=4, rank=4)
    with pytest.raises(ModelError) as error:
        merge_folders([adapters[0], other, renders], tmp_path / "out", Merge(method="cat"))
    said = str(error.value)
    assert f"{other}: base: comes from" in said
    assert f"{renders}: tokenizer: has another tokenizer" in said and f"{renders}: template: renders" in said
    assert f"{renders}: new tokens:" in said and not (tmp_path / "out").exists()


def test_a_copy_of_the_base_is_the_same_base(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    copy = tiny_model(tmp_path / "copy")
    other = trained(copy, tmp_path / "other", seed=4, rank=4)
    assert merge_folders([adapters[0], other], tmp_path / "out", Merge(method="cat")).base == str(base)


@pytest.mark.parametrize(
    ("kind", "told", "said"),
    [
        ("ia3", {}, "a IA3 adapter"),
        ("lora", {"dora": True}, "a DoRA adapter"),
    ],
)
def test_what_is_no_sum_is_refused(
    kind: str, told: dict[str, Any], said: str, base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    other = trained(base, tmp_path / "other", seed=4, kind=kind, **told)
    with pytest.raises(ModelError, match=said):
        merge_folders([adapters[0], other], tmp_path / "out", Merge(method="cat"))


def test_whole_models_do_not_become_adapters(wholes: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="svd is for adapters"):
        merge_folders(wholes, tmp_path / "out", Merge(method="svd"))


def test_weights_of_another_size_are_named(base: Path, wholes: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for path in wholes[0].iterdir():
        (odd / path.name).write_bytes(path.read_bytes())
    weights = load_file(odd / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(8)
    weights["lm_head.bias"] = torch.ones(3)
    save_file(weights, odd / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as error:
        merge_folders([wholes[1], odd], tmp_path / "out", Merge(method="average"))
    assert "has lm_head.bias" in str(error.value) and "model.norm.weight is of size (8,)" in str(error.value)


def test_nothing_is_written_over(adapters: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="is there already"):
        merge_folders(adapters, tmp_path, Merge(method="cat"))
    with pytest.raises(ModelError, match="2 weights for 3 models"):
        merge_folders(adapters, tmp_path / "out", Merge(method="cat", weights=(1.0, 2.0)))


def test_a_base_that_is_nowhere_said_is_asked_for(base: Path, wholes: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in wholes[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    told = orjson.loads((copy / "mingshi.json").read_bytes())
    del told["base"]
    (copy / "mingshi.json").write_bytes(orjson.dumps(told))
    with pytest.raises(ModelError, match="--base"):
        merge_folders([copy], tmp_path / "out", Merge(method="arithmetic"))
    merge_folders([copy], tmp_path / "out", Merge(method="arithmetic"), base=str(base), precision=torch.float32)
    assert gap(state(tmp_path / "out"), state(wholes[0])) < 1e-6
