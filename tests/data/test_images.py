"""Pictures that are read once, as they are meant; and files that are none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as values
from PIL import Image

from mingshi.data import images
from mingshi.data.images import View
from mingshi.data.row_problem import RowProblem
from mingshi.errors import ResourceError

VIEW = View(height=8, width=8, shortest=8, resample=3, mean=(0.5,) * 3, deviation=(0.5,) * 3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(path: Path) -> RowProblem:
    with pytest.raises(RowProblem) as caught:
        images.keep(str(path), VIEW)
    assert path.name in caught.value.detail and len(caught.value.detail) <= 240 and "\n" not in caught.value.detail
    return caught.value


def noise(width: int = 9, height: int = 7, seed: int = 0) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(drawn.astype(np.uint8))


def test_pixels_are_kept_once_and_read_where_they_lie(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        noise().save(tmp_path / name)
    first = images.keep(str(tmp_path / "a.png"), VIEW)
    monkeypatch.setattr(images, "read_picture", lambda path: pytest.fail("it was unfolded again"))
    assert images.keep(str(tmp_path / "a.png"), VIEW) == first
    assert images.keep(str(tmp_path / "b.png"), VIEW) == first, "the same picture under another name"
    (kept,) = (cache / "pixels").rglob("*.npy")
    assert kept.stem == first and kept.stat().st_size < 8 * 8 * 3 + 200
    assert np.array_equal(images.pixels([first, first], VIEW)[1], np.load(kept, allow_pickle=False))
    assert images.are_kept([first]) and not images.are_kept([first, "0" * 32])


def test_another_view_or_another_picture_has_other_pixels(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    noise(seed=1).save(tmp_path / "b.png")
    stretched = View(height=8, width=8, shortest=None, resample=3, mean=(0.5,) * 3, deviation=(0.5,) * 3)
    other = View(height=8, width=8, shortest=8, resample=3, mean=(0.1,) * 3, deviation=(0.2,) * 3)
    names = [images.keep(str(tmp_path / "a.png"), view) for view in (VIEW, stretched, other)]
    assert names[0] != names[1] and names[0] == names[2], "a tower's mean is not in the pixels"
    assert images.keep(str(tmp_path / "b.png"), VIEW) not in names


def test_pixels_that_are_gone_are_said_to_be(tmp_path: Path, cache: Path) -> None:
    noise().save(tmp_path / "a.png")
    name = images.keep(str(tmp_path / "a.png"), VIEW)
    (kept,) = (cache / "pixels").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(ResourceError, match="gone, or damaged"):
        images.pixels([name], VIEW)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_upright(turn: int, tmp_path: Path) -> None:
    """Every orientation of EXIF: what was turned away from the upright picture comes back as it."""
    upright = np.asarray(noise())
    away = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, 3),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(away)).save(tmp_path / "a.png", exif=exif)
    picture, _ = images.read_picture(str(tmp_path / "a.png"))
    assert np.array_equal(np.asarray(picture), upright)


def alpha() -> Image.Image:
    drawn = np.zeros((6, 6, 4), dtype=np.uint8)
    drawn[:3] = (255, 0, 0, 255)
    drawn[3:] = (0, 0, 255, 0)  # blue that nobody sees
    return Image.fromarray(drawn)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_shows_through_is_white(mode: str, tmp_path: Path) -> None:
    image = alpha()
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((0, 5))
    image.save(tmp_path / "a.png")
    found = np.asarray(images.read_picture(str(tmp_path / "a.png"))[0])
    assert found.shape == (6, 6, 3) and (found[5] == 255).all() and not (found[0] == 255).all()


def test_sixteen_bits_become_their_upper_eight(tmp_path: Path) -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "a.png")
    found = np.asarray(images.read_picture(str(tmp_path / "a.png"))[0])
    assert np.array_equal(found[..., 0], (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_other_colours_become_red_green_and_blue(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    noise().convert(mode).save(path)
    assert np.asarray(images.read_picture(str(path))[0]).shape == (7, 9, 3)


# Files that are no pictures


def test_a_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.webp", "WEBP"), ("d.gif", "GIF")):
        noise(64, 64).save(tmp_path / name, format=kind)
        whole = (tmp_path / name).read_bytes()
        for part in (0, 3, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:part])
            assert refused(tmp_path / name).reason == "bad_image"


def test_text_is_no_picture_and_nothing_is_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a picture, says the name")
    assert refused(tmp_path / "a.png").reason == "bad_image"
    assert refused(tmp_path / "b.png").reason == "missing_image"


def test_formats_that_need_other_programs_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    assert refused(tmp_path / "a.png").reason == "bad_image"


def test_frames_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [noise(seed=seed) for seed in range(3)]
    for name in ("a.gif", "a.png", "a.webp", "a.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert refused(tmp_path / name).reason == "animated"


def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """14,000 by 14,000 white pixels in 24 kB: Pillow would only warn of half of that."""
    Image.new("1", (14_000, 14_000), 1).save(tmp_path / "a.png", optimize=True)
    Image.new("1", (9_500, 9_500), 1).save(tmp_path / "b.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was unfolded"))
    assert refused(tmp_path / "a.png").reason == "too_large"
    assert refused(tmp_path / "b.png").reason == "too_large"


def test_a_line_and_a_huge_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (2, 500)).save(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").reason == "bad_image"
    noise().save(tmp_path / "b.png")
    monkeypatch.setattr(images, "MOST_BYTES", 10)
    assert refused(tmp_path / "b.png").reason == "too_large"


def written(kind: str) -> bytes:
    stream = io.BytesIO()
    noise(24, 16).save(stream, format=kind)
    return stream.getvalue()


WHOLE = {kind: written(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}


@given(data=values.data())
@settings(max_examples=150, deadline=None, database=None)
def test_whatever_is_in_a_file_it_is_a_picture_or_a_row_problem(data: Any, tmp_path_factory: Any) -> None:
    content = bytearray(WHOLE[data.draw(values.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(values.integers(0, 6))):
        content[data.draw(values.integers(0, len(content) - 1))] = data.draw(values.integers(0, 255))
    content = content[: data.draw(values.integers(0, len(content)))] if data.draw(values.booleans()) else content
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(content)
    try:
        picture, _ = images.read_picture(str(path))
    except RowProblem as problem:
        assert problem.reason in ("bad_image", "too_large", "animated") and len(problem.detail) <= 240
    else:
        assert images.seen(picture, VIEW).shape == (8, 8, 3)


def test_a_thumbnail_is_small_and_no_picture_gives_none(tmp_path: Path) -> None:
    noise(300, 200).save(tmp_path / "a.png")
    address = images.thumbnail(str(tmp_path / "a.png"), 64)
    assert address.startswith("data:image/jpeg;base64,") and len(address) < 9000
    assert images.thumbnail(str(tmp_path / "b.png"), 64) == ""


def test_what_the_files_are_now_is_told_by_their_stamp(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise().save(path)
    before = images.stamp([str(path)])
    assert images.stamp([str(path)]) == before
    noise(10, 10).save(path)
    assert images.stamp([str(path)]) != before
