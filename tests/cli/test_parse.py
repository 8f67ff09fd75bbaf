"""`occluded-reid parse` from a folder of images to a folder that `--masks` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from occluded_reid.parsing import map_labels

Cli = Callable[..., Any]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images, and LIP masks of them."""
    generator = np.random.default_rng(0)
    for k in range(5):
        name = f"{k}.jpg" if k else "deep/0.jpg"
        labels = generator.integers(0, 20, (12, 6), dtype=np.uint8) if k != 2 else np.zeros((12, 6), np.uint8)
        for root, picture in (("images", Image.new("RGB", (6, 12), (k, 90, 200))), ("lip", Image.fromarray(labels))):
            path = (tmp_path / root / name).with_suffix(".jpg" if root == "images" else ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return tmp_path / "images", tmp_path / "lip"


def command(folders: tuple[Path, Path], out: Path, *more: object) -> list[object]:
    images, lip = folders
    teacher = ["--teacher", "masks", "--option", f"folder={lip}", "--option", "label_set=lip20"]
    return ["parse", images, *teacher, "--out", out, *more]


def test_masks_with_a_line_and_a_picture(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = cli(*command(folders, out, "--to", "sgam5", "--map", "socks=lower_leg"))
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0].startswith("5 masks of sgam5: 5 made")
    assert "no person found in 1 image; 0 unreadable" in lines[0]
    assert "upper_body" in lines[0]
    assert any(line.startswith("note: lip20 does not split dresses and jumpsuits") for line in lines)
    for name in ("deep/0.png", "1.png", "4.png"):
        source, made = (np.asarray(Image.open(root / name)) for root in (folders[1], out))
        np.testing.assert_array_equal(made, map_labels(source, "lip20", "sgam5", socks="lower_leg"))
        with Image.open(out / name) as mask:
            assert mask.mode == "L"
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 200
    assert json.loads((out / "parsing.json").read_text())["label_set"] == "sgam5"


def test_it_goes_on_and_refuses_another_teacher(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli(*command(folders, out, "--limit", 2, "--json")).json["written"] == 2
    again = cli(*command(folders, out, "--json")).json
    assert (again["masks"], again["written"]) == (5, 3)
    assert again["empty"] == ["2.jpg"]
    assert sum(again["shares"].values()) == pytest.approx(1)
    refused = cli(*command(folders, out, "--to", "sorn2"))
    assert refused.code == 1
    assert "label_set was 'sorn8', now 'sorn2'" in refused.err
    assert cli(*command(folders, out, "--to", "sorn2", "--overwrite", "--json")).json["written"] == 5
    assert np.asarray(Image.open(out / "1.png")).max() == 1


def test_the_picture_is_chosen_by_seed(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli(*command(folders, out))
    first = (out / "contact_sheet.png").read_bytes()
    cli(*command(folders, out))
    assert (out / "contact_sheet.png").read_bytes() == first


def test_unreadable_images_are_named_and_end_with_1(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "4.jpg").write_bytes(b"")
    found = cli(*command(folders, tmp_path / "out"))
    assert found.code == 1
    assert "4 masks of sorn8: 4 made" in found.out
    assert "left out: 4.jpg:" in found.out
    assert "is empty" in found.out
    printed = cli(*command(folders, tmp_path / "out", "--json"))
    assert printed.code == 1
    assert list(printed.json["unreadable"]) == ["4.jpg"]


def test_nothing_readable_draws_nothing(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    for path in folders[0].rglob("*.jpg"):
        path.write_bytes(b"")
    found = cli(*command(folders, tmp_path / "out", "--json"))
    assert found.code == 1
    assert found.json["contact_sheet"] is None
    assert found.json["masks"] == 0


def test_what_is_missing_is_said(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "3.png").unlink()
    found = cli(*command(folders, tmp_path / "out"))
    assert found.code == 1
    assert "'3.jpg' has no mask" in found.err
    wrong = cli("parse", folders[0], "--teacher", "masks", "--out", tmp_path / "other")
    assert wrong.code == 2, "a wrong word"
    assert "the parser 'masks' needs folder" in wrong.err
    assert cli("parse", folders[0], "--teacher", "masks").code == 2, "--out is missing"
    assert (
        "'limit' is nothing that can be put elsewhere"
        in cli(*command(folders, tmp_path / "out", "--map", "limit=3")).err
    )


def test_an_onnx_model_from_the_command_line(cli: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    # Class 1 where red is above 0, which is every image but one.
    stored = helper.make_tensor("w", real, [2, 3, 1, 1], [0, 0, 0, 1, 0, 0])
    bias = helper.make_tensor("b", real, [2], [0.002, 0.0])
    ends = [helper.make_tensor_value_info(n, real, [1, c, "h", "w"]) for n, c in (("image", 3), ("out", 2))]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w", "b"], ["out"])], "red", [ends[0]], [ends[1]], [stored, bias]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "red.onnx"
    )
    for k in range(5):
        Image.new("RGB", (6, 12), (k, 0, 0)).save(folders[0] / f"{k}.png")
    for path in folders[0].rglob("*.jpg"):
        path.unlink()
    options = ["model=" + str(tmp_path / "red.onnx"), "label_set=sorn2", "height=12", "mean=[0, 0, 0]", "std=[1, 1, 1]"]
    given = [text for option in options for text in ("--option", option)]
    found = cli("parse", folders[0], "--teacher", "onnx", *given, "--to", "own", "--out", tmp_path / "out", "--json")
    assert found.code == 0, found.err
    assert found.json["empty"] == ["0.png"]
    assert found.json["shares"] == {"background": pytest.approx(0.2), "body": pytest.approx(0.8)}
