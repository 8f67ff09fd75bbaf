"""Names of cameras: one number each, for ever, in whatever order and spelling they come."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery import Gallery, field, hits_table
from occluded_reid.gallery.cameras import CAMERAS, FIRST_NUMBER, CameraTable

Rows = Callable[..., PartEmbeddings]
SLOTS = {"global": 8, "part_1": 5, "part_2": 5}


def cameras_of(gallery: Gallery, query: PartEmbeddings, **options: object) -> dict[str, tuple[int | None, str | None]]:
    (hits,) = gallery.search(query, 100, **options)  # type: ignore[arg-type]
    return {hit.key: (hit.camera, hit.camera_name) for hit in hits}


def test_a_name_is_the_same_camera_on_every_day(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(8)
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(rows[:2], keys=["a", "b"], camera=["hall", "door"])
        hall, door = gallery.cameras["hall"], gallery.cameras["door"]
        assert {hall, door} == {FIRST_NUMBER, FIRST_NUMBER + 1}
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.add(rows[2:5], keys=["c", "d", "e"], camera=["attic", "hall", None])
        assert gallery.cameras == {"hall": hall, "door": door, "attic": FIRST_NUMBER + 2}
        found = cameras_of(gallery, rows[:1])
        assert found["a"] == found["d"] == (hall, "hall")
        assert found["b"] == (door, "door")
        assert found["e"] == (None, None)
        # By number, too; and the same again changes nothing.
        assert gallery.add(rows[5:6], keys=["f"], camera=hall).added == 1
        assert cameras_of(gallery, rows[:1])["f"] == (hall, "hall")
        assert gallery.add(rows[3:4], keys=["d"], camera="hall").skipped == 1
        assert "'hall'" in repr(gallery.search(rows[3:4], 1)[0][0])
        assert hits_table(gallery.search(rows[3:4], 1)[0]).columns[3]._cells[0].plain == "hall"  # type: ignore[attr-defined]
    assert gallery_is_sound(tmp_path / "g")


def gallery_is_sound(folder: Path) -> bool:
    with Gallery.open(folder) as gallery:
        return gallery.verify().ok


def test_names_keep_away_from_numbers_in_use(tmp_path: Path, make_rows: Rows) -> None:
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(make_rows(2), keys=["a", "b"], camera=[FIRST_NUMBER, 3])
        gallery.add(make_rows(1, 1), keys=["c"], camera="hall")
        assert gallery.cameras == {"hall": FIRST_NUMBER + 1}


def test_numbers_in_every_writing_are_one_camera(tmp_path: Path, make_rows: Rows) -> None:
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(make_rows(6), keys=list("abcdef"), camera=[1, "1", "1.0", " 01", 1.0, np.int64(1)])
        assert {camera for camera, _ in cameras_of(gallery, make_rows(1)).values()} == {1}
        assert gallery.cameras == {}
        assert not (tmp_path / "g" / CAMERAS).exists()


def test_searches_understand_names(tmp_path: Path, make_rows: Rows) -> None:
    rows = make_rows(5)
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(rows, keys=list("abcde"), camera=["hall", "door", "O'Brien's", 3, None])
        gallery.name_cameras({"yard": 3})
        asked = rows[:1]

        def left(**options: object) -> str:
            return "".join(sorted(cameras_of(gallery, asked, **options)))

        assert left(query_camera="hall") == left(query_camera=["hall"]) == "bcde"
        assert left(query_camera=gallery.cameras["hall"]) == "bcde"
        assert left(where={"camera": "yard"}) == left(where={"camera": 3}) == "d"
        assert left(where={"camera": ["hall", 3]}) == left(where={"camera": {"hall", "yard"}}) == "ad"
        assert left(where=(field("camera") == "hall") | field("camera").is_in(["O'Brien's"])) == "ac"
        assert left(where=~(field("camera") == "hall")) == "bcd"
        assert left(where="camera = 'O''Brien''s'") == "c"
        assert left(where="`camera` NOT IN ('hall', 'door') AND key <> 'camera = ''x'''") == "cd"
        assert left(where="camera != 'hall'") == "bcd"
        assert left(where="camera IN ('hall', 3)") == "ad"
        for options in (
            {"query_camera": "hal"},
            {"where": {"camera": "hal"}},
            {"where": "camera = 'hal'"},
            {"where": field("camera") == "hal"},
        ):
            with pytest.raises(GalleryError, match=r"'hal', and no camera .* Did you mean 'hall'"):
                left(**options)
        with pytest.raises(GalleryError, match="give a whole number for a camera that has one: 3, not a text"):
            left(query_camera="3")
        with pytest.raises(GalleryError, match="names have no order"):
            field("camera") > "hall"  # noqa: B015


def test_conflicts_name_both(tmp_path: Path, make_rows: Rows) -> None:
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(make_rows(1), keys=["a"], camera=["hall"])
        gallery.name_cameras({"door": 3})
        gallery.name_cameras({"door": 3})
        with pytest.raises(GalleryError, match="knows the camera 'hall' as number 1000, not 4"):
            gallery.name_cameras({"hall": 4})
        with pytest.raises(GalleryError, match="camera 3 is 'door', not 'gate'"):
            gallery.name_cameras({"gate": 3})
        for names in ({"7": 7}, {"": 7}, {"gate": "7"}, {"gate": True}, {"\udcff": 9}):
            with pytest.raises(GalleryError, match="camera"):
                gallery.name_cameras(names)  # type: ignore[arg-type]
        assert gallery.cameras == {"hall": 1000, "door": 3}


def test_nothing_is_named_by_what_is_refused(tmp_path: Path, make_rows: Rows) -> None:
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        with pytest.raises(GalleryError, match="time of 'b'"):
            gallery.add(make_rows(2), keys=["a", "b"], camera="hall", time=[1, "x"])  # type: ignore[list-item]
        assert gallery.cameras == {}


def test_the_table_is_protected(tmp_path: Path, make_rows: Rows) -> None:
    with Gallery.create(tmp_path / "g", slots=SLOTS) as gallery:
        gallery.add(make_rows(1), keys=["a"], camera=["hall"])
    file = tmp_path / "g" / CAMERAS
    content = file.read_bytes()
    file.write_bytes(content.replace(b"1000", b"1001"))
    with Gallery.open(tmp_path / "g") as gallery:
        with pytest.raises(GalleryError, match=r"cameras\.json' is damaged.*names of the gallery's cameras"):
            gallery.search(make_rows(1))
        assert not gallery.verify().ok
    file.unlink()
    with (
        Gallery.open(tmp_path / "g") as gallery,
        pytest.raises(GalleryError, match=r"cameras\.json' is missing"),
    ):
        gallery.add(make_rows(1, 1), keys=["b"], camera=["door"])
    file.write_bytes(content)
    assert gallery_is_sound(tmp_path / "g")


@pytest.mark.parametrize("content", [None, [], {"a": "1"}, {"a": True}, {"a": 1, "b": 1}, {"a": 1 << 63}])
def test_no_table(content: object) -> None:
    with pytest.raises(GalleryError, match="damaged: wanted cameras by name"):
        CameraTable.parse("g", content, "file")


def test_an_object_store_keeps_names_too(tmp_path: Path, make_rows: Rows) -> None:
    (tmp_path / "bucket").mkdir()
    address = f"file://{os.fspath(tmp_path / 'bucket' / 'mall')}"
    with Gallery.create(address, slots=SLOTS) as gallery:
        gallery.add(make_rows(2), keys=["a", "b"], camera=["hall", 7])
    with Gallery.open(address) as gallery:
        gallery.add(make_rows(1, 1), keys=["c"], camera=["door"])
        assert gallery.cameras == {"hall": 1000, "door": 1001}
    with Gallery.open(address) as gallery:
        assert cameras_of(gallery, make_rows(1), where={"camera": ["hall", "door"]}) == {
            "a": (1000, "hall"),
            "c": (1001, "door"),
        }
