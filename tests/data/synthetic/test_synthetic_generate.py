"""The synthetic set on disk: layout, determinism, descriptions, and folders that are refused."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from occluded_reid.data.synthetic import LISTING, SPLITS, SyntheticOptions, generate
from occluded_reid.data.synthetic.generate import plan
from occluded_reid.errors import DataError

SMALL = SyntheticOptions(train_identities=3, test_identities=4, cameras=2, images_per_camera=2, distractors=3, seed=5)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("synthetic") / "set", SMALL)


def test_layout_follows_market_1501(made: Path) -> None:
    pattern = re.compile(r"(\d{4})_c(\d)s1_\d{6}_\d\d\.png")
    seen: dict[str, set[int]] = {}
    for split in SPLITS:
        names = sorted(path.name for path in (made / split).iterdir())
        assert len(names) == SMALL.images[split]
        matches = [pattern.fullmatch(name) for name in names]
        assert all(matches)
        seen[split] = {int(match[1]) for match in matches if match}
        assert {int(match[2]) for match in matches if match} == {1, 2}
        for folder in ("masks", "occlusion"):
            assert sorted(path.name for path in (made / folder / split).iterdir()) == names
    assert seen["bounding_box_train"] == {1, 2, 3}
    assert seen["query"] == {4, 5, 6, 7}
    assert seen["bounding_box_test"] == {0, 4, 5, 6, 7}


def test_query_and_gallery_share_no_picture(made: Path) -> None:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for split in SPLITS for path in (made / split).iterdir()]
    assert len(set(digests)) == len(digests)


def test_two_runs_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert contents(generate(tmp_path / "again", SMALL)) == contents(made)


@pytest.mark.slow
def test_workers_change_nothing(made: Path, tmp_path: Path) -> None:
    assert contents(generate(tmp_path / "workers", SMALL, workers=2)) == contents(made)


def test_a_picture_depends_on_its_own_numbers_only(made: Path, tmp_path: Path) -> None:
    fewer = SyntheticOptions(
        train_identities=3,
        test_identities=1,
        cameras=2,
        images_per_camera=1,
        distractors=0,
        queries_per_camera=0,
        seed=5,
    )
    part = contents(generate(tmp_path / "fewer", fewer))
    whole = contents(made)
    pictures = [name for name in part if name.endswith(".png")]
    assert len(pictures) == 3 * sum(fewer.images.values())
    assert all(part[name] == whole[name] for name in pictures)


def test_another_seed_draws_other_pictures(made: Path, tmp_path: Path) -> None:
    other = SyntheticOptions(
        train_identities=3, test_identities=0, cameras=2, images_per_camera=2, distractors=0, seed=6
    )
    ours = contents(made)
    theirs = {
        n: b for n, b in contents(generate(tmp_path / "other", other)).items() if n.startswith("bounding_box_train")
    }
    assert len(theirs) == 12
    assert all(theirs[name] != ours[name] for name in theirs)


def test_listing_is_the_digest_of_every_file(made: Path) -> None:
    description = json.loads((made / LISTING).read_text())
    digest = hashlib.sha256()
    for split in SPLITS:
        for path in sorted((made / split).iterdir()):
            for name in (f"{split}/{path.name}", f"masks/{split}/{path.name}", f"occlusion/{split}/{path.name}"):
                digest.update(f"{hashlib.sha256((made / name).read_bytes()).hexdigest()}  {name}\n".encode())
    assert description["listing_sha256"] == digest.hexdigest()
    assert description["options"] == SMALL.to_dict()


def test_the_asked_share_is_occluded_and_no_camera_is_spared() -> None:
    queries = [sample for sample in plan(SyntheticOptions(test_identities=20)) if sample.split == "query"]
    assert sum(sample.cover is not None for sample in queries) == 0.4 * len(queries)
    for camera in range(1, 5):
        covers = [sample.cover is not None for sample in queries if sample.camera == camera]
        assert sum(covers) == 0.4 * len(covers)
    for split, low, high in (("bounding_box_train", 0.22, 0.28), ("bounding_box_test", 0.08, 0.16)):
        others = [sample.cover is not None for sample in plan(SyntheticOptions()) if sample.split == split]
        assert low < sum(others) / len(others) < high


def test_the_same_options_leave_the_folder_untouched(made: Path) -> None:
    marker = made / LISTING
    before = marker.stat().st_mtime_ns
    assert generate(made, SMALL) == made
    assert marker.stat().st_mtime_ns == before


def test_a_folder_with_other_options_is_refused_with_the_difference(made: Path) -> None:
    before = contents(made)
    with pytest.raises(DataError, match=r"other options: seed 5 instead of 6.*[Cc]hoose another folder"):
        generate(made, SyntheticOptions(**{**vars(SMALL), "seed": 6}))
    assert contents(made) == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty.*synthetic\.json is missing"):
        generate(tmp_path, SMALL)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("text", ["{", "[]", '{"options": 3, "format": 1}'])
def test_a_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LISTING).write_text(text)
    with pytest.raises(DataError, match="cannot be read as the description"):
        generate(tmp_path, SMALL)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / LISTING).write_text(json.dumps({"format": 999, "options": SMALL.to_dict()}))
    with pytest.raises(DataError, match="of format 999"):
        generate(tmp_path, SMALL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise error

    with pytest.raises(error):
        generate(tmp_path / "set", SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_data_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        generate(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_to_the_number_of_images(tmp_path: Path) -> None:
    options = SyntheticOptions(train_identities=1, test_identities=0, cameras=1, distractors=0)
    (tmp_path / "empty").mkdir()
    calls: list[tuple[int, int]] = []
    generate(tmp_path / "empty", options, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cameras": 0}, "cameras is 0"),
        ({"cameras": 10}, "one digit"),
        ({"train_identities": 9_000, "test_identities": 1_000}, "four digits"),
        ({"train_identities": 0, "test_identities": 0}, "between 1 and 9999"),
        ({"occluded_queries": 1.5}, "occluded_queries is 1.5"),
        ({"query_cover": (0.6, 0.3)}, "query_cover"),
        ({"height": 8}, "height is 8"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SyntheticOptions(**wrong)  # type: ignore[arg-type]
