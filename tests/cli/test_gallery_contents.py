"""`occluded-reid gallery list`, `info`, `get`, `relabel`, `cameras`."""

from __future__ import annotations

import json
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
    rows = PartEmbeddings(("global",), (torch.eye(5),), torch.ones(5, 1))
    with Gallery.create(tmp_path / "mall", slots={"global": 5}) as gallery:
        gallery.add(
            rows,
            keys=["d", "c", "b", "[a]", "e"],
            identity=["anna", None, "ben", None, "anna"],
            camera=["hall", 3, None, "hall", 3],
            time=[1.5, None, 1714555800, None, None],
            track=["t1", None, None, None, None],
        )
    return tmp_path / "mall"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(gallery_app, [str(argument) for argument in arguments])


def told(*arguments: object) -> object:
    found = run(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def keys(*arguments: object) -> list[str]:
    images = told("list", *arguments)
    assert isinstance(images, list)
    return [image["key"] for image in images]


def test_list(mall: Path) -> None:
    assert keys(mall) == ["d", "c", "b", "[a]", "e"]
    assert keys(mall, "--identity", "anna") == ["d", "e"]
    assert keys(mall, "--unidentified", "--camera", "hall") == ["[a]"]
    assert keys(mall, "--camera", "3") == keys(mall, "--camera", "3.0") == ["c", "e"]
    assert keys(mall, "--where", "camera = 'hall' OR time > 2") == ["d", "b", "[a]"]
    assert keys(mall, "--limit", 2, "--offset", 3) == ["[a]", "e"]
    images = told("list", mall, "--limit", 1)
    assert images == [
        {
            "key": "d",
            "identity": "anna",
            "camera": 1000,
            "camera_name": "hall",
            "time": 1.5,
            "track": "t1",
            "path": None,
            "sha256": None,
            "metadata": {},
        }
    ]
    found = run("list", mall, "--limit", 4)
    for text in (
        "[a]",
        "hall",
        "1.5",
        "2024-05-01T09:30:00Z",
        "t1",
        "4 images shown, 5 in the gallery; more with --limit",
    ):
        assert text in found.output
    assert "5 images shown, 5 in the gallery\n" in run("list", mall).output
    for wrong in (("--identity", "a", "--unidentified"), ("--where", "true", "--camera", "1"), ("--limit", "-1")):
        assert run("list", mall, *wrong).exit_code == 2
    assert "no camera of the gallery" in str(run("list", mall, "--camera", "hal").exception)


def test_info_and_cameras(mall: Path) -> None:
    info = told("info", mall)
    assert isinstance(info, dict)
    assert (info["images"], info["identities"], info["unidentified"]) == (5, 2, 2)
    assert info["cameras"][1] == {"number": 1000, "name": "hall", "images": 2}
    assert "cameras: 2 (3: 2, hall: 2); 1 images without" in run("info", mall).output
    assert told("cameras", mall, "--name", "yard=3") == [
        {"number": 3, "name": "yard", "images": 2},
        {"number": 1000, "name": "hall", "images": 2},
        {"number": None, "name": None, "images": 1},
    ]
    assert "yard" in run("cameras", mall).output
    assert run("cameras", mall, "--name", "yard").exit_code == 2
    refused = run("cameras", mall, "--name", "yard=4")
    assert isinstance(refused.exception, GalleryError)
    assert "'yard' as number 3, not 4" in str(refused.exception)


def test_get(mall: Path, tmp_path: Path) -> None:
    image = told("get", mall, "[a]", "--embeddings", tmp_path / "a.safetensors")
    assert isinstance(image, dict)
    assert (image["key"], image["camera_name"]) == ("[a]", "hall")
    assert torch.equal(PartEmbeddings.load(tmp_path / "a.safetensors").slot("global").float(), torch.eye(5)[3:4])
    shown = run("get", mall, "[a]").output
    assert "key: [a]" in shown
    assert "visibility: global 1.00" in shown
    assert isinstance(run("get", mall, "none").exception, GalleryError)


def test_times_are_dates_for_people_and_numbers_for_programs(mall: Path) -> None:
    assert [image["time"] for image in told("list", mall)] == [1.5, None, 1714555800.0, None, None]
    dated = told("list", mall, "--where", "time >= '2024-05-01T09:30'")
    assert [image["time"] for image in dated] == [1714555800.0]
    assert "time: 2024-05-01T09:30:00Z (1714555800)" in run("get", mall, dated[0]["key"]).output
    assert "time: 1.5\n" in run("get", mall, "d").output
    assert "times: 1.5 to 2024-05-01T09:30:00Z" in run("info", mall).output
    assert told("info", mall)["times"] == [1.5, 1714555800.0]


def test_relabel(mall: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("b\n")
    command = ("relabel", mall, "c", "--keys-from", tmp_path / "keys.txt", "--identity", "carl", "--camera", "door")
    assert told(*command) == {"changed": 2, "same": 0}
    assert told(*command) == {"changed": 0, "same": 2}
    assert keys(mall, "--identity", "carl", "--camera", "door") == ["c", "b"]
    assert told("relabel", mall, "c", "--time", "2024-05-01T09:30:00", "--unknown", "identity") == {
        "changed": 1,
        "same": 0,
    }
    assert keys(mall, "--where", "time = 1714555800 AND identity IS NULL") == ["c"]
    table = tmp_path / "labels.csv"
    table.write_text("key,identity,camera,time\n[a],dora,1.0,7\nd,,hall,\n")
    assert told("relabel", mall, "--labels", table) == {"changed": 2, "same": 0}
    with Gallery.open(mall) as gallery:
        assert (gallery.get("[a]").identity, gallery.get("[a]").camera, gallery.get("[a]").time) == ("dora", 1, 7.0)
        assert (gallery.get("d").identity, gallery.get("d").camera_name, gallery.get("d").time) == (None, "hall", None)
        assert gallery.get("d").track == "t1"
    assert "2 images say something else now, 0 the same" in run("relabel", mall, "d", "b", "--track", "t").output
    for wrong in (
        ("a",),
        ("a", "--labels", table),
        ("a", "--identity", "x", "--unknown", "identity"),
        ("a", "--unknown", "name"),
    ):
        assert run("relabel", mall, *wrong).exit_code == 2, wrong
    for content, why in (
        ("key,name\na,b\n", "have the columns key, name; wanted key"),
        ("identity\na\n", "wanted key"),
        ("key,time\nd,1\nb,noon\n", "the time of line 3 .* is 'noon'"),
        ("key,time\nd\n", "line 2 .* another number of fields"),
        ("key,time\n", "has a header and no lines"),
        ("key,identity\nnone,a\n", "'none'"),
    ):
        table.write_text(content)
        refused = run("relabel", mall, "--labels", table)
        with pytest.raises(GalleryError, match=why):
            raise refused.exception or AssertionError(refused.output)
    with pytest.raises(GalleryError, match="--time is 'noon', which is no time"):
        raise run("relabel", mall, "d", "--time", "noon").exception or AssertionError


def test_search_by_key_needs_no_model(cli: Callable[..., Any], mall: Path, tmp_path: Path) -> None:
    with Gallery.open(mall) as gallery:
        wanted = [hit.key for hit in gallery.search(key="c")[0]]
    (found,) = cli("search", mall, "--key", "c", "--json").json
    assert (found["query"], found["left_out"]) == ("c", ["c"])
    assert [hit["key"] for hit in found["hits"]] == wanted
    assert "c" not in wanted
    both = cli("search", mall, "--key", "c", "--key", "d", "-k", 2, "--include-self", "--where", "camera = 'hall'").out
    assert "left out" not in both
    assert "hall" in both
    image = tmp_path / "query.png"
    image.touch()
    for arguments, why in (
        ((), "give query images, or keys"),
        ((image, "--key", "c"), "give query images, or keys"),
    ):
        refused = cli("search", mall, *arguments)
        assert refused.code == 2
        assert why in " ".join(refused.err.replace("│", " ").split())
    assert cli("search", mall, "--key", "none").code == 1
