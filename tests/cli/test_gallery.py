"""`occluded-reid gallery`: the sub-commands, as Typer runs them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from occluded_reid.cli.gallery import gallery_app
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery import Gallery


@pytest.fixture
def mall(tmp_path: Path) -> Path:
    rows = PartEmbeddings(("global",), (torch.eye(6),), torch.ones(6, 1))
    with Gallery.create(tmp_path / "mall", slots={"global": 6}) as gallery:
        gallery.add(rows[:3], keys=["a", "b", "c"])
        gallery.add(rows[3:], keys=["d", "e", "[f]"])
    return tmp_path / "mall"


def run(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(gallery_app, [str(argument) for argument in arguments], input=answer)


def test_verify_names_a_damaged_file_and_fails(mall: Path) -> None:
    found = run("verify", mall)
    assert (found.exit_code, "every bit as it was written" in found.output) == (0, True)
    file = mall / "gallery.json"
    file.write_bytes(file.read_bytes().replace(b"global", b"globel"))
    found = run("verify", mall, "--json")
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert (told["ok"], list(told["damaged"])) == (False, ["gallery.json"])
    assert "damaged: gallery.json" in run("verify", mall).output


def test_versions_and_compaction(mall: Path) -> None:
    told = json.loads(run("versions", mall, "--json").stdout)
    assert [(version["version"], version["images"]) for version in told] == [(1, 0), (2, 3), (3, 6)]
    assert "add 3" in run("versions", mall).output
    told = json.loads(run("compact", mall, "--keep-versions", 1, "--json").stdout)
    assert len(told["versions"]) == 1
    assert told["bytes_after"] < told["bytes_before"]
    assert "versions that can be opened" in run("compact", mall).output
    assert run("compact", mall, "--keep-versions", 0).exit_code == 2


def test_remove_and_erase(mall: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("b\n[f]\n\n")
    told = json.loads(run("remove", mall, "a", "--keys-from", tmp_path / "keys.txt", "--json").stdout)
    assert told == {"removed": 3, "total": 3}
    refused = run("erase", mall, "a", "d", answer="n\n")
    assert (refused.exit_code, len(Gallery.open(mall))) == (1, 3)
    assert "Erase 2 images" in refused.output
    assert "Erase" not in refused.stdout
    found = run("erase", mall, "a", "d", "--yes")
    assert "2 images erased, 2 are left" in found.output
    assert "1 images removed, 1 are left" in run("remove", mall, "e").output
    told = json.loads(run("erase", mall, "c", "--yes", "--json").stdout)
    assert (told["images"], told["total"]) == (1, 0)


@pytest.mark.parametrize("answer", ["", "n\n", "y\n"])
def test_a_question_that_nobody_answers_at_a_keyboard_ends_its_line(
    cli: Callable[..., Any], mall: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    done = cli("gallery", "erase", mall, "a", "d", "--json")
    assert "for good? [y/N]:" in done.err
    if answer.startswith("y"):
        assert (done.code, done.json["images"], done.err[-1]) == (0, 2, "\n")
    else:
        assert done.code == 1
        assert done.out.strip() == ""
        assert done.err.splitlines()[-1] == "Nothing was done."
    assert len(Gallery.open(mall)) == (4 if answer.startswith("y") else 6)


def test_where_there_is_no_input_the_answer_is_asked_for(
    cli: Callable[..., Any], mall: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = cli("gallery", "erase", mall, "a")
    assert done.code == 2
    assert "give --yes" in done.err


def test_a_key_with_a_line_separator_is_one_key(mall: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes("\ufeffa\u2028b\r\nc\x85d\n".encode())
    for command in (("erase", "--yes"), ("remove",)):  # neither "a" and "b" nor "c" and "d" are meant
        assert run(command[0], mall, "--keys-from", tmp_path / "keys.txt", *command[1:]).exit_code == 1
    assert len(Gallery.open(mall)) == 6


def test_keys_that_are_missing_or_unreadable(mall: Path, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for arguments, message in (
        (("remove", mall), "no keys were given"),
        (("erase", mall, "--yes"), "no keys were given"),
        (("remove", mall, "--keys-from", tmp_path / "binary"), "cannot be read"),
        (("erase", mall, "zz", "--yes"), "in no version"),
    ):
        with pytest.raises(GalleryError, match=message):
            raise run(*arguments).exception or AssertionError("it went through")
    missing = run("remove", mall, "--keys-from", tmp_path / "nothing")
    assert missing.exit_code == 2
    assert "nothing' does not exist" in missing.output + missing.stderr.replace("\n", " ")
