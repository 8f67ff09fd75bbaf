"""A teacher's embeddings: of the clean image, computed once, and what the student's batches get of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from occluded_reid import build_model, load_model
from occluded_reid.config import TeacherConfig, load_recipe
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import CheckpointError, ImageError, RecipeError
from occluded_reid.files import read_safetensors, write_safetensors
from occluded_reid.training import train
from occluded_reid.training.batches import make_loader
from occluded_reid.training.teacher import Teacher, one_vector

STUDENT = {
    "name": "student",
    "model": {
        "input": {"height": 64, "width": 32},
        "backbone": "test_efficientnet",
        "heads": {"global": {"type": "global", "options": {"set_width": 8}}},
        "losses": {"distillation": {"type": "distillation", "on": "global", "options": {"width": 24}}},
    },
    "data": {
        "batch": 8,
        "masks": 8,
        "views": "clean_and_occluded",
        "augment": ["flip", {"type": "occlude", "options": {"p": 1.0}}],
    },
    "optim": {"epochs": 1, "average": 0.9},
}


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of two slots, 8 and 16 numbers."""
    folder = tmp_path_factory.mktemp("teacher")
    content = {
        "name": "tutor",
        "model": {
            "input": {"height": 64, "width": 32},
            "backbone": "test_efficientnet",
            "heads": {
                "global": {"type": "global", "options": {"set_width": 8}},
                "other": {"type": "global", "options": {"set_width": 16, "slot": "other"}},
            },
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build_model(content).save(folder / "model")
    return folder / "model"


def test_rows_are_what_the_teacher_says_of_the_clean_images(
    teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    data, model = tiny.make_data(data_folder), load_model(teacher_folder)
    rows = Teacher(TeacherConfig(model=str(teacher_folder)), tmp_path)(data.train[5:9])
    for sample, row in zip(data.train[5:9], rows, strict=True):
        given = model.embed(model.preprocess([sample.path]))
        parts = [vector[0] / vector[0].norm() for vector in given.embeddings]
        assert torch.allclose(row, torch.cat(parts), atol=1e-5)


def test_a_slot_that_is_not_seen_teaches_nothing() -> None:
    rows = PartEmbeddings(("a", "b"), (torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]])), torch.tensor([[1.0, 0.0]]))
    assert torch.allclose(one_vector(rows), torch.tensor([[0.6, 0.8, 0.0]]))


def test_nothing_is_computed_twice(
    teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = tiny.make_data(data_folder), TeacherConfig(model=str(teacher_folder), cache=str(tmp_path / "kept"))
    seen: list[int] = []
    first = Teacher(config, tmp_path / "unused", lambda done, total: seen.append(total))(data.train[:10])
    renamed = shutil.copy(data.train[3].path, tmp_path / "renamed.png")
    again = Teacher(config, tmp_path / "unused", lambda done, total: seen.append(total))
    rows = again([replace(data.train[3], path=Path(renamed)), *data.train[8:12]])
    assert seen == [10, 2], "ten at first, then the two that were not there"
    assert torch.equal(rows[0], first[3])
    assert torch.equal(rows[1:3], first[8:10])
    assert not (tmp_path / "unused").exists()


def test_a_damaged_or_foreign_cache_is_named(
    teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    data, teacher = tiny.make_data(data_folder), Teacher(TeacherConfig(model=str(teacher_folder)), tmp_path)
    teacher(data.train[:4])
    tensors, metadata = read_safetensors(teacher.file)
    write_safetensors(teacher.file, {"embeddings": tensors["embeddings"][:, :7]}, metadata)
    with pytest.raises(CheckpointError, match="wanted one row of 24 numbers"):
        teacher(data.train[:4])
    teacher.file.write_bytes(teacher.file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=teacher.file.name):
        teacher(data.train[:4])


def test_a_missing_image_is_named(teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path) -> None:
    data = tiny.make_data(data_folder)
    with pytest.raises(ImageError, match=r"gone\.png"):
        Teacher(TeacherConfig(model=str(teacher_folder)), tmp_path)(
            [replace(data.train[0], path=tmp_path / "gone.png")]
        )


def test_both_views_of_an_image_are_taught_the_same(
    teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    data, teacher = tiny.make_data(data_folder), Teacher(TeacherConfig(model=str(teacher_folder)), tmp_path)
    loader = make_loader(data, load_recipe(STUDENT), teacher=teacher)
    batch = next(loader.batches(1))
    rows = {sample.name: row for sample, row in zip(data.train, teacher(data.train), strict=True)}
    assert batch.targets.teacher is not None
    for name, row in zip(batch.targets.path, batch.targets.teacher, strict=True):
        assert torch.equal(row, rows[name])


def test_training_without_a_label_loss_needs_a_teacher(
    teacher_folder: Path, data_folder: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    data = tiny.make_data(data_folder)
    with pytest.raises(RecipeError, match=r"data\.teacher names none"):
        train(STUDENT, data, tmp_path / "none", show=False)
    content = {**STUDENT, "data": {**STUDENT["data"], "teacher": {"model": str(teacher_folder)}}}
    result = train(content, data, tmp_path / "run", show=False)
    assert result.history[0].losses["distillation"] > 0
    model = load_model(tmp_path / "run/model")
    assert model.slots == {"global": 8}
    assert [file.suffix for file in (tmp_path / "run/teacher").iterdir()] == [".safetensors"]
