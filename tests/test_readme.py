"""What a stranger reads is true: the tour runs, the two languages agree, and whatever is named exists.

The tour is run as it stands. Only what its names mean is smaller: in an empty folder, `MINGSHI_CACHE` holds a model of
a few thousand weights under the name `smollm2-135m`, and `data/docstrings/` a few rows.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import typer

from mingshi.cli import app
from mingshi.data.formats import FORMATS
from mingshi.data.named_templates import TEXTS
from mingshi.errors import MingshiError
from mingshi.evals import EVALS
from mingshi.model.adapters import ADAPTERS
from mingshi.objectives import OBJECTIVES
from mingshi.optim import Optim
from mingshi.recipe import EarlyStopping, Recipe, Stage, read_recipe
from mingshi.types import Settings

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
GUIDES = ROOT / "docs" / "guide.md", ROOT / "docs" / "guide.zh-CN.md"
PAGES = [ENGLISH, CHINESE, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # an application of many is a group

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OUR_PATH = re.compile(r"(\./)?(mingshi|docs|scripts|recipes|tests|benchmarks|requirements)/[\w./-]*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# What the pages on extending tell their reader to write.
YET_TO_BE_WRITTEN = {
    "mingshi/objectives/focal.py",
    "mingshi/data/formats/translation.py",
    "tests/data/fixtures/translation.jsonl",
}
OTHERS = {"--index-url", "--standalone", "--nproc-per-node"}  # options of pip and torchrun

every_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return FENCED.findall(page.read_text("utf-8"))


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text("utf-8"))


def tables(page: Path) -> list[list[str]]:
    """The inline code of every row of every table, sorted."""
    lines = prose(page).replace(r"\|", "\N{BROKEN BAR}").splitlines()
    return [sorted(INLINE.findall(line)) for line in lines if line.startswith("|")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tiny import ROWS, tiny_model

    folder = tmp_path_factory.mktemp("home")
    model = tiny_model(folder / "cache" / "assets" / "smollm2-135m")
    (model / "manifest.json").write_text("{}")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    data = folder / "data" / "docstrings"
    data.mkdir(parents=True)
    for name, rows in {"train": ROWS[:24], "validation": ROWS[24:32], "test": ROWS[32:]}.items():
        (data / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    skills_at_toy_size(folder)
    label_at_toy_size(folder)
    search_at_toy_size(folder / "recipes" / "search_docstrings.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINGSHI_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def skills_at_toy_size(folder: Path) -> None:
    """Their rows, and of their strategies the one that the others are tested against."""
    from scripts.skills import main

    assert main(["--output", str(folder / "data" / "skills")]) == 0
    recipe = folder / "recipes" / "skills_small.yaml"
    text, _, _ = recipe.read_text("utf-8").partition("strategies:")
    recipe.write_text(f"{text}strategies: [multi_task]\n", encoding="utf-8")


def label_at_toy_size(folder: Path) -> None:
    """A tiny encoder and few rows."""
    from encoders import tiny_encoder

    model = tiny_encoder(folder / "cache" / "assets" / "multilingual-e5-small")
    (model / "manifest.json").write_text("{}")
    few = folder / "data" / "sentiment-chinese" / "few"
    few.mkdir(parents=True)
    for path, count in ((few / "seeds", 8), (few / "unlabelled", 12), (few.parent / "validation", 60)):
        rows = [{"text": f"{path.name} {number}", "label": ("ill", "well")[number % 2]} for number in range(count)]
        path.with_suffix(".jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def search_at_toy_size(recipe: Path) -> None:
    """Two trials, and none of them again; of ranks, those that the tiny network has room for."""
    text = recipe.read_text("utf-8")
    for told, toy in (("trials: 12", "trials: 2"), ("{trials: 3, seeds: [1, 2]}", "null"), (", 16, 32]", ", 16]")):
        assert told in text
        text = text.replace(told, toy)
    recipe.write_text(text, encoding="utf-8")


def test_the_tour_runs(home: Path) -> None:
    seen = set()
    for number, (language, text) in enumerate(blocks(ENGLISH)):
        if language == "python":
            script = home / f"block{number}.py"
            script.write_text(text)
            runpy.run_path(str(script))
        elif language == "bash" and text.startswith("mingshi "):
            for line in text.splitlines():
                name, *arguments = shlex.split(line)
                assert name == "mingshi"
                seen.add(arguments[0])
                assert app(args=arguments, standalone_mode=False) in (None, 0), line
    assert seen == set(COMMANDS), "the tour shows every command"
    finished = sorted(path.parent.name for path in home.glob("runs/*/report.html"))
    expected = ["compare-small", "first", "fourth", "label-sentiment", "search-docstrings", "second", "skills-small"]
    assert finished == [*expected, "third"]
    assert len((home / "answers.jsonl").read_bytes().splitlines()) == 8
    assert (home / "merged" / "docstrings" / "model.safetensors").is_file()


def test_the_recipe_shown_is_valid(home: Path) -> None:
    (text,) = [text for language, text in blocks(ENGLISH) if language == "yaml"]
    path = home / "shown.yaml"
    path.write_text(text)
    assert read_recipe(path).stages[0].early_stopping == EarlyStopping(patience=3)


@pytest.mark.parametrize(("english", "chinese"), [(ENGLISH, CHINESE), GUIDES], ids=["README", "guide"])
def test_both_languages_show_the_same(english: Path, chinese: Path) -> None:
    def code(page: Path) -> list[tuple[str, str]]:
        return [block for block in blocks(page) if block[0] != "text"]

    def places(page: Path) -> list[str]:
        return [line.split()[0] for language, text in blocks(page) if language == "text" for line in text.splitlines()]

    assert code(english) == code(chinese)
    assert places(english) == places(chinese)
    assert tables(english) == tables(chinese)
    headings = [re.findall(r"^#+", prose(page), re.MULTILINE) for page in (english, chinese)]
    assert headings[0] == headings[1]


@every_page
def test_every_file_named_exists(page: Path) -> None:
    named = {path for path in INLINE.findall(prose(page)) if OUR_PATH.fullmatch(path)} - YET_TO_BE_WRITTEN
    named |= {line.split()[0] for language, text in blocks(page) if language == "text" for line in text.splitlines()}
    scripts = [text.split()[0] for language, text in blocks(page) if language == "bash" and text.startswith("./")]
    missing = [path for path in (*named, *scripts) if not (ROOT / path).exists()]
    links = [link for link in LINK.findall(prose(page)) if "://" not in link]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing


@every_page
def test_every_command_and_option_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    code = "\n".join([*INLINE.findall(prose(page)), *(block for _, block in blocks(page))])
    commands = re.findall(r"\bmingshi ([a-z]+)", code)
    assert set(commands) <= set(COMMANDS)
    known = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
    known |= {option for command in COMMANDS.values() for each in command.params for option in each.secondary_opts}
    for script in (
        "mingshi/cli.py",
        "scripts/check",
        "scripts/assets.py",
        "scripts/docstrings.py",
        "scripts/first_layers.py",
        "benchmarks/side_by_side.py",
    ):
        known |= set(OPTION.findall((ROOT / script).read_text("utf-8")))
    assert set(OPTION.findall(text)) <= known | OTHERS


def test_every_exit_code_is_explained() -> None:
    ours = {MingshiError.exit_code, *(error.exit_code for error in MingshiError.__subclasses__())}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", ENGLISH.read_text("utf-8"), re.MULTILINE)}
    assert told == ours | {0, 130}


def test_every_format_that_can_be_trained_on_is_in_the_table() -> None:
    rows = [set(row) for row in tables(ENGLISH)]
    for name in ("instruct", "chat"):
        for layout in FORMATS[name]:
            assert any({name, *layout.needs, *layout.may} <= row | {"system"} for row in rows), layout.needs


def test_every_template_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| `template` \|.*?\n\n", ENGLISH.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == {"template", "auto", "own", *TEXTS}


@pytest.mark.parametrize("guide", GUIDES, ids=["english", "chinese"])
def test_the_guide_explains_every_field_and_variable(guide: Path) -> None:
    explained = set(INLINE.findall(prose(guide)))
    known: list[type[Settings]] = [Recipe, Stage, EarlyStopping, Optim, *OBJECTIVES.values(), *ADAPTERS.values()]
    fields = {name for model in (*known, *EVALS.values()) for name in model.model_fields} - {"kind"}
    assert not fields - explained
    files = [*(ROOT / "mingshi").rglob("*.py"), ROOT / "scripts" / "setup"]
    variables = {name for file in files for name in re.findall(r"\bMINGSHI_[A-Z]+\b", file.read_text("utf-8"))}
    assert not variables - explained
