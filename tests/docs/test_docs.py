"""Every code block of README.md and docs/ runs, in order, in a folder of its own; what cannot run says why."""

from __future__ import annotations

import copy
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from occluded_reid import build_model
from occluded_reid.cli.app import app
from occluded_reid.config import load_recipe, read_recipe
from occluded_reid.data.dataset import load_dataset
from occluded_reid.models.build import find_recipe
from occluded_reid.parsing.recipe import load_parser_recipe
from occluded_reid.training.batches import make_loader

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]

NOT_RUN = {
    ("README.md", "they make a virtual environment, and have tests of their own"): 1,
    ("README.md", "it installs packages"): 1,
    ("docs/index.md", "it makes a virtual environment; the demo has tests of its own"): 1,
    ("docs/gallery.md", "it starts four processes, which tests of their own do"): 1,
    ("docs/gallery.md", "it needs a Milvus server"): 1,
    ("docs/performance.md", "a benchmark, for minutes"): 2,
    ("docs/results.md", "measured on Market-1501, for minutes to hours"): 7,
    ("docs/results.md", "measured on Market-1501, with files of others"): 1,
    ("docs/results.md", "measured on Partial-REID and Market-1501"): 1,
    ("docs/results.md", "it takes six minutes"): 1,
}
"""Each block that is not run, by page and reason, and how many of them there are."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, blocks: ModuleType, call: Callable[..., None], request: Any) -> None:
    found = [block for block in blocks.blocks_of(ROOT / page) if block.language in (*blocks.SHELL, *blocks.PYTHON)]
    if all(block.not_run for block in found):
        return
    request.getfixturevalue("reader" if page == "README.md" else "stocked")
    namespace: dict[str, Any] = {"__name__": "docs_page"}
    for block in found:
        if not block.not_run:
            try:
                blocks.run_block(block, namespace, call)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{block} does not run:\n{block.text}") from error


def test_what_is_not_run_is_listed(blocks: ModuleType) -> None:
    """None escapes: what cannot run is marked in the page, with a reason that stands here too."""
    marked = Counter((page, b.not_run) for page in PAGES for b in blocks.blocks_of(ROOT / page) if b.not_run)
    assert marked == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language_that_somebody_reads(page: str, blocks: ModuleType) -> None:
    for block in blocks.blocks_of(ROOT / page):
        assert block.language in (*blocks.SHELL, *blocks.PYTHON, *blocks.OTHER), f"{block}: a fence without a language"
        if block.language == "text":
            for sign in ("occluded-reid ", "$ ", "import ", "python ", "pip "):
                assert not any(line.lstrip().startswith(sign) for line in block.text.splitlines()), f"{block} is code"
    lines = blocks.unfenced(ROOT / page)
    assert not lines, f"{page}: put a fence around the code at lines {lines}, so that it is run"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_run_are_understood(
    page: str, blocks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, options, recipes and keys exist; scripts do, and name their options."""
    monkeypatch.chdir(tmp_path)
    line = typer.main.get_command(app)
    for block in blocks.blocks_of(ROOT / page):
        if not block.not_run or block.language not in blocks.SHELL:
            continue
        commands = blocks.expanded(block)
        assert commands, f"{block} has no command"
        for program, *words in commands:
            if program == "torchrun":
                program, *words = words[words.index("occluded-reid") :]
            if program == "occluded-reid":
                name, given = blocks.parse_command(line, words)
                if name in ("train", "train-parser"):
                    changes = dict(text.split("=", 1) for text in given["overrides"] or ())
                    changes = {key: yaml.safe_load(value) for key, value in changes.items()}
                    (find_recipe if name == "train" else load_parser_recipe)(given["recipe"], changes)
            elif program == "python":
                source = (ROOT / words[0]).read_text(encoding="utf-8")
                for word in words[1:]:
                    assert not word.startswith("--") or f'"{word}"' in source, f"{block}: {words[0]} takes no {word}"


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with a part of one laid over it."""
    result = copy.deepcopy(dict(base))
    for key, value in more.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_parts_of_recipes_are_built(page: str, blocks: ModuleType, call: Callable[..., None], request: Any) -> None:
    """A YAML block, laid over a small recipe, builds a model and a batch."""
    found = [block for block in blocks.blocks_of(ROOT / page) if block.language == "yaml"]
    if not found:
        return
    request.getfixturevalue("stocked")
    small = "train-parser small_parser --dataset synthetic --data people/ --output runs/parser"
    call(small.split())  # a parser that recipes name
    data = load_dataset("synthetic", "people")
    for block in found:
        content = merged(read_recipe("fed_lite", ROOT / "occluded_reid" / "recipes"), yaml.safe_load(block.text))
        size = {"model.input.height": 96, "model.input.width": 32, "model.backbone.type": "test_efficientnet"}
        recipe = load_recipe(content, {**size, "data.batch": 8})
        model = build_model(recipe, num_classes=len(data.train_classes()))
        images = next(iter(make_loader(data, recipe, model.preprocess).batches(1))).images
        assert np.isfinite(images.numpy()).all(), str(block)


@pytest.mark.parametrize("page", PAGES)
def test_toml_is_toml(page: str, blocks: ModuleType) -> None:
    for block in blocks.blocks_of(ROOT / page):
        if block.language == "toml":
            assert tomllib.loads(block.text), str(block)
