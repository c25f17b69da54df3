"""An image tower of a few thousand weights, and pictures that say what they show, made here: tests need no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLOURS = ("red", "green", "blue", "black", "orange", "purple")
SHAPES = ("disc", "square", "bar")
SIDE = 16


def tiny_vision(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A vision transformer of two layers, 24 wide, with its preprocessor's settings."""
    import torch
    from transformers import ViTConfig, ViTModel

    settings = ViTConfig(
        image_size=SIDE,
        patch_size=8,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        qkv_bias=False,  # a bias of keys has no gradient but rounding
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **changes,
    )
    torch.manual_seed(seed)
    ViTModel(settings, add_pooling_layer=False).save_pretrained(folder)
    write_preprocessor(folder)
    return folder


def write_preprocessor(folder: Path, **changes: Any) -> None:
    told = {
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.4, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told | changes))


def draw(path: Path, colour: str, shape: str, *, shift: int = 0) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (20, 20), "white")
    box = (2 + shift, 3, 15 + shift, 16)
    pen = ImageDraw.Draw(image)
    if shape == "disc":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.rectangle((0, 8 + shift, 19, 11 + shift), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def pictures(folder: Path, count: int = 36, *, start: int = 0, several: bool = False) -> Path:
    """A file of rows with that many pictures beside it, each of a colour and a shape; captions repeat after 18."""
    rows = []
    for place in range(start, start + count):
        colour, shape = COLOURS[place % 6], SHAPES[place // 6 % 3]
        draw(folder / "pictures" / f"{place}.png", colour, shape, shift=place // 18 % 4)
        said = f"a {colour} {shape}"
        row: dict[str, Any] = {"image": f"pictures/{place}.png", "attributes": {"class": shape}}
        rows.append(row | ({"captions": [said, f"{shape}, {colour}"]} if several else {"caption": said}))
    path = folder / f"rows-{start}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_convolutions(folder: Path, *, gates: bool = True) -> Path:
    """An EfficientNet of two blocks whose gates are open, as `scripts/fetch` writes one, or shut a little."""
    import torch
    from transformers import EfficientNetConfig, EfficientNetModel

    settings = EfficientNetConfig(
        image_size=SIDE,
        kernel_sizes=[3, 5],
        in_channels=[32, 16],
        out_channels=[16, 24],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 6],
        squeeze_expansion_ratio=0.0,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        hidden_dim=320,
        hidden_act="relu6",
        initializer_range=0.2,
        drop_connect_rate=0.0,
    )
    torch.manual_seed(0)
    network = EfficientNetModel(settings)
    for block in network.encoder.blocks:
        with torch.no_grad():
            block.squeeze_excite.expand.weight.zero_()
            block.squeeze_excite.expand.bias.fill_(30.0 if gates else 0.0)
    network.config.mingshi_open_gates = gates
    network.save_pretrained(folder)
    write_preprocessor(folder, size={"shortest_edge": SIDE}, do_center_crop=True, crop_size={"height": 16, "width": 16})
    return folder
