"""Whom a model was trained on: kept with it, without listing them, and without changing what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from occluded_reid import ReIDData, ReIDModel, Sample, load_model
from occluded_reid.data.holdout import holdout, validation_side
from occluded_reid.errors import CheckpointError
from occluded_reid.models.provenance import TrainedOn

Build = Callable[..., ReIDModel]


def toy(name: str = "toy") -> ReIDData:
    people = ("anna", "berta", "carla", "dora", "emma", "frida")
    samples = [Sample(f"{p}_{c}_{i}.png", Path("x"), p, c) for p in people for c in range(2) for i in range(2)]
    return ReIDData(name, Path(), tuple(samples))


def test_the_record_knows_everybody_and_names_nobody() -> None:
    record = TrainedOn.of(toy())
    assert (record.data, record.images, len(record.identities)) == ("toy", 24, 6)
    assert record.identities == tuple(
        sorted(hashlib.sha256(f"toy\0{p}".encode()).hexdigest()[:12] for p in toy().identities("train"))
    )
    assert "anna" not in json.dumps(record.to_dict())
    assert record.among("toy", ["emma", "zoe", "anna"]) == ["anna", "emma"]
    assert record.among("other", ["anna"]) == []
    split = validation_side(holdout(toy(), 2, 0), 2, 0)
    record = TrainedOn.of(split)
    assert len(record.identities) == 2
    assert [part.kind for part in record.split] == ["holdout", "validation"]
    assert record.among("toy", split.identities("query")) == []
    assert record.among("toy", split.identities("train")) == split.identities("train")


def test_what_came_before_is_not_forgotten() -> None:
    first = TrainedOn.of(toy("first"))
    second = TrainedOn.of(replace(toy("second"), train=toy().train[:4]), first)
    assert second.among("first", ["emma"]) == ["emma"]
    assert second.among("second", ["emma", "anna"]) == ["anna"]
    assert TrainedOn.of(toy("first"), first) == first
    again = replace(toy("second"), train=toy().train[:4])
    assert TrainedOn.of(again, second) == second, "going on with the same images adds nothing"
    assert TrainedOn.from_dict(json.loads(json.dumps(second.to_dict()))) == second


def test_a_model_carries_it_and_stays_what_it_is(tiny: Build, tmp_path: Path) -> None:
    model = tiny(None)
    before = model.fingerprint
    model.save(tmp_path / "none")
    assert load_model(tmp_path / "none").trained_on is None
    assert "trained_on" not in json.loads((tmp_path / "none" / "model.json").read_text())
    model.trained_on = TrainedOn.of(toy())
    model.save(tmp_path / "known")
    loaded = load_model(tmp_path / "known")
    assert loaded.trained_on == model.trained_on
    assert loaded.fingerprint == model.fingerprint == before


@pytest.mark.parametrize(
    "damage",
    [
        [],
        {},
        {"data": 1, "images": 1, "identities": [], "split": []},
        {"data": "toy", "images": "1", "identities": [], "split": []},
        {"data": "toy", "images": 1, "identities": [1], "split": []},
        {"data": "toy", "images": 1, "identities": None, "split": []},
        {"data": "toy", "images": 1, "identities": [], "split": [], "before": 3},
    ],
)
def test_a_damaged_record_is_refused(tiny: Build, tmp_path: Path, damage: Any) -> None:
    model = tiny(None)
    model.trained_on = SimpleNamespace(to_dict=lambda: damage)  # type: ignore[assignment]
    model.save(tmp_path)
    with pytest.raises(CheckpointError, match="what the model was trained on cannot be read"):
        load_model(tmp_path)
