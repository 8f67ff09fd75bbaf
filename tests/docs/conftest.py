"""What the pages take for granted, made small: drawn people, photos, a trained model, a parser in ONNX form."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from occluded_reid import registry
from occluded_reid.cli import main
from occluded_reid.data.synthetic import SyntheticOptions

SHORT = (
    "--weights=none",
    "--set=data.batch=32",
    "--set=optim.epochs=1",
    "--set=optim.warmup_epochs=0",
    "--set=optim.steps={}",
)
"""What the tests add to a command that would train for hours: random weights and one epoch,"""
SMALL = (
    "--set=model.input={height: 96, width: 32}",
    "--set=model.backbone={type: test_efficientnet, options: {last_stride: 1}}",
)
"""a network of 20,000 parameters,"""
VIT = (
    "--set=model.input={height: 64, width: 32}",
    "--set=model.backbone={type: test_vit, options: {positions: bilinear, options: {out_indices: 1}}}",
)
"""or a transformer,"""
PARSER = "{backbone: test_efficientnet, label_set: sorn8, height: 96, width: 32, widths: [16, 16]}"
DEEPLAB = "{backbone: mobilenet_v3_large, label_set: lip20, height: 48, width: 32}"
TINY = {
    "sorn": (*SMALL, "--set=model.heads.semantic.options.widths=[16, 16]"),
    "sorn_lite": (*SMALL, "--set=model.heads.semantic.options.widths=[16, 16]"),
    "sgam": (*SMALL, f"--set=model.parser.options={DEEPLAB}"),
    "sgam_lite": (*SMALL, f"--set=model.parser.options={PARSER}"),
    "fed": VIT,
    "fed_code_exact": VIT,
    "pcb_rpp": (*SMALL, "--set=optim.alone.epochs=1"),
    "small_parser": (f"--set=model.options={PARSER}",),
    "sgam_parser": (f"--set=model.options={DEEPLAB}",),
}
"""and what else some recipes want."""

DRAWN = {
    "train_identities": 160,  # as many as ever: the pages name files of the people to search for
    "test_identities": 20,
    "cameras": 2,
    "images_per_camera": 2,
    "gallery_per_camera": 2,
    "distractors": 2,
    "width": 16,
    "height": 48,
}
"""What the tests change in the synthetic set: fewer and smaller pictures."""


@pytest.fixture(scope="module")
def blocks() -> ModuleType:
    """The helpers of blocks.py."""
    spec = importlib.util.spec_from_file_location("docs_blocks", Path(__file__).with_name("blocks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_blocks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_command(arguments: Sequence[str]) -> None:
    """Run `occluded-reid` in this process, made small where it trains; anything but exit code 0 is a failure.

    The exit code 3 of `same` is an answer.
    """
    words = list(arguments)
    if words[:1] in (["train"], ["train-parser"]):
        without = [
            part for part in ("model.parser", "model.heads.semantic") if f"{part}=null" in words
        ]  # nothing to shrink
        words += (*SHORT, *(w for w in TINY.get(words[1], SMALL) if not any(part in w for part in without)))
    before = sys.argv
    sys.argv = ["occluded-reid", *words]
    try:
        main()
    except SystemExit as stopped:
        if stopped.code and (words[0], stopped.code) != ("same", 3):
            raise AssertionError(f"exit code {stopped.code}: occluded-reid {' '.join(words)}") from stopped
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def call() -> Callable[[Sequence[str]], None]:
    """`run_command`."""
    return run_command


@pytest.fixture(scope="module", autouse=True)
def _small_drawings() -> Iterator[None]:
    """Make the synthetic set small wherever nothing else is asked for."""
    patch = pytest.MonkeyPatch()
    own = dict(zip(SyntheticOptions.__dataclass_fields__, SyntheticOptions.__init__.__defaults__, strict=True))
    patch.setattr(SyntheticOptions.__init__, "__defaults__", tuple({**own, **DRAWN}.values()))
    yield
    patch.undo()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who has a few photos and nothing else; everything runs in there."""
    source = np.random.default_rng(0)
    for name in ("photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "someone.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture = Image.fromarray(source.integers(0, 255, (12, 4, 3), dtype=np.uint8))
        picture.resize((32, 96)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_bodypix(path: Path) -> None:
    """Write a network that has the outputs of BodyPix, each a convolution of random numbers."""
    onnx = pytest.importorskip("onnx")
    helper, real, source = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    nodes = [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])]
    stored, outputs = [], []
    for name, channels in (("part_heatmaps", 24), ("segments", 1)):
        weights = source.normal(size=(channels, 3, 1, 1))
        stored.append(helper.make_tensor(f"{name}_w", real, weights.shape, weights.ravel().tolist()))
        nodes.append(helper.make_node("Conv", ["turned", f"{name}_w"], [f"{name}_raw"], strides=[8, 8]))
        nodes.append(helper.make_node("Transpose", [f"{name}_raw"], [name], perm=[0, 2, 3, 1]))
        outputs.append(helper.make_tensor_value_info(name, real, [None] * 4))
    image = helper.make_tensor_value_info("image", real, [1, "h", "w", 3])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture(scope="module")
def larder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's chain leaves, `people/` and `runs/sorn`, and what a reader has: `market/`, `lip/`, a teacher."""
    folder = tmp_path_factory.mktemp("larder")
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_command(["data", "synthesize", "people/"])
        run_command(["train", "sorn_lite", "--dataset=synthetic", "--data=people/", "--output=runs/sorn"])
    finally:
        os.chdir(before)
    for source, target in (("people", "market"), ("people/masks", "market_masks")):
        for split in ("bounding_box_train", "query", "bounding_box_test"):
            (folder / target / split).mkdir(parents=True)
            for file in sorted((folder / source / split).iterdir()):
                if not "0060" < file.name[:4] < "0160":  # sixty people to train on are enough
                    shutil.copy(file, folder / target / split)
    for target, source in (("lip/images", "market"), ("lip/masks", "market_masks")):
        (folder / target).mkdir(parents=True)
        for file in sorted((folder / source / "bounding_box_train").iterdir())[:40]:
            shutil.copy(file, folder / target)
    make_bodypix(folder / "bodypix.onnx")
    for n in range(2):
        cutout = np.full((20, 10, 4), 255 - 100 * n, dtype=np.uint8)
        cutout[..., 3] = 255
        (folder / "occluders").mkdir(exist_ok=True)
        Image.fromarray(cutout).save(folder / "occluders" / f"{n}.png")
    return folder


@pytest.fixture
def stocked(reader: Path, larder: Path) -> Path:
    """A reader's folder after README's chain."""
    shutil.copytree(larder, reader, dirs_exist_ok=True)
    return reader


@pytest.fixture(autouse=True)
def _with_weights(packaged: Path) -> None:
    """A small model of random weights in the place of the one that comes with the library."""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Forget what a page registers, and what it draws from global generators."""
    registries = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    known = [set(each.names()) for each in registries]
    with torch.random.fork_rng(devices=[]):
        yield
    for each, names in zip(registries, known, strict=True):
        for name in set(each.names()) - names:
            each.unregister(name)
