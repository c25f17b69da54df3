"""Pictures of a run's report, in English and Chinese: `python docs/images/render.py RUN_FOLDER`.

Needs Chromium and a Chinese font. The run's own report is not touched: the page is written again into a copy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mingshi.report.page import write_report

WIDTH, HEIGHT = 1100, 2450  # of the window; the picture ends with the last section that it shows whole
COLOURS = 48  # the page has few: a palette halves the file
LARGEST = 300_000  # bytes


def main(run: Path) -> None:
    """Write `report-en.png` and `report-zh.png` beside this file."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("Chromium is needed, and is not on the path.")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / run.name
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "adapter", "model"))
        for language in ("en", "zh"):
            page = write_report(copy, language=language)
            picture = Path(scratch) / "picture.png"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            place = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", page.as_uri()]
            subprocess.run([chromium, *options, *place], check=True, capture_output=True, timeout=120)
            target = Path(__file__).parent / f"report-{language}.png"
            whole_sections(Image.open(picture).convert("RGB")).quantize(COLOURS).save(target, optimize=True)
            size = target.stat().st_size
            print(f"{target.name}: {size:,} bytes")
            if size > LARGEST:
                sys.exit(f"{target.name} is over {LARGEST:,} bytes")


def whole_sections(picture: Image.Image) -> Image.Image:
    """The picture up to the last line that runs across the page: sections are ruled off from one another."""
    pixels = np.asarray(picture).astype(int)
    middle = pixels[:, WIDTH // 10 : -WIDTH // 10]
    ruled = (np.ptp(middle, axis=1).max(axis=1) == 0) & (np.abs(middle[:, 0] - pixels[0, 0]).max(axis=1) > 0)
    last = int(np.flatnonzero(ruled)[-1]) if ruled.any() else HEIGHT
    return picture.crop((0, 0, WIDTH, last))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
