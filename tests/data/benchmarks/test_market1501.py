"""The Market-1501 layout: what is kept, what is dropped, and roots that are wrong by a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occluded_reid.data.benchmarks.market1501 import load_market1501
from occluded_reid.data.dataset import ReIDData, Sample, load_dataset
from occluded_reid.errors import DataError, MaskError, UnknownOptionError
from occluded_reid.registry import DATASETS

TRAIN = ["0002_c1s1_000451_03.jpg", "0002_c3s1_000451_01.JPG", "0007_c6s3_077419_03.png", "-1_c1s1_1_1.jpg"]
QUERY = ["0001_c1s1_001051_00.jpg", "0003_c2s1_001051_00.jpg"]
GALLERY = ["0001_c2s1_1_0.jpg", "0003_c1s1_1_0.tif", "0000_c4s1_1_0.jpg", "0000_c5s1_1_0.jpg", "-1_c2s1_9_9.jpg"]
TREE = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}


def plant(root: Path, tree: dict[str, list[str]]) -> Path:
    for folder, names in tree.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (2, 4)).save(root / folder / name)
    return root


def names(samples: Iterable[Sample]) -> list[str]:
    return [sample.path.name for sample in samples]


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return plant(tmp_path / "a market", TREE)


def test_whole_tree(market: Path) -> None:
    (market / "query" / "Thumbs.db").touch()
    data = load_dataset("market1501", market)
    assert names(data.train) == sorted(TRAIN[:3])
    assert names(data.query) == QUERY
    assert names(data.gallery) == sorted(GALLERY[:4])
    assert data.distractors == {"0000"}
    assert data.train[0] == Sample(
        "bounding_box_train/0002_c1s1_000451_03.jpg", market / "bounding_box_train" / TRAIN[0], "0002", 1
    )
    assert [sample.camera for sample in data.train] == [1, 3, 6]
    assert data.train_classes() == {"0002": 0, "0007": 1}
    assert data.identities("gallery") == ["0001", "0003"]
    assert [note for note in data.notes if "junk" in note] == [
        "bounding_box_train: 1 images left out, junk, identity -1 (-1_c1s1_1_1.jpg)",
        "bounding_box_test: 1 images left out, junk, identity -1 (-1_c2s1_9_9.jpg)",
    ]
    assert data.unanswerable() == ()
    assert "train 3 images of 2 identities, query 2 images of 2 identities" in data.format_card()


def test_distractors_never_train_and_never_ask(tmp_path: Path) -> None:
    tree = {name: [*files, "0000_c1s1_7_7.jpg"] for name, files in TREE.items()}
    data = load_market1501(plant(tmp_path / "m", tree))
    assert "0000" not in data.train_classes()
    assert all(sample.identity != "0000" for sample in (*data.train, *data.query))
    assert sum(sample.identity == "0000" for sample in data.gallery) == 3
    assert sum("distractors, which belong in the gallery" in note for note in data.notes) == 2


def test_labels_mean_the_same_on_both_sides(market: Path) -> None:
    data = load_market1501(market)
    query, query_cameras = data.labels(data.query)
    gallery, _ = data.labels(data.gallery)
    assert query.dtype == query_cameras.dtype == np.int64
    for q, number in zip(data.query, query, strict=True):
        for g, other in zip(data.gallery, gallery, strict=True):
            assert (number == other) == (q.identity == g.identity)
    # The numbers do not depend on which samples are asked for together.
    assert data.labels(data.query[1:])[0].tolist() == query[1:].tolist()
    with pytest.raises(DataError, match="identity 'x' of 'n' is not in"):
        data.labels([Sample("n", market, "x", 0)])


def test_only_a_train_folder(tmp_path: Path) -> None:
    data = load_market1501(plant(tmp_path / "m", {"bounding_box_train": TRAIN}))
    assert (len(data.train), data.query, data.gallery) == (3, (), ())
    assert any("come from holdout=N" in note for note in data.notes)
    with pytest.raises(DataError, match="has no query/ and no bounding_box_test/, only bounding_box_train/"):
        load_market1501(tmp_path / "m", train_only=False)


def test_train_only_leaves_the_test_folders_alone(market: Path) -> None:
    assert load_dataset("market1501", market, train_only=True).query == ()


def test_evaluation_folders_without_training(tmp_path: Path) -> None:
    data = load_market1501(plant(tmp_path / "m", {"query": QUERY, "bounding_box_test": GALLERY}))
    assert (len(data.train), len(data.query)) == (0, 2)


def test_queries_without_a_gallery_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no bounding_box_test/, only query/"):
        load_market1501(plant(tmp_path / "m", {"query": QUERY}))


def test_a_root_wrong_by_a_folder_is_told(market: Path) -> None:
    with pytest.raises(DataError, match="one too high") as high:
        load_market1501(market.parent)
    assert f"Give '{market}'" in str(high.value)
    with pytest.raises(DataError, match="one folder too low") as low:
        load_market1501(market / "query")
    assert f"Give '{market}'" in str(low.value)


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_market1501(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        load_market1501(tmp_path / "empty")
    plant(tmp_path / "ids", {"anna": ["1.jpg"]})
    with pytest.raises(DataError, match="use the data set 'folder'"):
        load_market1501(tmp_path / "ids")
    plant(tmp_path / "names", {"bounding_box_train": ["anna.jpg", "0001_c0s1.jpg"]})
    with pytest.raises(DataError, match="holds 2 images, none of them named like"):
        load_market1501(tmp_path / "names")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        load_dataset("market1501", tmp_path / "file")


def test_a_strange_name_among_others_is_told(tmp_path: Path) -> None:
    data = load_market1501(plant(tmp_path / "m", {"bounding_box_train": [*TRAIN, "cover.jpg"]}))
    assert len(data.train) == 3
    assert any("not named like" in note and "cover.jpg" in note for note in data.notes)


def test_masks_beside_the_images_are_attached(market: Path) -> None:
    for kind in ("masks", "occlusion"):
        (market / kind / "query").mkdir(parents=True)
        Image.new("L", (2, 4)).save(market / kind / "query" / "0001_c1s1_001051_00.png")
    first, second = load_market1501(market).query
    assert first.mask == market / "masks/query/0001_c1s1_001051_00.png"
    assert first.occlusion == market / "occlusion/query/0001_c1s1_001051_00.png"
    assert second.mask is second.occlusion is None


def test_a_folder_of_masks_mirrors_the_tree(market: Path, tmp_path: Path) -> None:
    masks = tmp_path / "parsing"
    (masks / "bounding_box_train").mkdir(parents=True)
    Image.new("L", (2, 4)).save(masks / "bounding_box_train" / "0002_c3s1_000451_01.png")
    data = load_dataset("market1501", market, masks=masks)
    assert [sample.mask is not None for sample in data.train] == [False, True, False]
    assert data.train[1].mask == masks / "bounding_box_train/0002_c3s1_000451_01.png"
    with pytest.raises(MaskError, match="does not exist"):
        load_dataset("market1501", market, masks=tmp_path / "none")
    with pytest.raises(MaskError, match="holds no mask for any of the 9 images"):
        load_dataset("market1501", market, masks=masks / "bounding_box_train")


def test_options_are_checked(market: Path) -> None:
    with pytest.raises(UnknownOptionError, match="Did you mean 'train_only'"):
        load_dataset("market1501", market, trainonly=True)


def test_a_loader_of_another_package(tmp_path: Path) -> None:
    DATASETS.register("test_other")(lambda root, *, size=1: ReIDData("other", root, (Sample("a", root, "a", size),)))
    DATASETS.register("test_wrong")(lambda root: [root])
    try:
        assert load_dataset("test_other", tmp_path, size=3).train[0].camera == 3
        with pytest.raises(DataError, match="gave list; its loader must return ReIDData"):
            load_dataset("test_wrong", tmp_path)
    finally:
        DATASETS.unregister("test_other")
        DATASETS.unregister("test_wrong")
