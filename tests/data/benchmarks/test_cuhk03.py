"""CUHK03: packed and extracted, detected and labeled, the new protocol and the classic one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from occluded_reid.data.benchmark import Counts, benchmark_of
from occluded_reid.data.benchmarks.cuhk03 import CUHK03, CUHK03_CLASSIC
from occluded_reid.data.benchmarks.cuhk03_mat import extract_cuhk03
from occluded_reid.data.dataset import ReIDData, load_dataset
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import DataError, MissingExtraError, UnknownOptionError
from occluded_reid.evaluation.ranking.single_shot import rank_single_shot_by
from occluded_reid.matchers import PlainMatcher
from occluded_reid.search.tiles import Tiles

KINDS = ["detected", "labeled"]
# Camera pair -> people -> which of the ten cells hold an image. The last person was seen under one camera only.
CELLS = {1: [[0, 1, 5], [0, 5, 6], [1, 6]], 2: [[0, 5], [2, 3]]}
TESTSETS = [[(1, 1), (2, 1)], [(1, 3), (2, 2)]]


def names_of(pair: int, person: int) -> list[str]:
    cells = CELLS[pair][person - 1]
    return [f"{pair}_{person:03d}_{1 if cell < 5 else 2}_{cell + 1:02d}.png" for cell in cells]


NAMES = [
    name for pair, people in CELLS.items() for person in range(1, len(people) + 1) for name in names_of(pair, person)
]
TRAIN = [*names_of(1, 2), *names_of(2, 2)]
QUERY = ["1_001_1_01.png", "1_001_2_06.png", "1_003_1_02.png", "2_001_2_06.png"]
GALLERY = ["1_001_1_02.png", "1_003_2_07.png", "2_001_1_01.png"]


def pixels(kind: str, name: str) -> np.ndarray:
    seed = int.from_bytes(f"{kind}{name}".encode()) % 2**32
    return np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)


def write_config(root: Path, kind: str, **changes: object) -> None:
    """As its authors have it: columns of numbers from 1, and a column of cells with names."""
    cells = np.empty((len(NAMES), 1), dtype=object)
    cells[:, 0] = NAMES
    place = {name: number for number, name in enumerate(NAMES, start=1)}
    splits = {"train_idx": TRAIN, "query_idx": QUERY, "gallery_idx": GALLERY}
    content = {key: np.array([[place[name]] for name in names], dtype=np.uint16) for key, names in splits.items()}
    camera = np.array([[int(name.split("_")[2])] for name in NAMES], dtype=np.uint8)
    label = np.array([[int(name.split("_")[0]) * 1000 + int(name.split("_")[1])] for name in NAMES], dtype=np.uint16)
    savemat(
        root / f"cuhk03_new_protocol_config_{kind}.mat",
        {**content, "filelist": cells, "camId": camera, "labels": label, **changes},
    )


def write_mat(path: Path) -> None:
    """As MATLAB writes version 7.3: cells are references, columns are rows, an empty cell is two zeros."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        store = file.create_group("#refs#")

        def keep(content: np.ndarray) -> object:
            return store.create_dataset(str(len(store)), data=content).ref

        def cells(shape: tuple[int, int]) -> np.ndarray:
            return np.empty(shape, dtype=object)

        for kind in KINDS:
            outer = cells((1, len(CELLS)))
            for column, (pair, people) in enumerate(CELLS.items()):
                inner = cells((10, len(people)))
                for person, filled in enumerate(people):
                    for cell in range(10):
                        name = f"{pair}_{person + 1:03d}_{1 if cell < 5 else 2}_{cell + 1:02d}.png"
                        content = pixels(kind, name).T if cell in filled else np.zeros(2, dtype=np.uint64)
                        inner[cell, person] = keep(content)
                outer[0, column] = store.create_dataset(str(len(store)), data=inner, dtype=h5py.ref_dtype).ref
            file.create_dataset(kind, data=outer, dtype=h5py.ref_dtype)
        sets = cells((1, len(TESTSETS)))
        for number, people in enumerate(TESTSETS):
            sets[0, number] = keep(np.array(people, dtype=np.float64).T)
        file.create_dataset("testsets", data=sets, dtype=h5py.ref_dtype)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    root = tmp_path / "my cuhk03"
    write_mat(root / "cuhk03_release" / "cuhk-03.mat")
    for kind in KINDS:
        write_config(root, kind)
    return root


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    root = tmp_path / "extracted"
    for kind in KINDS:
        (root / f"images_{kind}").mkdir(parents=True)
        for name in NAMES:
            Image.fromarray(pixels(kind, name)).save(root / f"images_{kind}" / name)
        write_config(root, kind)
    content = {"images": dict.fromkeys(KINDS, len(NAMES)), "testsets": TESTSETS}
    (root / "cuhk03_testsets.json").write_text(json.dumps(content))
    return root


def check_new(data: ReIDData, kind: str) -> None:
    assert [s.path.name for s in data.train] == TRAIN
    assert [s.path.name for s in data.query] == QUERY
    assert [s.path.name for s in data.gallery] == GALLERY
    assert [s.identity for s in data.query] == ["1_001", "1_001", "1_003", "2_001"]
    assert [s.camera for s in data.query] == [1, 2, 1, 2]
    assert data.query[0].name == f"images_{kind}/{QUERY[0]}"
    assert data.benchmark is CUHK03
    assert data.variant == kind
    assert [s.path.name for s in data.unanswerable()] == ["1_001_1_01.png"]
    assert any(f"boxes are {kind}" in note for note in data.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_extracted_images_and_the_official_split(extracted: Path, kind: str) -> None:
    check_new(load_dataset("cuhk03", extracted, images=kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_torchreids_splits(extracted: Path, kind: str) -> None:
    (extracted / f"cuhk03_new_protocol_config_{kind}.mat").unlink()
    (extracted / "cuhk03_testsets.json").unlink()
    paths = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}
    entries = {part: [[f"/home/somebody/data/{name}", 7, 0] for name in some] for part, some in paths.items()}
    (extracted / f"splits_new_{kind}.json").write_text(json.dumps([entries]))
    check_new(load_dataset("cuhk03", extracted, images=kind), kind)
    classic = []
    for people in TESTSETS:
        test = [["C:\\data\\" + name, 0, 0] for pair, person in people for name in names_of(pair, person)]
        classic.append({"train": [], "query": test, "gallery": test})
    (extracted / f"splits_classic_{kind}.json").write_text(json.dumps(classic))
    data = load_dataset("cuhk03", extracted, images=kind, protocol="classic", split=1)
    assert data.identities("query") == ["1_003", "2_002"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_of_market(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "cuhk03-np"
    tree = {
        "bounding_box_train": ["0001_c1_1.png", "0001_c2_2.png"],
        "query": ["0003_c1_21.png", "0003_c2_24.PNG"],
        "bounding_box_test": ["0003_c1_22.png", "0003_c2_25.png", "readme copy.png"],
    }
    for folder, some in tree.items():
        (root / kind / folder).mkdir(parents=True)
        for name in some:
            Image.new("RGB", (4, 8)).save(root / kind / folder / name)
    data = load_dataset("cuhk03", root, images=kind)
    assert [(s.identity, s.camera) for s in data.query] == [("0003", 1), ("0003", 2)]
    assert data.query[0].name == f"{kind}/query/0003_c1_21.png"
    assert len(data.gallery) == 2
    assert "1 images left out" in data.notes[0]
    assert data.benchmark is CUHK03
    assert data.unanswerable() == ()
    with pytest.raises(DataError, match=r"one folder too low\. Give '.*cuhk03-np'"):
        load_dataset("cuhk03", root / kind, images=kind)
    Image.new("RGB", (4, 8)).save(root / kind / "query" / "0001_c1_9.png")
    with pytest.raises(DataError, match=r"1 people are in training and in queries or gallery.*0001"):
        load_dataset("cuhk03", root, images=kind)


@pytest.mark.parametrize("split", [0, 1])
def test_the_classic_protocol(extracted: Path, split: int) -> None:
    data = load_dataset("cuhk03", extracted, images="labeled", protocol="classic", split=split)
    people = [f"{pair}_{person:03d}" for pair, person in TESTSETS[split]]
    assert data.identities("query") == data.identities("gallery") == people
    assert [s.path.name for s in data.query] == [n for pair, person in TESTSETS[split] for n in names_of(pair, person)]
    assert data.query == data.gallery
    assert sorted(s.path.name for s in (*data.train, *data.query)) == NAMES
    assert data.benchmark is CUHK03_CLASSIC
    assert CUHK03_CLASSIC.shots == "single"
    assert data.variant == f"labeled, classic split {split}"
    # Person 2 of pair 2 was seen under one camera only.
    assert [s.identity for s in data.unanswerable()] == (["2_002"] * 2 if split else [])
    assert any("3 people to train on and 2 to test" in note for note in data.notes)


def test_no_query_of_the_classic_protocol_is_answered_by_itself(extracted: Path) -> None:
    data = load_dataset("cuhk03", extracted, protocol="classic", split=1)
    rows = PartEmbeddings(("global",), (torch.eye(len(data.query)),), torch.ones(len(data.query), 1))
    both = EmbeddedSet(rows, *data.labels(data.query), tuple(sample.name for sample in data.query))
    found = rank_single_shot_by(Tiles(rows, rows, PlainMatcher()), both, both, draws=20)
    assert found.unanswerable == len(data.unanswerable()) == 2
    for query, answers in zip(data.query, found.rows, strict=True):
        for row in answers[answers >= 0]:
            assert data.gallery[row].identity == query.identity
            assert data.gallery[row].camera != query.camera


def test_extraction(packed: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    assert extract_cuhk03(packed, progress=lambda done, total: calls.append((done, total))) == packed
    assert calls == [(n, 10) for n in range(1, 11)]
    for kind in KINDS:
        assert sorted(p.name for p in (packed / f"images_{kind}").iterdir()) == NAMES
        for name in NAMES:
            with Image.open(packed / f"images_{kind}" / name) as image:
                assert (np.asarray(image) == pixels(kind, name)).all()
        check_new(load_dataset("cuhk03", packed, images=kind), kind)
    data = load_dataset("cuhk03", packed, protocol="classic", split=1)
    assert data.identities("query") == ["1_003", "2_002"]


def test_extraction_elsewhere_is_a_data_set_of_its_own(packed: Path, tmp_path: Path) -> None:
    write_config(packed / "cuhk03_release", "labeled")
    (packed / "cuhk03_new_protocol_config_labeled.mat").unlink()
    before = sorted(p.relative_to(packed) for p in packed.rglob("*"))
    out = extract_cuhk03(packed, tmp_path / "out" / "images")
    for kind in KINDS:
        check_new(load_dataset("cuhk03", out, images=kind), kind)
    assert sorted(p.relative_to(packed) for p in packed.rglob("*")) == before


def test_extraction_is_done_once_and_goes_on(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract_cuhk03(packed)
    kept, lost = (packed / "images_labeled" / name for name in NAMES[:2])
    Image.new("RGB", (4, 8)).save(kept)  # ours now: it must not be written again
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        extract_cuhk03(packed)
    lost.unlink()
    extract_cuhk03(packed)
    with Image.open(kept) as image, Image.open(lost) as again:
        assert not np.asarray(image).any()
        assert (np.asarray(again) == pixels("labeled", lost.name)).all()
    (packed / "cuhk03_testsets.json").unlink()
    extract_cuhk03(packed)
    assert (packed / "cuhk03_testsets.json").is_file()


def test_images_that_are_still_packed(packed: Path) -> None:
    for root in (packed, packed / "cuhk03_release"):
        for protocol in ("new", "classic"):
            with pytest.raises(DataError, match=r"still packed in '.*cuhk-03\.mat'.*extract_cuhk03\('.*my cuhk03'\)"):
                load_dataset("cuhk03", root, protocol=protocol)
    extract_cuhk03(packed)
    (packed / "cuhk03_new_protocol_config_detected.mat").unlink()
    with pytest.raises(DataError, match=r"neither cuhk03_new_protocol_config_detected\.mat nor .*protocol='classic'"):
        load_dataset("cuhk03", packed)
    assert load_dataset("cuhk03", packed, protocol="classic").query


def test_h5py_is_asked_for_by_name(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'occluded-reid\[cuhk03\]'"):
        extract_cuhk03(packed)


def test_what_cannot_be_extracted(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "set"
    root.mkdir()
    (root / "readme.txt").touch()
    with pytest.raises(DataError, match=r"neither cuhk03_release/cuhk-03\.mat nor cuhk-03\.mat"):
        extract_cuhk03(root)
    (root / "cuhk-03.mat").write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"cannot be read as a MATLAB file of version 7\.3"):
        extract_cuhk03(root)
    with h5py.File(root / "cuhk-03.mat", "w") as file:
        file.create_dataset("labeled", data=np.zeros(3))
    with pytest.raises(DataError, match="has no cells 'detected'"):
        extract_cuhk03(root)
    write_mat(root / "cuhk-03.mat")
    with h5py.File(root / "cuhk-03.mat", "r+") as file:
        first = file[file[file["labeled"][0, 0]][0, 0]]
        first[...] = 0
        name = first.name
        del file[name]
        wrong = file.create_dataset(name, data=np.zeros((3, 4, 8)))
        people = file[file["labeled"][0, 0]]
        people[0, 0] = wrong.ref
    with pytest.raises(DataError, match=r"image 1 of person 1_001 in '.*' is float64"):
        extract_cuhk03(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_idx": np.array([[99]])}, "query_idx of .* points beyond its list of"),
        ({"query_idx": np.array([[0]])}, "query_idx of .* points beyond its list of"),
        ({"query_idx": np.array([[1], [1]])}, "entry 2 of query of .* again"),
        ({"query_idx": np.zeros((0, 1))}, "query of .* is empty"),
        ({"train_idx": np.array([[1]])}, "1 people are in training and in queries or gallery"),
        ({"filelist": np.array([[f"../{name}"] for name in NAMES], dtype=object)}, "leads out of"),
        ({"filelist": np.array([[f"9{name}"] for name in NAMES], dtype=object)}, "no file in"),
    ],
)
def test_splits_that_are_wrong(extracted: Path, changes: dict[str, np.ndarray], message: str) -> None:
    write_config(extracted, "detected", **changes)
    with pytest.raises(DataError, match=message):
        load_dataset("cuhk03", extracted)


def test_files_of_splits_that_are_damaged(extracted: Path) -> None:
    config = extracted / "cuhk03_new_protocol_config_detected.mat"
    whole = config.read_bytes()
    savemat(config, {"something": np.zeros(3)})
    with pytest.raises(DataError, match=r"cannot be read as a split of CUHK03.*filelist"):
        load_dataset("cuhk03", extracted)
    for content in (b"", b"text", whole[: len(whole) // 2]):
        config.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a split of CUHK03"):
            load_dataset("cuhk03", extracted)
    for content in ("{}", '{"testsets": [3]}', "[[", '{"testsets": 3}'):
        (extracted / "cuhk03_testsets.json").write_text(content)
        with pytest.raises(DataError, match=r"holds no splits|could not be read as JSON"):
            load_dataset("cuhk03", extracted, protocol="classic")


def test_options(extracted: Path) -> None:
    assert load_dataset("cuhk03", extracted).variant == "detected"
    with pytest.raises(DataError, match=r"^split is 2; .* has 2 splits, counted from 0"):
        load_dataset("cuhk03", extracted, protocol="classic", split=2)
    with pytest.raises(DataError, match="split is -1"):
        load_dataset("cuhk03", extracted, protocol="classic", split=-1)
    with pytest.raises(DataError, match=r"split=3 is for protocol='classic'"):
        load_dataset("cuhk03", extracted, split=3)
    with pytest.raises(UnknownOptionError, match="images"):
        load_dataset("cuhk03", extracted, images="both")


def test_half_an_extraction(extracted: Path) -> None:
    (extracted / "images_detected" / QUERY[2]).unlink()
    with pytest.raises(DataError, match=r"entry 3 of query of .* names '1_003_1_02\.png', which is no file"):
        load_dataset("cuhk03", extracted)
    for name in names_of(1, 1):
        (extracted / "images_detected" / name).unlink()
    with pytest.raises(DataError, match=r"no image of 1 of them \(1_001\)"):
        load_dataset("cuhk03", extracted, protocol="classic")


def test_counts() -> None:
    benchmark = benchmark_of("cuhk03")
    assert benchmark is CUHK03
    assert benchmark.counts["detected"] == {
        "train": Counts(7_365, 767),
        "query": Counts(1_400, 700),
        "gallery": Counts(5_332, 700),
    }
    assert benchmark.counts["labeled"] == {
        "train": Counts(7_368, 767),
        "query": Counts(1_400, 700),
        "gallery": Counts(5_328, 700),
    }
