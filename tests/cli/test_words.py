"""Words that can mean nothing, and places that cannot be written to: exit code 2 before anything is done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from occluded_reid.cli import app, words

Cli = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty `folder`, and a `file` that is in the way."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    return tmp_path


DATA = ("--data", "folder", "--dataset", "folder")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("search nowhere file --model folder", "there is no gallery 'nowhere'"),
        ("search folder nowhere.png --model folder", "'nowhere.png' does not exist"),
        ("search folder file --model nowhere", "'nowhere' does not exist; wanted the folder of a saved model"),
        (
            "search folder folder --model folder",
            "'folder' is a folder; give images to search for",
        ),
        ("index . folder --model folder", "'.' holds something and is no gallery"),
        ("search folder file --model folder --effort hard", "--effort is 'hard'"),
        ("search folder file --model folder --threshold far.json", "'far.json' does not exist"),
        ("search folder file --model folder --device gpu", "'gpu' is no device"),
        ("search folder file --model folder --picture hits.doc", "--picture"),
        ("gallery verify nowhere", "there is no gallery 'nowhere'"),
        ("gallery info nowhere", "there is no gallery 'nowhere'"),
        ("gallery remove folder --keys-from nowhere.txt", "'nowhere.txt' does not exist"),
        ("evaluate nowhere --data folder", "wanted the folder of a saved model"),
        ("evaluate folder --data nowhere", "'nowhere' does not exist"),
        ("evaluate folder --data folder --masks nowhere", "'nowhere' does not exist"),
        ("evaluate folder --data folder --occluders nowhere", "'nowhere' is no folder"),
        ("evaluate folder --data folder --tuned nowhere.json", "'nowhere.json' does not exist"),
        ("sweep folder nowhere --data folder --output out", "'nowhere' does not exist"),
        ("train sorn --data nowhere --output out", "'nowhere' does not exist"),
        ("train nonesuch --data folder --output out", "no recipe is named 'nonesuch'"),
        ("train sorn --data folder --output out --dataset nonesuch", "nonesuch"),
        ("train sorn --data folder --output out --set optim.epoch=3", "Did you mean 'epochs'?"),
        ("train sorn --data folder --output out --set optim.epochs=many", "optim.epochs"),
        ("train sorn --data folder --output out --set nonsense", "is not of the form"),
        ("train sorn --data folder --output out --option nonsense", "--option is 'nonsense'"),
        ("parse folder --teacher nonesuch --out out", "no parser is named 'nonesuch'"),
        ("parse nowhere --teacher onnx --out out", "'nowhere' does not exist"),
        ("compare a=nowhere.json", "'nowhere.json' does not exist"),
        ("data verify market1501 nowhere", "'nowhere' does not exist"),
        ("data show nonesuch", "nonesuch"),
        ("gallery nonesuch folder", "No such command"),
        ("nonesuch", "No such command"),
    ],
)
def test_a_wrong_word(cli: Cli, place: Path, line: str, named: str) -> None:
    found = cli(*line.split())
    assert (found.code, found.out) == (2, "")
    assert named in found.err
    assert "Traceback" not in found.err
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder"]


OUTPUTS = [
    ("train sorn --data folder", "--output", True),
    ("train-parser small_parser --data folder", "--output", True),
    ("evaluate folder --data folder", "--report", True),
    ("evaluate folder --data folder", "--save", True),
    ("failures folder --data folder", "--output", True),
    ("sweep folder --data folder", "--output", True),
    ("open-set folder --data folder", "--output", True),
    ("compare a=file", "--output", True),
    ("demo", "--output", True),
    ("parse folder --teacher onnx", "--out", True),
    ("calibrate folder --data folder", "--out", False),
    ("tune folder --data folder --validation 2 --choose threshold=0.1", "--out", False),
    ("search folder file --model folder", "--picture", False),
    ("same file file --model folder", "--picture", False),
    ("gallery get folder key", "--embeddings", False),
    ("index --model folder --data folder", "", True),
    ("data synthesize", "", True),
    ("data extract-cuhk03 folder", "--out", True),
    ("data propose-occluders folder --masks folder", "--out", True),
]
"""Command, its option for an output ("" is an argument), and whether that is a folder."""


@pytest.mark.parametrize("where", ["file", "file/below", "file/below/deeper", "n" * 300])
@pytest.mark.parametrize(("line", "option", "folder"), OUTPUTS)
def test_what_cannot_be_written_to(cli: Cli, place: Path, line: str, option: str, folder: bool, where: str) -> None:
    if not folder:
        where = "folder" if where == "file" else f"{where}/hits.png"
    found = cli(*line.split(), *filter(None, [option]), where)
    assert (found.code, found.out) == (2, "")
    assert "Traceback" not in found.err
    assert option in found.err
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder"]
    assert (place / "file").read_text(encoding="utf-8") == "mine"
    assert not list((place / "folder").iterdir())


def test_a_gallery_that_may_not_be_written_is_refused_before_a_model_is_loaded(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, because an administrator, as whom tests may run, can write to any folder."""
    (place / "mall").mkdir()
    (place / "mall" / "gallery.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr("occluded_reid.models.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, how: Path(path).name != "mall" and may(path, how))
    done = cli("index", "mall", "folder", "--model", "folder")
    assert done.code == 2
    assert "'mall' may not be written to" in done.err


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there are no devices in the file system")
def test_a_device_is_not_replaced_by_a_file(cli: Cli, place: Path) -> None:
    found = cli("calibrate", "folder", "--data", "folder", "--out", "/dev/null")
    assert found.code == 2
    assert "is a device or a pipe" in found.err
    assert not Path("/dev/null").is_file()


def test_every_option_for_an_output_is_among_them() -> None:
    """A new option that writes must be looked at, too."""
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    inner = {f"{name} {sub}": c for name, group in top.items() for sub, c in getattr(group, "commands", {}).items()}
    writing = {"--output", "--out", "--report", "--save", "--picture", "--embeddings"}
    found = {
        (name, option)
        for name, command in (top | inner).items()
        for parameter in getattr(command, "params", [])
        for option in parameter.opts
        if option in writing
    }
    tested = {
        (" ".join(line.split()[:2]) if line.split()[0] in ("gallery", "data") else line.split()[0], option)
        for line, option, _ in OUTPUTS
        if option
    }
    assert found == tested


def test_addresses_are_not_looked_for_in_the_file_system() -> None:
    assert not list(words._gallery_complaints("search", "s3://bucket/mall"))
    assert not list(words._gallery_complaints("index", "milvus://localhost:19530/mall"))
