"""Names that are no UTF-8, as old archives leave them, are names like others: hashed, held out, recorded, written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from occluded_reid.data.dataset import ReIDData, load_dataset
from occluded_reid.data.holdout import validation_side
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.verify import verify_dataset
from occluded_reid.errors import GalleryError
from occluded_reid.evaluation import Protocol, evaluate_matrix
from occluded_reid.evaluation.embed import Occlusion
from occluded_reid.files import read_json, write_json
from occluded_reid.gallery.storage.records import make_records
from occluded_reid.models.provenance import TrainedOn

ODD = os.fsdecode("\u5f20".encode("gbk"))  # a Chinese name of an archive from a Chinese Windows


@pytest.fixture
def data(tmp_path: Path) -> ReIDData:
    for number, person in enumerate((ODD, "anna", "bert", "cora")):
        (tmp_path / person).mkdir()
        for image in range(6):
            Image.new("RGB", (4, 8), (number * 60, image * 40, 0)).save(
                tmp_path / person / f"{image}_c{image % 3}_{ODD}.png"
            )
    return load_dataset("folder", tmp_path, camera_pattern=r"_c(\d)")


def test_held_out_and_recorded(data: ReIDData) -> None:
    assert ODD in data.identities("train")
    chosen = {person for seed in range(8) for person in load_held_out(data, seed).identities("query")}
    assert ODD in chosen
    record = TrainedOn.from_dict(TrainedOn.of(data).to_dict())
    assert record.among(data.name, [ODD, "nobody"]) == [ODD]
    assert len(validation_side(data, 2).query) == 6


def load_held_out(data: ReIDData, seed: int) -> ReIDData:
    return load_dataset("folder", data.root, holdout=2, seed=seed, camera_pattern=r"_c(\d)")


def test_verified_and_written(data: ReIDData, tmp_path_factory: pytest.TempPathFactory) -> None:
    report = verify_dataset(data)
    assert report.ok
    file = tmp_path_factory.mktemp("out") / "report.json"
    (data.root / ODD / "broken.jpg").write_bytes(b"no image")
    report = verify_dataset(load_dataset("folder", data.root))
    write_json(file, report.to_dict())
    assert read_json(file)["unreadable"][0]["name"] == f"{ODD}/broken.jpg"
    assert json.loads(file.read_bytes())["ok"] is False


def test_occluded_and_evaluated(data: ReIDData) -> None:
    occlusion = Occlusion(0.3, Occluders.generated(0))
    draws = {tuple(occlusion.generator(sample.name).random(3)) for sample in data.train}
    assert len(draws) == len(data.train)
    matrix = evaluate_matrix([[0.0]], [0], [0], [0], [1], Protocol(dataset=ODD))  # type: ignore[arg-type]
    assert read_json_of(matrix.to_json())["protocol"]["dataset"] == ODD


def read_json_of(text: str) -> dict:
    return json.loads(text)


def test_a_gallery_says_that_it_cannot_hold_such_a_key() -> None:
    with pytest.raises(GalleryError, match=r"udcd5.udcc5/1\.png'; .*rename a file whose name is no UTF-8"):
        make_records(1, [f"{ODD}/1.png"], {})
