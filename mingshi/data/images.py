"""Pictures: read once, made what a tower sees, and kept as pixels that later epochs and runs find again.

A picture's pixels are one `.npy` file, `[H, W, 3]` uint8, named after a hash of the file's bytes and of how it is seen:
whatever rows and runs name the same picture share it, and no more of it is in memory than what a batch asks for.

A file comes from anywhere, so little is believed of it: only the formats below are opened, what would unfold to more
pixels than `MOST_PIXELS` is refused before it is unfolded, and a file that breaks off is no picture.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mingshi.data.row_problem import RowProblem
from mingshi.errors import ResourceError
from mingshi.model.assets import cache_root

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMAT = 1  # of the pixels: counted up when they are made otherwise
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # of files; others need more code than is trusted here
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MOVING = ("PNG", "WEBP", "GIF", "TIFF")  # those whose files may hold several pictures that belong to one
MOST_PIXELS = 89_478_485  # a quarter of a gigabyte unfolded: where Pillow begins to warn
MOST_BYTES = 256 << 20  # of a file
LONGEST = 100  # times the shorter side
MISSING = "Install the extra: pip install 'mingshi[vision]'."


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a tower sees of a picture."""

    height: int
    width: int
    shortest: int | None  # the shorter side is brought to this, and the middle cut out; None: all of it is stretched
    resample: int  # Pillow's number of the filter: 2 is bilinear, 3 bicubic
    mean: tuple[float, float, float]  # of red, green and blue, as shares of white
    deviation: tuple[float, float, float]

    @property
    def frame(self) -> str:
        """All that shapes the kept pixels; mean and deviation are a tower's own affair."""
        return f"{FORMAT} {self.height} {self.width} {self.shortest} {self.resample}"


def read_picture(path: str) -> tuple[Picture, str]:
    """A file's picture, upright, in red, green and blue on white, and the hash of its bytes; or RowProblem."""
    name = Path(path).name[:80]
    try:
        size = os.stat(path).st_size
        if size > MOST_BYTES:
            raise _problem("too_large", name, f"a file of {size >> 20} MiB", f"Keep it under {MOST_BYTES >> 20} MiB.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise _problem("missing_image", name, f"cannot be read ({error.strerror})", "Check the path.") from None
    with _refusals(name):
        image = _opened(content, name)
        image.load()
        return _on_white(_upright(image)), hashlib.sha256(content).hexdigest()


def check_bytes(content: bytes) -> None:
    """RowProblem where these bytes do not begin as a picture does; nothing is unfolded."""
    with _refusals("the bytes"):
        _opened(content, "the bytes")


def _problem(reason: str, name: str, what: str, mend: str) -> RowProblem:
    return RowProblem(reason, f"the picture {name!r}: {what}. {mend}")


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Whatever Pillow says of a file that is broken is one row's problem; what it only warns of is passed over."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ResourceError("pictures are read with Pillow, which is not installed", MISSING) from None
    mend = "Save it anew, or take the row out."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise _problem("bad_image", name, f"no {', '.join(FORMATS)} file", mend) from None
    except Image.DecompressionBombError:
        raise _too_many(name) from None
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error, IndexError, KeyError) as error:
        what = " ".join(str(error).split())[:60] or type(error).__name__
        raise _problem("bad_image", name, f"broken off or damaged ({what})", mend) from None


def _too_many(name: str) -> RowProblem:
    what = f"over {MOST_PIXELS // 1_000_000} million pixels"
    return _problem("too_large", name, what, "Scale it down: a tower sees a few hundred a side.")


def _opened(content: bytes, name: str) -> Any:
    """Pillow's handle of a file that holds one picture of a size that can be unfolded."""
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_many(name)
    if max(width, height) > LONGEST * min(width, height):
        raise _problem("bad_image", name, f"{width} by {height} pixels, a line", "Cut something out of it.")
    if image.format in MOVING and _goes_on(image):
        raise _problem("animated", name, "several frames or pages", "Save the one that is meant.")
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _goes_on(image: Any) -> bool:
    with suppress(EOFError):
        image.seek(1)
        return True
    return False


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _on_white(image: Any) -> Picture:
    """In red, green and blue; what shows through is white, and sixteen bits become eight by their upper half."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        image = Image.fromarray(upper)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    picture: Picture = image.convert("RGB")
    return picture


def seen(picture: Picture, view: View) -> np.ndarray:
    """`[H, W, 3]` uint8: as transformers' image processors scale and cut; a cut larger than the picture adds black."""
    from PIL import Image

    if view.shortest is None:
        return np.asarray(picture.resize((view.width, view.height), Image.Resampling(view.resample)))
    width, height = picture.size
    scale = view.shortest / min(width, height)
    size = (view.shortest, int(scale * height)) if width <= height else (int(scale * width), view.shortest)
    scaled = picture.resize(size, Image.Resampling(view.resample))
    left, top = (size[0] - view.width) // 2, (size[1] - view.height) // 2
    return np.asarray(scaled.crop((left, top, left + view.width, top + view.height)))


# Kept pixels


def pixel_folder() -> Path:
    return cache_root() / "pixels"


def keep(path: str, view: View) -> str:
    """The name of a picture's pixels, which are kept from now on; RowProblem where it cannot be read.

    What is kept already is not unfolded again.
    """
    digest = _digest(path)
    name = _name(digest, view) if digest else ""
    if name and _file(name).is_file():
        return name
    picture, digest = read_picture(path)
    name = _name(digest, view)
    _write(_file(name), seen(picture, view))
    return name


def _digest(path: str) -> str:
    with suppress(OSError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _name(digest: str, view: View) -> str:
    return hashlib.sha256(f"{view.frame} {digest}".encode()).hexdigest()[:32]


def _file(name: str) -> Path:
    return pixel_folder() / name[:2] / f"{name}.npy"


def _write(path: Path, pixels: np.ndarray) -> None:
    draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        what = f"pixels cannot be kept ({error.strerror})"
        raise ResourceError(what, "Free some space, or set MINGSHI_CACHE to another folder.") from error


def are_kept(names: Iterable[str]) -> bool:
    """Whether the pixels of all these names are there."""
    return all(_file(name).is_file() for name in set(names))


def pixels(names: Sequence[str], view: View) -> np.ndarray:
    """`[N, H, W, 3]` uint8, read from where they are kept; ResourceError where they no longer are."""
    found = np.empty((len(names), view.height, view.width, 3), dtype=np.uint8)
    for place, name in enumerate(names):
        try:
            found[place] = np.load(_file(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            what = f"the kept pixels {name} are gone, or damaged"
            raise ResourceError(what, f"Delete {pixel_folder()} and run again: they are made anew.") from None
    return found


def stamp(paths: Iterable[str]) -> str:
    """A hash of the files' names, sizes and times: what was made of them holds while it stays the same."""
    digest = hashlib.sha256()
    for path in paths:
        with suppress(OSError):
            facts = os.stat(path)
            digest.update(f"{path}\0{facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def thumbnail(path: str, side: int) -> str:
    """A small copy as a `data:` address for a page, at most `side` pixels wide and high; "" for no picture."""
    try:
        picture, _ = read_picture(path)
    except RowProblem:
        return ""
    picture.thumbnail((side, side))
    written = io.BytesIO()
    picture.save(written, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
