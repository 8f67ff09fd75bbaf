"""`occluded-reid train-parser`, and what a model does with the parser it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from occluded_reid import load_model
from occluded_reid.parsing.saved import load_parser

Cli = Callable[..., Any]
TINY = (
    "model.options={backbone: test_efficientnet, height: 64, width: 32, widths: [8, 8]}",
    "data.batch=4",
    "optim.epochs=2",
)
SETS = tuple(text for change in TINY for text in ("--set", change))


def test_a_parser_is_trained_and_a_model_crops_with_it(
    cli: Cli, people: Path, sets: tuple[str, ...], tmp_path: Path
) -> None:
    data = ("--data", people, "--dataset", "synthetic")
    first = cli(
        *("train-parser", "small_parser", *data, "--holdout", 2, "--weights", "none", *SETS),
        *("--output", tmp_path / "parser", "--json"),
    )
    assert first.code == 0, first.err
    assert set(first.json["scores"]) == {"pixel_accuracy", "mean_iou", "iou", "pixels"}
    assert set(first.json["areas"]) == {"head", "upper_body", "lower_body", "shoes"}
    parser = load_parser(tmp_path / "parser")
    crop = (
        "--set",
        f"model.parser={{type: small, weights: {tmp_path / 'parser'}}}",
        "--set",
        "model.input.crop.rule=rows",
    )
    second = cli(
        *("train", "sorn_lite", *data, "--weights", "none", *sets, *crop, "--output", tmp_path / "model", "--json"),
    )
    assert second.code == 0, second.err
    model = load_model(tmp_path / "model" / "model")
    assert model.preprocess.crops
    assert model.preprocess.parser.fingerprint == parser.fingerprint  # type: ignore[union-attr]
    resumed = cli(
        *("train-parser", "small_parser", *data, "--holdout", 2, "--weights", "none", *SETS, "--resume"),
        *("--output", tmp_path / "parser"),
    )
    assert resumed.code == 0, resumed.err
    assert "pixel accuracy" in resumed.out


def test_plain_images_and_masks_of_another_label_set(cli: Cli, people: Path, tmp_path: Path) -> None:
    folder = next(path for path in sorted(people.iterdir()) if (people / "masks" / path.name).is_dir())
    result = cli(
        *("train-parser", "small_parser", "--data", folder, "--dataset", "images"),
        *("--masks", people / "masks" / folder.name, "--labels", "sorn8", "--holdout", 3, "--weights", "none"),
        *(*SETS, "--set", "model.options.label_set=sgam5", "--output", tmp_path / "run", "--json"),
    )
    assert result.code == 0, result.err
    assert list(result.json["scores"]["iou"]) == ["background", "head", "upper_body", "lower_body", "shoes"]
    wrong = cli("train-parser", "smal_parser", "--data", folder, "--output", tmp_path / "other")
    assert wrong.code == 2
    assert "Did you mean 'small_parser'" in wrong.err
