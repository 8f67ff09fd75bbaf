"""Values of the wrong kind at the library's doors, and what is no file where a file is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from occluded_reid import Gallery, Protocol, build_model, load_dataset, load_model, load_recipe
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError, OccludedReIDError
from occluded_reid.files import open_file, read_json
from occluded_reid.gallery import field
from occluded_reid.models.embedder import load_embedder
from occluded_reid.parsing.teachers import open_teacher

NO_PATHS = [None, True, 3, 1.5, b"x", ["a"], {"a": 1}, object()]


def rows(count: int) -> PartEmbeddings:
    return PartEmbeddings(("global",), (torch.eye(8)[:count],), torch.ones(count, 1))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    found = Gallery.create(tmp_path / "gallery", slots={"global": 8})
    found.add(rows(4), keys=list("abcd"), camera=[1, 2, 3, 3])
    return found


@pytest.mark.parametrize("path", NO_PATHS)
@pytest.mark.parametrize(
    "door",
    [
        Gallery.open,
        Gallery.exists,
        lambda path: Gallery.create(path, slots={"global": 8}),
        load_model,
        load_embedder,
        load_recipe,
        lambda path: load_dataset("folder", path),
        read_json,
    ],
)
def test_what_is_no_path_is_refused_at_every_door(door: Callable[[Any], Any], path: Any) -> None:
    with pytest.raises(OccludedReIDError):
        door(path)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "models/sorn"},
        {"slots": [("global", 8)]},
        {"slots": {"global": 8}, "matcher": "cosine"},
        {"slots": {"global": 8}, "fingerprint": 3},
        {"slots": {"global": 8}, "fingerprint": ""},
        {"slots": {"global": 8}, "device": 0},
    ],
)
def test_a_gallery_is_not_made_of_what_is_none(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OccludedReIDError, match=next(reversed(options))):
        Gallery.create(tmp_path / "new", **options)


@pytest.mark.parametrize("options", [{"model": "models/sorn"}, {"matcher": 3}, {"device": None}])
def test_a_gallery_is_not_opened_with_what_is_none(gallery: Gallery, options: dict[str, Any]) -> None:
    with pytest.raises(OccludedReIDError, match=next(iter(options))):
        Gallery.open(gallery.path, **options)


@pytest.mark.parametrize("name", ["seed", "training_rows"])
@pytest.mark.parametrize("value", [None, 1.5, "1", -1, True, [1]])
def test_numbers_of_an_index_are_whole(gallery: Gallery, name: str, value: Any) -> None:
    with pytest.raises(GalleryError, match=name):
        gallery.build_index("Flat", **{name: value})


def test_a_seed_that_holds_itself_does_not_end_the_process(gallery: Gallery) -> None:
    seed: list[Any] = []
    seed.append(seed)
    with pytest.raises(GalleryError, match="seed"):
        gallery.build_index("Flat", seed=seed)  # type: ignore[arg-type]


def test_an_array_without_axes_is_one_value(gallery: Gallery) -> None:
    gallery.add(rows(6)[4:], keys=["e", "f"], camera=np.array(7), time=np.array(2.5), identity=np.array("who"))
    assert [(image.camera, image.time, image.identity) for image in gallery.list({"camera": 7})] == [
        (7, 2.5, "who"),
        (7, 2.5, "who"),
    ]
    for call in (
        lambda: gallery.add(rows(1), keys=np.array("g")),
        lambda: gallery.remove(np.array("a")),
        lambda: gallery.erase(np.array("a")),
        lambda: field("camera").is_in(np.array(1)),
        lambda: gallery.relabel(None, identity="x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(GalleryError):
            call()
    assert len(gallery) == 6


@pytest.mark.parametrize("name", ["draws", "bootstrap", "seed", "ranks", "confidence", "notes"])
@pytest.mark.parametrize("value", [None, "1", ("a",), 1j])
def test_a_protocol_holds_numbers(name: str, value: Any) -> None:
    if name == "notes" and value == ("a",):
        return
    with pytest.raises(OccludedReIDError, match=name):
        Protocol(**{name: value})


@pytest.mark.parametrize("name", [None, 3, ["a"], {"a": 1}])
def test_a_registry_knows_texts_only(name: Any) -> None:
    with pytest.raises(OccludedReIDError, match="is named"):
        load_dataset(name, "anywhere")


@pytest.mark.parametrize("name", [*NO_PATHS, "n" * 300])
def test_what_is_no_teacher_is_refused(name: Any) -> None:
    with pytest.raises(OccludedReIDError):
        open_teacher(name)


@pytest.mark.parametrize("part", [None, [[1.0]], np.ones((1, 1), np.float32)])
def test_embeddings_are_tensors(part: Any) -> None:
    for embeddings, visibility in (((part,), torch.ones(1, 1)), ((torch.ones(1, 1),), part)):
        with pytest.raises(OccludedReIDError, match="are tensors"):
            PartEmbeddings(("global",), embeddings, visibility)


@pytest.mark.parametrize(
    "options", [{"num_classes": "5"}, {"num_classes": True}, {"num_classes": 2.5}, {"backbone": 3}, {"heads": True}]
)
def test_a_model_is_not_built_of_what_is_none(options: dict[str, Any]) -> None:
    with pytest.raises(OccludedReIDError, match=next(iter(options))):
        build_model("sorn_lite", **options)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_pipes_and_devices_are_not_read_for_ever(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe.json", tmp_path / "device.json"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(OSError, match="no file"):
            open_file(path)
        with pytest.raises(OccludedReIDError, match="no file"):
            read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_pipe_in_a_models_folder_is_named(tmp_path: Path, name: str, what: str) -> None:
    build_model("sorn_lite", pretrained=False).save(tmp_path)
    (tmp_path / name).unlink()
    if what == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(OccludedReIDError, match=name):
        load_model(tmp_path)


TABLE_FILES = ["_versions/latest*.json", "_versions/*.manifest", "_transactions/*", "_deletions/*", "data/*"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("what", ["pipe", "link"])
@pytest.mark.parametrize("name", TABLE_FILES)
def test_a_pipe_in_a_gallerys_table_is_named_and_not_waited_for(gallery: Gallery, name: str, what: str) -> None:
    gallery.remove("d")
    gallery.close()
    file = max((Path(gallery.path) / "images.lance").glob(name))
    content = file.read_bytes()
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    else:
        beside = Path(gallery.path).parent / "elsewhere"
        beside.write_bytes(content)
        file.symlink_to(beside)
    for attempt in (Gallery.open, lambda path: Gallery.open(path, version=2)):
        with pytest.raises(GalleryError, match=f"{file.name}' is no plain file"):
            attempt(gallery.path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_that_comes_while_a_gallery_is_open_is_named(gallery: Gallery) -> None:
    with Gallery.open(gallery.path) as reader:
        [file] = (Path(gallery.path) / "images.lance" / "data").iterdir()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(GalleryError, match="no plain file"):
            reader.search(rows(1), k=1)
        with pytest.raises(GalleryError, match="no plain file"):
            gallery.add(rows(4)[3:], keys=["e"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_in_an_indexs_folder_is_not_waited_for(gallery: Gallery) -> None:
    gallery.build_index("Flat")
    [copy] = Path(gallery.path).glob("indexes/build-*/embeddings.bin")
    copy.unlink()
    os.mkfifo(copy)
    with Gallery.open(gallery.path) as again:
        assert again.search(rows(1), k=1, effort="auto")[0][0].key == "a"
