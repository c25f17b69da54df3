"""`mingshi merge` of several models: adapters side by side, and what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch
from tiny import tiny_model

from mingshi.model import export
from mingshi.model.adapters import Lora
from mingshi.model.load import load, read_saved

from .conftest import Command


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    base = tiny_model(folder / "base")
    made = []
    for name in ("one", "two"):
        model = load(base, precision="float32")
        Lora(rank=4).attach(model, seed=0)
        with torch.no_grad():
            for parameter in model.network.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape), alpha=0.05)
        facts = {"kind": "adapter", "base": str(base), "run": name}
        made.append(export.save(model, folder / name, facts=facts, card="# A"))
    return made


def test_merged_adapters_are_told_and_verified(adapters: list[Path], mingshi: Command, tmp_path: Path) -> None:
    both = tmp_path / "both"
    said = mingshi("merge", *adapters, "--output", both, "--method", "cat", "--weights", "0.5,1", "--json")
    told = orjson.loads(said.out)
    assert told["kind"] == "adapter" and told["rank"] == 8 and told["truncation"] is None
    assert [part["factor"] for part in read_saved(both)["merged"]["parts"]] == [0.5, 1.0]
    assert mingshi("verify", both).code == 0
    said = mingshi("merge", *adapters, tmp_path / "half", "--method", "svd", "--scale", "0.5", "--rank", "2")
    assert said.code == 0 and "rank 2" in said.out and "of the update's norm is lost" in said.out


def test_one_adapter_without_a_method_is_folded(adapters: list[Path], mingshi: Command, tmp_path: Path) -> None:
    told = orjson.loads(mingshi("merge", adapters[0], tmp_path / "whole", "--precision", "float32", "--json").out)
    assert told["kl"] < 1e-6 and told["agreement"] == 1.0
    again = mingshi("merge", adapters[0], tmp_path / "whole")
    assert again.code == 2 and "is there already" in again.err
    assert mingshi("merge", tmp_path / "whole", tmp_path / "new").code == 4  # holds no adapter


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "mean"), "--method"),
        (("--method", "ties", "--density", "2"), "--density"),
        (("--method", "cat", "--weights", "a,b"), "are no numbers"),
        (("--scale", "0.5"), "and no --method"),
        (("--precision", "int4"), "no precision"),
    ],
)
def test_what_does_not_fit_is_told(
    arguments: tuple[str, ...], said: str, adapters: list[Path], mingshi: Command, tmp_path: Path
) -> None:
    done = mingshi("merge", *adapters, "--output", tmp_path / "new", *arguments)
    assert done.code == 2 and said in done.err and not (tmp_path / "new").exists()


def test_a_place_to_write_to_is_asked_for(adapters: list[Path], mingshi: Command) -> None:
    done = mingshi("merge", adapters[0])
    assert done.code == 2 and "--output" in done.err
    done = mingshi("merge", adapters[0], "--output", adapters[0].parent / "new", "--scale", "0.5")
    assert done.code == 2 and "need a --method" in done.err
