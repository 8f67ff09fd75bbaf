"""Bad input, thing by thing: where each is tested alone, and here what becomes of it in the main job.

Every entry of TESTED_ALONE is a test that shows the message close to where it is made. The tests below take the same
things through the library's face, from files to training, gallery and search, and look for what is left on disk.
"""

from __future__ import annotations

import ast
import errno
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import Gallery, ReIDData, ReIDModel, build_model, embed_samples, load_dataset, load_model, train
from occluded_reid.data.verify import verify_dataset
from occluded_reid.errors import (
    CheckpointError,
    DataError,
    EmbeddingError,
    GalleryError,
    GalleryMismatchError,
    ImageError,
    MaskError,
    OccludedReIDError,
    RecipeError,
    TrainingError,
    UnknownNameError,
)

TESTS = Path(__file__).parent

# What is bad -> the tests that show the message where it is made, as folder/file.py::function.
TESTED_ALONE = {
    "empty folder": [
        "data/test_folder.py::test_nothing_to_find",
        "data/benchmarks/test_market1501.py::test_folders_that_are_something_else",
        "cli/test_help_and_usage.py::test_the_installed_command_speaks_to_the_shell",
    ],
    "one identity": ["training/test_trainer.py::test_bad_data", "data/test_loader.py::test_bad_input"],
    "image of 1×1": ["data/test_images.py::test_one_pixel_is_an_image"],
    "image of 20,000×20,000": ["data/test_images.py::test_too_large_is_refused_before_decoding"],
    "CMYK": [
        "data/test_images.py::test_cmyk_becomes_rgb",
        "visualize/test_canvas.py::test_every_kind_of_image_becomes_rgb",
    ],
    "palette": ["data/test_images.py::test_palette_and_transparency_are_laid_on_white"],
    "16-bit grey": ["data/test_images.py::test_sixteen_bit_grey_is_scaled_not_clipped"],
    "truncated JPEG": [
        "data/test_images.py::test_broken_files_are_named",
        "data/test_cache.py::test_broken_files_are_named_or_skipped",
        "data/test_verify.py::test_unreadable_files_are_named",
        "gallery/storage/test_store.py::test_an_unreadable_image_is_named_and_nothing_of_its_group_added",
        "cli/test_data_and_demo.py::test_a_truncated_file_is_named_and_fails",
    ],
    "mask of another size": [
        "data/test_images.py::test_wrong_masks_are_named",
        "data/test_cache.py::test_masks_that_do_not_fit",
    ],
    "mask with class 9": ["data/test_images.py::test_wrong_masks_are_named"],
    "mask missing": [
        "data/test_verify.py::test_masks_that_are_missing_or_wrong",
        "training/test_trainer.py::test_bad_data",
        "evaluation/test_embed.py::test_what_is_missing_is_named",
        "losses/test_sorn_losses.py::test_a_batch_without_masks_says_where_they_come_from",
    ],
    "NaN embeddings": [
        "test_embeddings.py::test_nan_and_infinity_are_refused_and_the_row_is_named",
        "gallery/storage/test_store.py::test_an_image_that_gives_nan_is_named",
    ],
    "k larger than the gallery": ["search/test_exact.py::test_k_beyond_the_gallery_gives_all_of_it"],
    "gallery of another model": ["gallery/storage/test_store.py::test_the_wrong_model_is_refused_with_both_named"],
    "recipe with a misspelt key": [
        "test_config.py::test_a_misspelt_key_is_named_with_the_closest_one",
        "cli/test_help_and_usage.py::test_a_wrong_word_in_a_recipe_is_two_and_helps",
    ],
    "wheel whose weights were altered, or that has none": [
        "models/test_packaged.py::test_an_altered_file_is_refused",
        "models/test_packaged.py::test_an_installation_without_weights_says_so",
        "cli/test_first_minute.py::test_without_weights_in_the_installation",
    ],
    "box without area": ["data/test_crops.py::test_a_box_without_area_is_refused_or_told"],
    "hub out of reach, or a pickle on it": ["backbones/test_hub_files.py::test_what_is_no_model_there"],
    "unknown head": [
        "test_registry.py::test_unknown_names_suggest_the_closest",
        "models/test_build.py::test_what_does_not_fit_is_said_when_it_is_built",
    ],
    "num_classes that does not fit the checkpoint": [
        "models/test_export.py::test_classifiers_come_back_only_when_asked_for"
    ],
    "identity with one image under P×K": ["data/test_samplers.py::test_pk_shows_every_image_of_a_small_identity"],
    "map too small for the stripes": ["models/test_build.py::test_what_does_not_fit_is_said_when_it_is_built"],
    "two providers of one slot's visibility": [
        "models/test_build.py::test_what_does_not_fit_is_said_when_it_is_built",
        "heads/test_sgam_heads.py::test_one_head_gives_a_regions_visibility",
    ],
    "inference build asked for a loss": [
        "models/test_build.py::test_inference_build_has_no_classifier_and_no_loss",
        "models/test_systems.py::test_saved_and_loaded_it_gives_the_same_embeddings",
    ],
    "matcher that wants another slot": [
        "models/test_systems.py::test_a_matcher_that_does_not_fit_is_refused_when_the_model_is_built"
    ],
    "empty folder of occluders": ["data/test_occlusion.py::test_bad_input", "data/test_npo.py::test_refused"],
    "SGAM without a parser": ["heads/test_sgam_heads.py::test_no_parser_says_how_to_get_one"],
    "teacher whose classes do not match": [
        "parsing/test_onnx.py::test_classes_that_do_not_fit_are_said_when_the_teacher_is_made"
    ],
    "read-only output folder": [
        "test_files.py::test_a_read_only_folder",
        "training/test_trainer.py::test_output_that_cannot_be_written",
        "models/test_export.py::test_a_folder_that_cannot_be_made_is_named",
        "cli/test_help_and_usage.py::test_pictures_and_reports_that_cannot_be_written",
    ],
    "disk full while writing a checkpoint": [
        "training/test_training_checkpoint.py::test_disk_full",
        "training/test_trainer.py::test_disk_full_keeps_the_checkpoint_before",
        "models/test_export.py::test_a_full_disk_leaves_nothing_half_written",
        "gallery/storage/test_store.py::test_create_refuses_what_it_cannot_make",
    ],
}

SMALL = {
    "model.input": {"height": 96, "width": 32},
    "model.backbone": {"type": "test_efficientnet", "options": {"last_stride": 1}},
    "model.heads.global.options.total_width": 48,
    "model.heads.semantic.options.widths": [16, 16],
    "data.batch": 4,
    "optim.epochs": 1,
}


@pytest.mark.parametrize(("where", "what"), sorted({(w, what) for what, ws in TESTED_ALONE.items() for w in ws}))
def test_what_is_said_to_be_tested_is_tested(where: str, what: str) -> None:
    file, name = where.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(found) == 1, f"{what}: {where} does not exist"
    asserts = [n for n in ast.walk(found[0]) if isinstance(n, ast.Assert) or "pytest.raises" in ast.unparse(n)]
    assert asserts, f"{what}: {where} asserts nothing"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three people with four noisy pictures each, and their part masks beside them."""
    generator = np.random.default_rng(0)
    for person in ("anna", "bert", "cleo"):
        for number in range(4):
            image, mask = (tmp_path / tree / person / f"{number}.png" for tree in ("photos", "masks"))
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (96, 32, 3), dtype=np.uint8)).save(image)
            Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8), 12)[:, None].repeat(32, 1)).save(mask)
    return tmp_path / "photos"


def people(photos: Path, **options: Any) -> ReIDData:
    return load_dataset("folder", photos, masks=photos.parent / "masks", **options)


@pytest.fixture
def learn(photos: Path, tmp_path: Path) -> Callable[..., None]:
    """Train for an epoch on the photos as they are now, into tmp_path/run."""
    from occluded_reid.config import load_recipe

    def run(**changes: Any) -> None:
        train(load_recipe("sorn_lite", {**SMALL, **changes}), people(photos), tmp_path / "run", show=False)

    return run


def png_header(width: int, height: int) -> bytes:
    """A file that promises an image of this size and holds next to nothing of it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_the_photos_train_as_they_are(learn: Callable[..., None], tmp_path: Path) -> None:
    """Without this, the tests below might fail for another reason than the one that they look for."""
    learn()
    assert load_model(tmp_path / "run" / "model").slots["global"] == 48


def odd_images(folder: Path) -> Iterator[Path]:
    """Images that are unusual and good."""
    folder.mkdir(exist_ok=True)
    colours = np.random.default_rng(1).integers(0, 256, (40, 20, 4), dtype=np.uint8)
    pictures = {
        "one_pixel.png": Image.fromarray(colours[:1, :1, :3]),
        "cmyk.jpg": Image.fromarray(colours, "CMYK"),
        "palette.png": Image.fromarray(colours[..., :3]).quantize(16),
        "palette_with_transparency.gif": Image.fromarray(colours, "RGBA").quantize(16),
        "grey16.png": Image.fromarray(colours[..., 1].astype(np.uint16) * 257),
        "grey.png": Image.fromarray(colours[..., 0]),
        "one_bit.png": Image.fromarray(colours[..., 0] > 100),
        "one_row.png": Image.fromarray(colours[:1, :, :3]),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
        yield folder / name


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_odd_images_go_the_whole_way(tiny: Callable[..., ReIDModel], tmp_path: Path) -> None:
    model = tiny(None)
    paths = list(odd_images(tmp_path / "odd"))
    rows = model.embed(model.preprocess(paths))
    assert all(bool(slot.isfinite().all()) for slot in rows.embeddings)
    assert len({tuple(row.tolist()) for row in rows.slot("global")}) == len(paths), "none is taken for another"
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        assert gallery.add(paths).added == len(paths)
        # k is larger than the gallery: all of it comes back, the image itself first.
        hits = gallery.search(paths, 500, exclude_self=False)
    assert [len(found) for found in hits] == [len(paths)] * len(paths)
    assert [found[0].key for found in hits] == [path.as_posix() for path in paths]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bomb.png", png_header(20_000, 20_000), "bomb.png.*Scale it down, or cut the person out of it"),
        ("empty.png", b"", "empty.png' is empty"),
        ("text.png", b"no picture at all", "text.png' is not an image that can be read"),
        ("cut.jpg", None, "cut.jpg' is damaged or truncated"),
    ],
    ids=["bomb", "empty", "text", "cut"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_image_stops_training_and_indexing_by_its_name(
    tiny: Callable[..., ReIDModel],
    learn: Callable[..., None],
    photos: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is None:
        Image.open(photos / "anna" / "0.png").save(tmp_path / "whole.jpg")
        content = (tmp_path / "whole.jpg").read_bytes()[:900]
    (photos / "bert" / name).write_bytes(content)
    (photos.parent / "masks" / "bert" / name).with_suffix(".png").write_bytes(
        (photos.parent / "masks" / "bert" / "0.png").read_bytes()
    )
    with pytest.raises(ImageError, match=message):
        learn()
    assert not (tmp_path / "run").exists()
    data, model = people(photos), tiny(None)
    with pytest.raises(ImageError, match=message):
        embed_samples(model, data, data.train)
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        with pytest.raises(ImageError, match=message):
            gallery.add([sample.path for sample in data.train])
        assert len(gallery) == 0
        with pytest.raises(ImageError, match=message):
            gallery.search(photos / "bert" / name)
    (finding,) = verify_dataset(data).unreadable
    assert finding.name == f"bert/{name}"
    assert re.search(message, finding.reason)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((48, 16), np.uint8), r"2\.png' is 16×48, its image 32×96"),
        (np.full((96, 32), 9, np.uint8), r"2\.png' holds class 9; wanted 0 … 7"),
        (np.zeros((96, 32, 3), np.uint8), r"2\.png' is PNG of mode RGB; wanted a single-channel"),
        (None, r"have no part mask.*cleo/2\.png"),
    ],
)
def test_a_bad_mask_stops_training_by_its_name(
    learn: Callable[..., None], photos: Path, tmp_path: Path, mask: np.ndarray | None, message: str
) -> None:
    place = photos.parent / "masks" / "cleo" / "2.png"
    place.unlink() if mask is None else Image.fromarray(mask).save(place)
    with pytest.raises(MaskError, match=message):
        learn()
    assert not (tmp_path / "run").exists()
    learn(**{"data.masks": 0, "model.losses.segmentation": None})  # who needs no masks is not asked for them


def test_too_few_people_to_learn_from(learn: Callable[..., None], photos: Path, tmp_path: Path) -> None:
    for person in ("bert", "cleo"):
        for path in (photos / person).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="at least two"):
        learn()
    for path in (photos / "anna").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no sub-folder with images"):
        learn()
    for folder in photos.iterdir():
        folder.rmdir()
    with pytest.raises(DataError, match=r"photos' is empty; wanted images"):
        learn()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"optim.epoch": 3}, RecipeError, r"optim\.epoch: there is no such key\. Did you mean 'epochs'"),
        ({"model.heads.extra": {"type": "semantics"}}, UnknownNameError, "no head is named 'semantics'. Did you mean"),
    ],
)
def test_a_wrong_recipe_leaves_no_run(learn: Callable[..., None], tmp_path: Path, changes, error, message: str) -> None:
    with pytest.raises(error, match=message):
        learn(**changes)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_nan_are_noticed_before_anything_is_kept(
    tiny: Callable[..., ReIDModel], photos: Path, tmp_path: Path
) -> None:
    model, data = tiny(None), people(photos)
    with torch.no_grad():
        model.heads["global"].project[0].weight[0, 0] = torch.nan
    with pytest.raises(EmbeddingError, match="slot 'global' holds NaN or infinity in 12 of 12 rows"):
        embed_samples(model, data, data.train)
    with Gallery.create(tmp_path / "gallery", model=model) as gallery:
        with pytest.raises(EmbeddingError, match=r"cannot embed '.*anna/0\.png'.*NaN"):
            gallery.add([sample.path for sample in data.train])
        assert len(gallery) == 0


def test_a_gallery_wants_the_model_that_built_it(tiny: Callable[..., ReIDModel], photos: Path, tmp_path: Path) -> None:
    first, data = tiny(None), people(photos)
    with Gallery.create(tmp_path / "gallery", model=first) as gallery:
        gallery.add([sample.path for sample in data.train])
    second = tiny(None)
    with torch.no_grad():
        next(second.parameters()).add_(1e-3)
    wider = tiny(None, **{"model.heads.global.options.total_width": 96})
    for other, widths in ((second, "global 48"), (wider, "global 96")):
        with pytest.raises(GalleryMismatchError) as raised:
            Gallery.open(tmp_path / "gallery", model=other)
        for text in (first.fingerprint, other.fingerprint, widths, "index the images again"):
            assert text in str(raised.value)
    with Gallery.open(tmp_path / "gallery", model=first) as gallery:
        assert len(gallery) == 12


def test_a_checkpoint_wants_its_number_of_classes(tiny: Callable[..., ReIDModel], tmp_path: Path) -> None:
    tiny(4).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="was trained on 4 classes; num_classes=751 does not fit"):
        load_model(tmp_path / "model", num_classes=751)
    tiny(None).save(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="was trained on no classes; num_classes=4 does not fit"):
        load_model(tmp_path / "bare", num_classes=4)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_that_may_not_be_written_is_left_as_it_was(
    tiny: Callable[..., ReIDModel], learn: Callable[..., None], photos: Path, tmp_path: Path, monkeypatch
) -> None:
    """Simulated where files begin, because an administrator, as whom tests may run, can write to any folder."""
    model, data = tiny(None), people(photos)
    rows = embed_samples(model, data, data.train[:2]).embeddings
    before = snapshot(tmp_path)

    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    attempts: list[tuple[Callable[[], Any], type[OccludedReIDError]]] = [
        (learn, TrainingError),
        (lambda: model.save(tmp_path / "model"), CheckpointError),
        (lambda: Gallery.create(tmp_path / "gallery", model=model), GalleryError),
        (lambda: rows.save(tmp_path / "rows.safetensors"), EmbeddingError),
    ]
    for attempt, error in attempts:
        with pytest.raises(error, match=r"Permission denied.*may be written to"):
            attempt()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_disk_that_fills_up_leaves_no_half_of_anything(
    learn: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The disk has room for a few files of tensors and then is full in the middle of one."""
    write, left = Path.write_bytes, room

    def fill(path: Path, content: bytes) -> int:
        nonlocal left
        left -= 1
        if left >= 0:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(CheckpointError, match=r"No space left on device.*nothing half-written was left"):
        learn()
    run = tmp_path / "run"
    left_over = sorted(path.name for path in run.iterdir())
    assert left_over in (["log.jsonl"], ["last", "log.jsonl"])
    assert ("last" in left_over) == (room >= 2), "a checkpoint is two files of tensors: both, or none"
    for path in run.rglob("*.json"):
        assert path.read_text(encoding="utf-8").endswith("}\n")
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]


def test_a_model_is_told_apart_from_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="has format None; this version reads formats 1 and 2"):
        load_model(tmp_path)
    with pytest.raises(RecipeError, match=r"nothing\.yaml' cannot be read: No such file"):
        build_model(tmp_path / "nothing.yaml")
