"""A network without weights has the paths and shapes of the one that is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encoders import body, tiny_encoder
from tiny import tiny_model

from mingshi.errors import ModelError
from mingshi.model.adapters import ADAPTERS, LastLayers, Lora
from mingshi.model.heads import Classes
from mingshi.model.load import load
from mingshi.model.skeleton import skeleton

CLASSES = Classes(names=("a", "b", "c"), problem="single_label", pooling="mean")


@pytest.mark.parametrize("family", ["llama", "bert", "roberta", "distilbert", "modernbert", "language"])
def test_every_adapter_goes_where_it_goes_in_the_loaded_network(family: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_model(tmp_path) if family == "language" else body(tmp_path, family)
    classes = None if family == "language" else CLASSES
    torch.manual_seed(7)
    shape, drawn = skeleton(str(folder), classes=classes), torch.rand(1)
    torch.manual_seed(7)
    assert drawn == torch.rand(1), "no random number is used up"
    network = load(folder, precision="float32", classes=classes).network
    assert {parameter.device.type for parameter in shape.parameters()} == {"meta"}
    assert [(name, one.shape) for name, one in shape.named_parameters()] == [
        (name, one.shape) for name, one in network.named_parameters()
    ]
    for kind in ADAPTERS.values():
        adapter = kind()
        try:
            wanted = adapter.places(network)
        except ModelError as error:
            with pytest.raises(ModelError) as caught:
                adapter.places(shape)
            assert str(caught.value) == str(error)
        else:
            assert adapter.places(shape) == wanted


def test_an_adapters_folder_has_the_shape_of_its_base(tmp_path: Path) -> None:
    from mingshi.model import export

    model = load(tiny_model(tmp_path / "model"), precision="float32")
    before = LastLayers(blocks=1).places(model.network)
    Lora(rank=2).attach(model, seed=0)
    export.save(model, tmp_path / "adapter", facts={"base": str(tmp_path / "model"), "kind": "adapter"}, card="")
    assert LastLayers(blocks=1).places(skeleton(str(tmp_path / "adapter"))) == before


def test_a_saved_classifier_is_one_without_being_asked(tmp_path: Path) -> None:
    from mingshi.model import export

    model = load(body(tmp_path / "model", "bert"), precision="float32", classes=CLASSES)
    export.save(model, tmp_path / "saved", facts={"base": str(tmp_path / "model"), "kind": "model"}, card="")
    again = skeleton(str(tmp_path / "saved"))
    assert LastLayers(blocks=0).places(again) == LastLayers(blocks=0).places(model.network)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("opened", [load, skeleton])
def test_an_encoder_is_no_language_model(family: str, opened: object, tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path, family=family)
    with pytest.raises(ModelError, match=rf"an encoder \({family}\), which reads texts .*objective classify"):
        opened(str(folder))  # type: ignore[operator]


def test_a_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        skeleton(str(tmp_path))
