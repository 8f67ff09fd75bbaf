"""A folder of images becomes a folder of masks: whole, resumable, and never a mixture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import (
    BuildError,
    DataError,
    ImageError,
    MaskError,
    RegistryError,
    UnknownNameError,
    UnknownOptionError,
)
from occluded_reid.parsing import Teacher, map_labels, open_teacher, parse_folder
from occluded_reid.parsing.masks import MaskFolder
from occluded_reid.registry import PARSERS


class Red(Teacher):
    """Gives each pixel its red value as the class: images that are masks of themselves."""

    label_set = "lip20"

    def __init__(self, mark: int = 0, stop_after: int | None = None) -> None:
        self.mark, self.stop_after = mark, stop_after
        self.seen: list[str] = []
        self.largest = 0

    def parse(self, images, names):
        self.largest = max(self.largest, len(images))
        if self.stop_after is not None and len(self.seen) + len(names) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += names
        return [np.asarray(image)[..., 0] for image in images]

    def describe(self):
        return {**super().describe(), "mark": self.mark}


def labels_of(k):
    return np.random.default_rng(k).integers(0, 20, (5 + k % 3, 4), dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    """Seven images in a tree, one of them in black: nobody there."""
    for k in range(7):
        labels = labels_of(k) if k != 3 else np.zeros((5, 4), np.uint8)
        path = tmp_path / "images" / ("query" if k < 4 else "gallery/deep") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([labels, labels, labels], -1)).save(path)
    return tmp_path / "images"


def masks_in(folder):
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def test_masks_mirror_the_tree_and_are_mapped(images, tmp_path):
    moves = []
    report = parse_folder(images, Red(), tmp_path / "out", to="sgam5", progress=lambda *move: moves.append(move))
    found = masks_in(tmp_path / "out")
    assert sorted(found) == [*(f"gallery/deep/{k}.png" for k in (4, 5, 6)), *(f"query/{k}.png" for k in range(4))]
    total = np.zeros(5, int)
    for k in range(7):
        mask = found[f"{'query' if k < 4 else 'gallery/deep'}/{k}.png"]
        assert mask.dtype == np.uint8
        expected = map_labels(labels_of(k), "lip20", "sgam5") if k != 3 else np.zeros((5, 4), np.uint8)
        np.testing.assert_array_equal(mask, expected)
        total += [int((expected == c).sum()) for c in range(5)]
    assert report.pixels == dict(zip(("background", "head", "upper_body", "lower_body", "shoes"), total, strict=True))
    assert sum(report.shares.values()) == pytest.approx(1)
    assert (report.written, report.empty, dict(report.unreadable)) == (7, ("query/3.png",), {})
    assert report.names == tuple(sorted(found))
    assert moves == [(k, 7) for k in range(1, 8)]
    assert "7 masks of sgam5: 7 made" in report.summary()
    assert "no person found in 1 image;" in report.summary()
    assert any("dresses and jumpsuits" in note for note in report.notes)
    assert json.dumps(report.to_dict())


def test_own_classes_and_clothes(images, tmp_path):
    parse_folder(images, Red(), tmp_path / "own", to="own")
    np.testing.assert_array_equal(masks_in(tmp_path / "own")["query/1.png"], labels_of(1))
    parse_folder(images, Red(), tmp_path / "sorn", clothes={"scarf": "head"})
    np.testing.assert_array_equal(
        masks_in(tmp_path / "sorn")["query/1.png"], map_labels(labels_of(1), "lip20", "sorn8", scarf="head")
    )


def test_a_stopped_run_goes_on(images, tmp_path, monkeypatch):
    monkeypatch.setattr("occluded_reid.parsing.write._CHUNK_IMAGES", 2)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        parse_folder(images, Red(stop_after=4), out, to="own")
    assert len(masks_in(out)) == 4
    assert not list(out.rglob("*.tmp"))
    second = Red()
    report = parse_folder(images, second, out, to="own")
    assert second.seen == ["query/1.png", "query/2.png", "query/3.png"]
    assert second.largest == 2
    whole = parse_folder(images, Red(), tmp_path / "whole", to="own")
    assert (report.written, whole.written) == (3, 7)
    assert report.pixels == whole.pixels, "masks that were there count too"
    assert (report.names, report.empty) == (whole.names, whole.empty)
    for name, mask in masks_in(tmp_path / "whole").items():
        np.testing.assert_array_equal(masks_in(out)[name], mask)


def test_masks_that_do_not_fit_are_made_again(images, tmp_path):
    out = tmp_path / "out"
    parse_folder(images, Red(), out, to="own")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(out / "query" / "0.png")
    (out / "query" / "1.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.full((7, 4), 20, np.uint8)).save(out / "query" / "2.png")
    teacher = Red()
    assert parse_folder(images, teacher, out, to="own").written == 3
    assert teacher.seen == ["query/0.png", "query/1.png", "query/2.png"]
    assert parse_folder(images, Red(), out, to="own", limit=2).names == ("gallery/deep/4.png", "gallery/deep/5.png")


def test_another_teacher_is_refused_with_what_differs(images, tmp_path):
    out = tmp_path / "out"
    parse_folder(images, Red(), out, to="own")
    with pytest.raises(MaskError, match=r"made with other settings: settings\.mark was 0, now 1\. Choose"):
        parse_folder(images, Red(mark=1), out, to="own")
    with pytest.raises(MaskError, match="label_set was 'lip20', now 'sorn5'"):
        parse_folder(images, Red(), out, to="sorn5")
    with pytest.raises(MaskError, match=r"map\.scarf was None, now 'head'"):
        parse_folder(images, Red(), out, to="own", clothes={"scarf": "head"})


def test_overwriting_leaves_no_mixture(images, tmp_path):
    out = tmp_path / "out"
    parse_folder(images, Red(), out, to="own")
    report = parse_folder(images, Red(mark=1), out, to="own", limit=2, overwrite=True)
    assert report.written == 2
    assert len(masks_in(out)) == 2, "masks of the other teacher are gone"
    assert json.loads((out / "parsing.json").read_text())["settings"]["mark"] == 1
    assert parse_folder(images, Red(mark=1), out, to="own").written == 5
    again = Red(mark=1)
    assert parse_folder(images, again, out, to="own", overwrite=True).written == 7
    assert len(again.seen) == 7


def test_masks_of_unknown_origin_are_left_alone(images, tmp_path):
    (tmp_path / "out" / "query").mkdir(parents=True)
    Image.fromarray(labels_of(1)).save(tmp_path / "out" / "query" / "1.png")
    with pytest.raises(MaskError, match=r"holds masks and no parsing\.json"):
        parse_folder(images, Red(), tmp_path / "out")
    assert len(masks_in(tmp_path / "out")) == 1


def test_unreadable_images_are_named_and_left_out(images, tmp_path):
    (images / "query" / "0.png").write_bytes(b"no image")
    report = parse_folder(images, Red(), tmp_path / "out", to="own")
    assert report.written == 6
    assert list(report.unreadable) == ["query/0.png"]
    assert "not an image" in report.unreadable["query/0.png"]


def test_an_image_that_the_teacher_cannot_take_stops_no_other(images, tmp_path):
    class Picky(Red):
        def parse(self, images, names):
            if "query/2.png" in names:
                raise ImageError("'query/2.png' is too long")
            return super().parse(images, names)

    report = parse_folder(images, Picky(), tmp_path / "out", to="own")
    assert report.written == 6
    assert dict(report.unreadable) == {"query/2.png": "'query/2.png' is too long"}


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda images: [], "gave 0 masks for 7 images"),
        (lambda images: [np.zeros((2, 2), np.uint8) for _ in images], r"gave uint8 of shape \(2, 2\) for '"),
        (lambda images: [np.zeros((i.height, i.width)) for i in images], "gave float64 of shape"),
        (lambda images: [np.full((i.height, i.width), 20) for i in images], "gave classes 20 … 20 for .* has 0 … 19"),
    ],
)
def test_a_teacher_that_breaks_its_promise(images, tmp_path, answer, complaint):
    class Broken(Red):
        def parse(self, images, names):
            return answer(images)

    with pytest.raises(MaskError, match=complaint):
        parse_folder(images, Broken(), tmp_path / "out")
    assert masks_in(tmp_path / "out") == {}


def test_folders_that_cannot_be(images, tmp_path):
    with pytest.raises(DataError, match="lies within the images' folder"):
        parse_folder(images, Red(), images / "masks")
    with pytest.raises(DataError, match="does not exist"):
        parse_folder(tmp_path / "gone", Red(), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none here")
    with pytest.raises(DataError, match="holds no image"):
        parse_folder(tmp_path / "empty", Red(), tmp_path / "out")
    Image.new("RGB", (2, 2)).save(images / "query" / "0.jpg")
    with pytest.raises(
        DataError, match=r"'query/0\.png' would have the mask 'query/0\.png', and so would 'query/0\.jpg'"
    ):
        parse_folder(images, Red(), tmp_path / "out")
    (images / "query" / "0.jpg").unlink()
    Image.new("RGB", (2, 2)).save(images / "contact_sheet.jpg")
    with pytest.raises(DataError, match=r"and so would the picture that is written there"):
        parse_folder(images, Red(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_read_before_the_label_sets_fit(images, tmp_path):
    class Coarse(Red):
        label_set = "sorn2"

    with pytest.raises(MaskError, match="cannot become 'sorn8'"):
        parse_folder(images, Coarse(), tmp_path / "out")
    with pytest.raises(MaskError, match=r"'sock' is nothing that can be put elsewhere. Did you mean 'socks'"):
        parse_folder(images, Red(), tmp_path / "out", clothes={"sock": "foot"})
    with pytest.raises(UnknownNameError, match="Did you mean 'sorn8'"):
        parse_folder(images, Red(), tmp_path / "out", to="sorn")
    assert not (tmp_path / "out").exists()


def test_masks_can_be_translated_but_not_onto_themselves(images, tmp_path):
    parse_folder(images, Red(), tmp_path / "lip", to="own")
    teacher = open_teacher("masks", {"folder": tmp_path / "lip", "label_set": "lip20"})
    assert isinstance(teacher, MaskFolder)
    parse_folder(images, teacher, tmp_path / "five", to="sorn5")
    np.testing.assert_array_equal(
        masks_in(tmp_path / "five")["query/1.png"], map_labels(labels_of(1), "lip20", "sorn5")
    )
    with pytest.raises(DataError, match="is the folder that the masks are read from"):
        parse_folder(images, teacher, tmp_path / "lip", to="own", overwrite=True)
    assert len(masks_in(tmp_path / "lip")) == 7


def test_teachers_by_name(tmp_path):
    with pytest.raises(UnknownNameError, match="no parser is named 'onx'"):
        open_teacher("onx")
    with pytest.raises(UnknownOptionError, match="the parser 'masks' needs folder: give folder="):
        open_teacher("masks")
    with pytest.raises(UnknownOptionError, match=r"takes no 'foldr'. Did you mean 'folder'"):
        open_teacher("masks", {"foldr": tmp_path, "folder": tmp_path})
    with pytest.raises(BuildError, match="weights are random until it is trained"):
        open_teacher("small", {"backbone": "test_efficientnet"})


def test_plugins_must_be_teachers():
    PARSERS.register("not_a_teacher")(object)
    try:
        with pytest.raises(BuildError, match="gives object, which is no Teacher"):
            open_teacher("not_a_teacher")
    finally:
        PARSERS.unregister("not_a_teacher")
    with pytest.raises(RegistryError):
        open_teacher("not_a_teacher")


def test_a_trained_parser_by_its_folder(tmp_path, images):
    from occluded_reid.parsing.saved import save_parser

    parser = PARSERS.create("small", backbone="test_efficientnet", label_set="sgam5", height=32, width=16)
    save_parser(parser, tmp_path / "parser")
    teacher = open_teacher(tmp_path / "parser")
    assert teacher.label_set == "sgam5"
    report = parse_folder(images, teacher, tmp_path / "out", to="sgam5")
    assert report.written == 7
    assert json.loads((tmp_path / "out" / "parsing.json").read_text())["settings"]["fingerprint"] == parser.fingerprint
    with pytest.raises(UnknownOptionError, match="takes no options; got height"):
        open_teacher(Path(tmp_path / "parser"), {"height": 64})


KILLED = """
import os, sys
from PIL import Image
from occluded_reid.parsing import open_teacher, parse_folder

images, masks, out = sys.argv[1:]
Image.Image.save = lambda *_, **__: os.kill(os.getpid(), 9)
parse_folder(images, open_teacher("masks", {"folder": masks, "label_set": "lip20"}), out, overwrite=True)
"""
"""A run that is killed while it writes its first mask."""


def test_a_later_run_removes_what_a_killed_one_left(images, tmp_path):
    """Even one that finds all masks there and writes none."""
    parse_folder(images, Red(), tmp_path / "masks")
    teacher = MaskFolder(tmp_path / "masks", label_set="lip20")
    parse_folder(images, teacher, tmp_path / "out")
    command = [sys.executable, "-c", KILLED, str(images), str(tmp_path / "masks"), str(tmp_path / "out")]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert len(list((tmp_path / "out").rglob("*.tmp"))) == 1
    assert parse_folder(images, teacher, tmp_path / "out").written == 0
    assert list((tmp_path / "out").rglob("*.tmp")) == []
    assert len(masks_in(tmp_path / "out")) == 7
