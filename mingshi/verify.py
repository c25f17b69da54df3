"""Is a saved folder what was saved, and does it alone render the prompts that training saw?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mingshi import provenance
from mingshi.model import export
from mingshi.model.export import Check
from mingshi.record import RUN, read_run
from mingshi.use import trained_model


def verify(folder: Path) -> list[Check]:
    """Every check of a model folder; of a run folder, also its data and the code that made it."""
    if not (folder / RUN).is_file():
        return export.verify(folder)
    return [*export.verify(trained_model(folder)), *_data_checks(folder), _code_check(folder)]


def _data_checks(folder: Path) -> Iterator[Check]:
    """Each data file that can be found from here still has the hash that the run recorded."""
    for path, expected in {entry["path"]: entry["sha256"] for entry in read_run(folder).data["sources"]}.items():
        place = Path(path)
        if not place.is_file():
            yield Check(name=f"data {path}", passed=True, detail="not found from this folder, so not compared")
            continue
        same = provenance.fingerprint_file(place)["sha256"] == expected
        yield Check(name=f"data {path}", passed=same, detail="as recorded" if same else "changed since the run")


def _code_check(folder: Path) -> Check:
    run = read_run(folder).run
    used = [run["code"], *(occasion["code"] for occasion in run.get("resumes", []))]
    hashes = {code["sha256"] for code in used}
    same = hashes == {provenance.code()["sha256"]}
    detail = "the code that made it" if same else "made by another version of the code; its numbers may differ"
    return Check(name="code", passed=same, detail=detail)
