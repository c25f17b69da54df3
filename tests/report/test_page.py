"""The page: inert whatever the data says, complete in both languages, and there for runs that ended badly too."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report import folders
from report.payloads import MARKUP, PAYLOADS, UNSEEN

from mingshi.errors import RecipeError
from mingshi.record import Run, read_run
from mingshi.report.page import render, write_report
from mingshi.report.views import asked_in

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "input", "div", "nav", "label", "header", "footer", "section"),
    *("article", "h1", "h2", "h3", "h4", "p", "span", "b", "i", "em", "s", "small", "bdi", "pre", "dl", "dt", "dd"),
    *("details", "summary", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "path", "line", "circle", "rect", "text"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "type", "id", "checked", "aria-label", "for", "dir"),
    *("open", "scope", "width", "height", "aria-hidden", "viewbox", "preserveaspectratio", "vector-effect", "d"),
    *("title", "cx", "cy", "r", "x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "text-anchor"),
}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
VOID = {"meta", "input"}


class Reader(HTMLParser):
    """Every element, attribute and text of a page, and whether its elements close in order."""

    def __init__(self, page: str):
        HTMLParser.__init__(self, convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.style = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def made(files: folders.Files, folder: Path) -> Run:
    return read_run(folders.write(files, folder))


def spoken(page: str, language: str) -> str:
    """The page's text as it shows in one language."""
    other = "zh" if language == "en" else "en"
    shown = re.sub(rf'<span class="{other}"[^>]*>.*?</span>', "", page, flags=re.DOTALL)
    return " ".join(Reader(shown).text.split())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(folders.done(), tmp_path_factory.mktemp("done"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(made(folders.hostile(PAYLOADS), tmp_path_factory.mktemp("hostile")))


def test_hostile_text_adds_no_element_and_no_attribute(hostile: str) -> None:
    reader = Reader(hostile)
    assert set(reader.tags) <= TAGS
    assert {name for _, name, _ in reader.attributes} <= ATTRIBUTES
    assert reader.tags.count("style") == reader.tags.count("title") == 1
    assert reader.tags.count("input") == 2


def test_hostile_text_is_shown_as_it_is(hostile: str) -> None:
    text = Reader(hostile).text
    assert [payload for payload in MARKUP if payload not in text] == []


def test_no_payload_stands_unescaped_in_the_page(hostile: str) -> None:
    assert [payload for payload in MARKUP if re.search("[<>\"']", payload) and payload in hostile] == []


def test_what_cannot_be_seen_is_shown_by_its_code(hostile: str) -> None:
    hidden = {char for payload in UNSEEN for char in payload if not char.isprintable() or char == "\ufe0f"}
    assert {char for char in hidden if char in hostile.replace("\u00ad", "")} <= {"\ufe0f"}
    for code in ("U+202E", "U+200B", "U+001B", "U+0000", "U+009B", "U+2028", "U+2066", "U+00AD", "U+E0041", "U+E0101"):
        assert f"<i>{code}</i>" in hostile


def test_a_page_loads_nothing_and_runs_nothing(done: Run, hostile: str) -> None:
    for page in (render(done), hostile):
        reader = Reader(page)
        policies = [
            value for _, name, value in reader.attributes if name == "content" and value and "default-src" in value
        ]
        assert policies == [POLICY]
        assert page.index("Content-Security-Policy") < page.index("<style>")
        assert "url(" not in reader.style and "@import" not in reader.style
        for _, _, value in reader.attributes:
            assert "javascript:" not in (value or "") and "://" not in (value or "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_no_script_runs_in_a_browser(hostile: str, tmp_path: Path) -> None:
    page = tmp_path / "hostile.html"
    page.write_text(hostile.replace("default-src", "x-default-src"), encoding="utf-8")  # escaping alone must hold
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    command = ["chromium", *flags, "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    ran = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert re.search("<title>(.*?)</title>", ran.stdout, re.DOTALL)[1].strip() == "Run report"
    assert set(Reader(ran.stdout).tags) <= {*TAGS, "html"}


def test_ids_are_unique(done: Run) -> None:
    ids = [value for _, name, value in Reader(render(done)).attributes if name == "id"]
    assert ids == ["language-en", "language-zh"]


@pytest.mark.parametrize(("language", "chosen"), [("en", "language-en"), ("zh", "language-zh")])
def test_a_page_opens_in_the_language_that_was_asked_for(done: Run, language: str, chosen: str) -> None:
    assert re.findall(r'id="(language-..)" checked', render(done, language=language)) == [chosen]


def test_the_verdict_gives_the_change_with_its_interval_in_both_languages(done: Run) -> None:
    page = render(done)
    assert (
        "The model improved: "
        "held-out loss fell from 2.41 to 1.87 nats per token (−0.54, 95 % interval −0.60 to −0.48); "
        "ROUGE‑L rose from 0.118 to 0.312 (+0.194, 95 % interval +0.170 to +0.219)."
    ) in spoken(page, "en")
    assert (
        "模型有提升：留出数据上的损失从 2.41 降到 1.87 奈特/词元（−0.54，95% 置信区间 −0.60 至 −0.48）；"
        "ROUGE‑L从 0.118 升到 0.312（+0.194，95% 置信区间 +0.170 至 +0.219）。"
    ) in spoken(page, "zh")


def test_an_interval_that_holds_zero_is_called_no_difference_and_a_loss_is_named(tmp_path: Path) -> None:
    page = render(made(folders.chinese(), tmp_path))
    english = spoken(page, "en")
    assert (
        "No improvement is shown in the main measures, and something got worse: "
        "held-out loss shows no clear difference, "
        "2.41 before and 2.40 nats per token after (−0.01, 95 % interval" in english
    )
    assert "ROUGE‑L fell from 0.118 to 0.087 (−0.031" in english
    assert "ROUGE‑L rose" not in english and "loss fell" not in english


def test_a_change_without_an_interval_is_not_called_an_improvement(done: Run) -> None:
    run = dataclasses.replace(done, run={**done.run, "summary": {}})
    assert "(−0.54; no interval was recorded, so chance is not ruled out)" in spoken(render(run), "en")
    assert '<small class="judged"><span class="en" lang="en">better' not in render(run)
    assert "Whether the model improved cannot be told from these numbers: held-out loss fell" in spoken(
        render(run), "en"
    )


LESS, MORE, OPEN = (-0.5, -0.6, -0.4), (0.5, 0.4, 0.6), (-0.1, -0.3, 0.1)
EQUAL = (0.0, "NaN", "NaN")


@pytest.mark.parametrize(
    ("loss", "rouge", "lead"),
    [
        (LESS, MORE, "The model improved: "),
        (LESS, OPEN, "The model improved only in part: "),
        (OPEN, OPEN, "No improvement is shown in the main measures: "),
        (OPEN, LESS, "No improvement is shown in the main measures, and something got worse: "),
        (MORE, LESS, "The main measures got worse: "),
        (LESS, LESS, "The model improved in some respects and got worse in others: "),
        (LESS, (-0.1, "NaN", "NaN"), "The model improved only in part: "),
        (EQUAL, EQUAL, "No improvement is shown in the main measures: "),
        ((-0.5, "NaN", "NaN"), EQUAL, "Whether the model improved cannot be told from these numbers: "),
    ],
)
def test_the_verdict_leads_with_what_its_intervals_bear(done: Run, loss: Any, rouge: Any, lead: str) -> None:
    named = {"perplexity.nats_per_token": loss, "generation.rougeL": rouge}
    differences = {name: dict(zip(("value", "low", "high"), ends, strict=True)) for name, ends in named.items()}
    evals = [copy.deepcopy(entry) for entry in done.evals if entry["when"] != "during"]
    for entry in evals:
        entry["scores"] = {k: v for k, v in entry["scores"].items() if f"{entry['kind']}.{k}" in named}
    run = dataclasses.replace(done, evals=evals, run={**done.run, "summary": {"differences": differences}})
    assert lead in spoken(render(run), "en")


def test_a_metric_that_did_not_move_is_called_that(done: Run) -> None:
    evals = copy.deepcopy(list(done.evals))
    for entry in evals:
        if entry["kind"] == "generation":
            entry["scores"] = {"empty": {"value": 0.0, "low": 0.0, "high": 0.06, "count": 64, "signature": ""}}
    differences = {"generation.empty": {"value": 0.0, "low": "NaN", "high": "NaN", "count": 64, "signature": ""}}
    run = dataclasses.replace(done, evals=evals, run={**done.run, "summary": {"differences": differences}})
    english = spoken(render(run), "en")
    assert "Difference0.00no change" in english and "+0.00" not in english


def test_weights_that_train_are_not_called_none_where_their_number_is_unknown(done: Run) -> None:
    model = {name: value for name, value in done.run["model"].items() if name != "trainable"}
    english = spoken(render(dataclasses.replace(done, run={**done.run, "model": model})), "en")
    assert "Parameters139,400,000 " in english and "0 trained" not in english


@pytest.mark.parametrize(
    ("prompt", "heading"),
    [
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nSum\n up.<|im_end|>\n", "Sum up."),
        ("<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\n2<|im_end|>\n", "2"),
        ("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "Hi"),
        ("<s>[INST] Hi there [/INST]", "Hi there"),
        ("### Instruction:\nName it.\n\n### Response:\n", "Name it."),
        ("指令:翻译\n输入:你好\n输出:", "翻译 输入:你好"),
        ("def clamp(value):\n    return value", "def clamp(value): return value"),
        ("<|im_start|>user\n<|im_end|>", "<|im_start|>user <|im_end|>"),
        ("a" * 200, "a" * 110 + "…"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_heading_of_a_sample_is_what_the_user_asked_last(prompt: str, heading: str) -> None:
    assert asked_in(prompt) == heading


def test_the_peak_of_memory_stands_beside_what_was_expected(done: Run) -> None:
    page = render(done)
    assert "5.1 GB with evaluation; 4.5 GB were expected of training" in page and "5.1 GB（含评测）" in page
    two = dataclasses.replace(
        done, run=dict(done.run) | {"memory": [*done.run["memory"], {"measured": 6e9, "estimate": "?"}]}
    )
    assert "Peak memory, stage 1" in render(two) and "Peak memory, stage 2" not in render(two)


def test_without_a_test_set_the_verdict_says_what_the_validation_set_is_worth(done: Run) -> None:
    validation = [entry for entry in done.evals if entry["data"] == "validation" and entry["when"] == "during"]
    english = spoken(render(dataclasses.replace(done, evals=validation)), "en")
    assert "There is no test set to compare before and after. Validation loss was lowest at step 175: 1.91" in english


def test_a_run_that_was_killed_has_a_page_that_says_so(tmp_path: Path) -> None:
    run = read_run(folders.write(folders.interrupted(), tmp_path, torn=True))
    english = spoken(render(run), "en")
    assert run.status == "interrupted" and "The run broke off after step 61; “mingshi train --resume”" in english
    assert "fell from" not in english


def test_a_run_that_diverged_has_a_page_that_says_where_and_why(tmp_path: Path) -> None:
    files = folders.diverged()
    files["run.json"]["summary"] = {"error": "step 40: the gradient norm is <nan>"}
    english = spoken(render(made(files, tmp_path)), "en")
    assert "Training diverged: a loss or a gradient was not finite. The last step on record is 40." in english
    assert "step 40: the gradient norm is <nan>" in english and "not finite: step 40" in english


def test_rows_that_do_not_add_up_are_said_aloud(done: Run, tmp_path: Path) -> None:
    assert "Every row is accounted for: 2,521 read = 2,505 used + 16 rejected." in spoken(render(done), "en")
    page = render(made(folders.chinese(), tmp_path))
    assert "The ledger does not add up: 2,530 read, but 2,505 used + 16 rejected." in spoken(page, "en")


def test_the_first_eight_answers_stand_before_and_after(done: Run) -> None:
    page = render(done)
    assert page.count('<details class="sample"') == 8
    assert "The ninth sample." not in page
    assert "Return value limited to low and high." in page


def test_every_figure_with_numbers_has_its_table(done: Run) -> None:
    page = render(done)
    assert page.count('<details class="table">') == 3  # losses with the rates beneath them, their gap, and lengths
    assert "One row in 2 of 240; all of them are in steps.jsonl." in spoken(page, "en")


@pytest.mark.parametrize("missing", ["data.json", "steps.jsonl", "evals.jsonl", "findings.json"])
def test_any_file_but_the_first_may_be_missing(missing: str, tmp_path: Path) -> None:
    files = folders.done(12)
    del files[missing]
    folder = folders.write(files, tmp_path)
    assert "smollm2-135m" in write_report(folder).read_text(encoding="utf-8")


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    page = render(made({"run.json": {"format": 1, "status": "failed"}}, tmp_path))
    assert "The run ended with an error after step 0" in spoken(page, "en")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"run\.json is missing"):
        write_report(tmp_path)


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(keys(inner) for inner in value.values()))
    return set().union(*(keys(inner) for inner in value)) if isinstance(value, list) else set()


def bent(value: Any, key: str, instead: Any) -> Any:
    """The tree with every value under `key` replaced, or left out where there is nothing to put instead."""
    if isinstance(value, dict):
        kept = {name: bent(inner, key, instead) for name, inner in value.items() if name != key or instead is not ...}
        return {name: instead if name == key else inner for name, inner in kept.items()}
    return [bent(inner, key, instead) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("instead", [..., None, "text", -1, [None, 3], {"x": []}], ids=str)
def test_no_record_can_be_so_odd_that_there_is_no_page(instead: Any, tmp_path: Path) -> None:
    files = folders.done(6)
    run = made(files, tmp_path)
    parts = {"run": run.run, "data": run.data, "steps": run.steps, "evals": run.evals, "findings": run.findings}
    parts["data"]["stages"][0]["lengths"] = [1, 5, 9]
    for name, part in parts.items():
        for key in sorted(keys(part)):
            odd = dataclasses.replace(run, **{name: bent(copy.deepcopy(part), key, instead)})
            assert render(odd).endswith("</html>"), (name, key)


def test_a_page_stays_under_two_megabytes_whatever_is_in_the_run(tmp_path: Path) -> None:
    files = folders.hostile(["\u200b\x1b<&" * 2_000])
    files["steps.jsonl"] = [step | {"stage": stage, "ids": []} for stage in range(14) for step in folders.steps(1000)]
    files["data.json"]["sources"] *= 100
    files["findings.json"] *= 1000
    text = "\u200b\x1b<&" * 2_000
    samples = [{"prompt": f"{i}{text}", "prediction": text, "reference": text, "scores": {}} for i in range(20)]
    for entry in files["evals.jsonl"]:
        entry["samples"] = samples
    page = render(made(files, tmp_path))
    assert page.count('<details class="sample"') == 8
    assert len(page.encode()) < 2_000_000


def test_a_long_run_keeps_a_page_that_a_browser_opens_at_once(tmp_path: Path) -> None:
    files = folders.done(5_000)
    files["data.json"]["stages"][0] |= {"lengths": [1 + index % 4_000 for index in range(10_000)], "samples": 10_000}
    page = render(made(files, tmp_path))
    assert "5,000" in page and "the longest has 4,000" in spoken(page, "en")
    assert len(page.encode()) < 500_000


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    folder = folders.write(folders.done(12), tmp_path)
    said = "import sys, pathlib, mingshi.report.page as page; page.write_report(pathlib.Path(sys.argv[1]))"
    pages = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", said, str(folder)], env=environment, check=True)
        pages.add((folder / "report.html").read_bytes())
    assert len(pages) == 1


def test_writing_leaves_one_file_and_needs_no_torch(tmp_path: Path) -> None:
    folder = folders.write(folders.done(12), tmp_path)
    before = {path.name for path in folder.iterdir()}
    assert write_report(folder) == folder / "report.html"
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    said = "import sys, mingshi.report.page, mingshi.report.preview; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
