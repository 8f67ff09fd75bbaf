"""Plain folders and CSV lists: cameras that are known and not, splits, and lines that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.dataset import load_dataset
from occluded_reid.data.folder import load_folder
from occluded_reid.errors import DataError, MaskError


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 4)).save(root / name)
    return root


def test_sub_folders_without_cameras(tmp_path: Path) -> None:
    data = load_dataset("folder", plant(tmp_path / "p", "zoe/1.jpg", "anna/b.png", "anna/far/a.JPG", "anna/.x.png"))
    assert [(s.name, s.identity, s.camera) for s in data.train] == [
        ("anna/b.png", "anna", 0),
        ("anna/far/a.JPG", "anna", 1),
        ("zoe/1.jpg", "zoe", 2),
    ]
    assert not data.cameras_known
    assert "cameras are not known" in data.notes[0]
    assert data.name == "p"
    assert "cameras: unknown" in data.format_card()


def test_camera_pattern(tmp_path: Path) -> None:
    root = plant(tmp_path, "a/x_c3.png", "a/y_c1.png", "b/z_c3.png")
    data = load_folder(root, camera_pattern=r"_c(\d+)")
    assert [s.camera for s in data.train] == [3, 1, 3]
    assert data.cameras_known
    assert not data.notes
    with pytest.raises(DataError, match=r"finds no camera in 'x_c3\.png'"):
        load_folder(root, camera_pattern=r"cam(\d)")
    with pytest.raises(DataError, match="has no group"):
        load_folder(root, camera_pattern=r"_c\d")
    with pytest.raises(DataError, match="is not a regular expression"):
        load_folder(root, camera_pattern=r"_c(\d")


def test_named_cameras_are_numbered_in_sorted_order_over_all_splits(tmp_path: Path) -> None:
    root = plant(tmp_path, "train/a/gate-1.png", "query/b/yard-1.png", "gallery/b/door-1.png", "gallery/b/gate-2.png")
    data = load_folder(root, camera_pattern=r"^(\w+)-")
    assert [s.camera for s in (*data.train, *data.query, *data.gallery)] == [1, 2, 0, 1]
    assert [s.name for s in data.gallery] == ["gallery/b/door-1.png", "gallery/b/gate-2.png"]
    assert [s.identity for s in data.query] == ["b"]


def test_a_split_with_images_and_no_people_is_refused(tmp_path: Path) -> None:
    root = plant(tmp_path, "train/1.png", "query/1.png", "anna/1.png")
    with pytest.raises(DataError, match=r"query' has the name of a split and holds 1 images.*beside it is 'anna'"):
        load_folder(root)


def test_links_below_a_person_are_refused(tmp_path: Path) -> None:
    for folder in ("set/anna", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (4, 8)).save(tmp_path / folder / "1.jpg")
    (tmp_path / "set/bert").symlink_to(tmp_path / "elsewhere")
    assert load_dataset("folder", tmp_path / "set").identities("train") == ["anna", "bert"]
    (tmp_path / "set/anna/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"anna/more' is a link to a folder"):
        load_dataset("folder", tmp_path / "set")


def test_splits_of_market1501_are_no_people(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 8)).save(tmp_path / folder / "0002_c1s1_000451_03.jpg")
    with pytest.raises(DataError, match=r"bounding_box_test/, bounding_box_train/.*as 'market1501'.*own=True"):
        load_dataset("folder", tmp_path)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        load_folder(tmp_path)
    (tmp_path / "hollow" / "anna").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no sub-folder with images\. Wanted one sub-folder for each person"):
        load_folder(tmp_path / "hollow")


def write(root: Path, text: str) -> Path:
    (root / "list.csv").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return plant(tmp_path / "photos", "a 1.png", "sub/b.png", "c.png")


def test_csv_with_everything(photos: Path) -> None:
    write(
        photos,
        "\ufeffPath, identity,camera,time,track,split,weather\n"
        "a 1.png,anna,0,12.5,t1,train,rain\n"
        "./sub/b.png,zoe,4,2024-05-01T02:00:00+02:00,,query,\n"
        "c.png,zoe,2,,,Gallery,\n",
    )
    data = load_dataset("folder", photos, csv="list.csv")
    (a,), (b,), (c,) = data.train, data.query, data.gallery
    assert (a.name, a.path, a.identity, a.camera, a.time, a.track) == (
        "a 1.png",
        photos / "a 1.png",
        "anna",
        0,
        12.5,
        "t1",
    )
    assert (b.name, b.camera, b.time, b.track) == ("sub/b.png", 4, 1714521600.0, None)
    assert (c.name, c.camera, c.time) == ("c.png", 2, None)
    assert data.cameras_known


def test_csv_without_splits_and_with_named_cameras(photos: Path) -> None:
    write(photos, "identity,camera,path\nzoe,yard,c.png\nanna,gate,a 1.png\n")
    data = load_folder(photos / "list.csv")
    assert [(s.name, s.camera) for s in data.train] == [("c.png", 1), ("a 1.png", 0)]
    assert data.query == data.gallery == ()
    assert data.name == "photos"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,identity\nc.png,a\n", r"lacks the column\(s\) path; it has file, identity"),
        ("", r"lacks the column\(s\) path; it has none"),
        ("path,identity,path\nc.png,a,c.png\n", "has the column 'path' twice"),
        ("path,identity,camera\nc.png,a,\n", "line 2 .*has no camera"),
        ("path,identity\na\0.png,a\n", r"line 2 of .*'a\\x00\.png' is none that a file can have"),
        (f"path,identity\n{'x' * 300},a\n", "line 2 of .*cannot be looked at: File name too long"),
        ('path,identity\n"c.png,a\n', "cannot be read: unexpected end of data"),
        ("path,identity,camera\n", "has a header and no lines"),
        (
            "path,identity,camera\nc.png,a,0\nnone.png,a,0\n",
            r"line 3 of '.*list\.csv' names 'none\.png', which is no file",
        ),
        ("path,identity,camera\n../photos/../x.png,a,0\n", r"line 2 of '.*list\.csv': the path .* leads out of"),
        ("path,identity,camera\n/etc/passwd,a,0\n", r"line 2 .*leads out of"),
        ("path,identity,camera\nc.png,,0\n", "line 2 .*has no identity"),
        ("path,identity,camera\nc.png,a\n", "line 2 .*another number of fields"),
        ("path,identity,camera\nc.png,a,0,7\n", "line 2 .*another number of fields"),
        ("path,identity,camera\nc.png,a,0\n\nsub/../c.png,a,0\n", r"line 4 .*names 'c\.png' again, after line 2"),
        ("path,identity,camera,split\nc.png,a,0,galery\n", "split 'galery'; wanted one of .*Did you mean 'gallery'"),
        ("path,identity,camera,split\nc.png,a,0,\n", "line 2 .*has no split"),
        ("path,identity,split\nc.png,a,test\n", "split 'test'; wanted one of train, query, gallery"),
        ("path,identity,split\nc.png,a,val\n", "split 'val'; wanted one of train, query, gallery"),
        ("path,identity,camera,time\nc.png,a,0,noon\n", "time 'noon'; wanted seconds"),
        ("path,identity,camera,time\nc.png,a,0,inf\n", "not finite"),
    ],
)
def test_csv_that_is_wrong(photos: Path, text: str, message: str) -> None:
    write(photos, text)
    with pytest.raises(DataError, match=message):
        load_folder(photos, csv="list.csv")


def test_csv_that_cannot_be_read(photos: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_folder(photos, csv="none.csv")
    (photos / "bad.csv").write_bytes(b"path,identity,camera\n\xff\xfe,a,0\n")
    with pytest.raises(DataError, match="must be UTF-8"):
        load_folder(photos, csv="bad.csv")
    with pytest.raises(DataError, match="has a camera column"):
        load_folder(write(photos, "path,identity,camera\nc.png,a,0\n"), csv="list.csv", camera_pattern="(.)")
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        load_folder(photos, csv="a\0.csv")


def test_a_link_that_leaves_the_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    plant(tmp_path, "secret.png")
    (photos / "link.png").symlink_to(tmp_path / "secret.png")
    write(photos, "path,identity,camera\nlink.png,a,0\n")
    with pytest.raises(DataError, match="leads out of"):
        load_folder(photos, csv="list.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_fields_are_parted_as_the_header_is(photos: Path, delimiter: str) -> None:
    lines = [["Path", "identity", "camera", "time"], ["a 1.png", "an;na, b" if delimiter == "\t" else "anna", "3", "7"]]
    write(photos, "\n".join(delimiter.join(line) for line in lines))
    (sample,) = load_folder(photos, csv="list.csv").train
    assert (sample.name, sample.identity, sample.camera, sample.time) == ("a 1.png", lines[1][1], 3, 7.0)


def test_splits_of_a_list_in_any_spelling(photos: Path) -> None:
    write(photos, "path,identity,split\na 1.png,a,Training\nsub/b.png,b,PROBE\nc.png,b,bounding_box_test\n")
    data = load_folder(photos, csv="list.csv")
    assert [[s.name for s in data.split(split)] for split in ("train", "query", "gallery")] == [
        ["a 1.png"],
        ["sub/b.png"],
        ["c.png"],
    ]


def test_a_semicolon_in_a_name_does_not_part_fields(photos: Path) -> None:
    plant(photos, "x;y.png")
    write(photos, "path,identity\nx;y.png,a;b\n")
    assert [(s.name, s.identity) for s in load_folder(photos, csv="list.csv").train] == [("x;y.png", "a;b")]


def test_a_list_without_cameras(photos: Path) -> None:
    write(photos, "path,identity\na 1.png,anna\nc.png,anna\n")
    data = load_folder(photos, csv="list.csv")
    assert not data.cameras_known
    assert [s.camera for s in data.train] == [0, 1]
    assert any("cameras are not known" in note for note in data.notes)
    by_name = load_folder(photos, csv="list.csv", camera_pattern=r"^(\w)")
    assert by_name.cameras_known
    assert [s.camera for s in by_name.train] == [0, 1]


def test_a_path_alone_is_enough_for_a_gallery(photos: Path) -> None:
    write(photos, "path\nc.png\nsub/b.png\n")
    data = load_folder(photos / "list.csv")
    assert [(s.name, s.identity, s.camera) for s in data.gallery] == [("c.png", None, 0), ("sub/b.png", None, 1)]
    assert not data.train
    assert not data.cameras_known
    assert any("who is on the 2 images" in note for note in data.notes)
    write(photos, "path;camera;split\nc.png;4;train\n")
    assert [(s.identity, s.camera) for s in load_folder(photos, csv="list.csv").train] == [(None, 4)]
    with pytest.raises(DataError, match="have no identity"):
        load_folder(photos, csv="list.csv").train_classes()


def test_backslashes_are_slashes_unless_a_file_has_them(photos: Path) -> None:
    plant(photos, "odd\\name.png")
    write(photos, "path,identity\nsub\\b.png,anna\nodd\\name.png,anna\n")
    assert [s.name for s in load_folder(photos, csv="list.csv").train] == ["sub/b.png", "odd\\name.png"]


def test_files_elsewhere_only_where_the_caller_says_so(photos: Path, tmp_path: Path) -> None:
    elsewhere = plant(tmp_path / "far", "d.png") / "d.png"
    write(photos, f"path,identity\n{photos / 'c.png'},a\n")
    assert [s.name for s in load_folder(photos, csv="list.csv").train] == ["c.png"]  # a whole path below the root
    for text in (str(elsewhere), "../far/d.png"):
        write(photos, f"path,identity\nc.png,a\n{text},b\n")
        with pytest.raises(DataError, match=r"line 3 .*leads out of.*allow_outside=True"):
            load_folder(photos, csv="list.csv")
        data = load_folder(photos, csv="list.csv", allow_outside=True)
        assert [(s.name, s.path) for s in data.train] == [
            ("c.png", photos / "c.png"),
            (elsewhere.resolve().as_posix(), elsewhere.resolve()),
        ]
    (tmp_path / "masks").mkdir()
    with pytest.raises(MaskError, match="holds no mask for any"):  # and not the image itself, by its whole path
        data.with_masks(tmp_path / "masks")


def test_a_list_that_names_a_file_in_two_ways(photos: Path) -> None:
    write(photos, f"path,identity\nsub\\b.png,a\n{photos / 'sub/b.png'},a\n")
    with pytest.raises(DataError, match=r"line 3 .*names 'sub/b\.png' again, after line 2"):
        load_folder(photos, csv="list.csv")
