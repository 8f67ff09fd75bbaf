"""`--preset`: what a network in a file wants to be shown, at every command that takes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from occluded_reid import Gallery, load_model
from occluded_reid.cli import app
from occluded_reid.errors import BuildError

Cli = Callable[..., Any]

KNOW_THEMSELVES = {"export"}
"""A network in a file is an exported one already, and is refused there."""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """The mean of each colour, as somebody else's network gives it."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 16])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "colours.onnx")
    Image.new("RGB", (16, 32), (255, 0, 0)).save(tmp_path / "red.png")
    return tmp_path / "colours.onnx"


def test_every_command_that_takes_a_model_takes_a_preset() -> None:
    taking = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        if {"model", "models"} & {parameter.name for parameter in command.params}
    }
    assert {"index", "search", "evaluate", "sweep", "tune", "calibrate", "open-set", "failures"} <= set(taking)
    assert {name for name, options in taking.items() if "--preset" not in options} == KNOW_THEMSELVES


def test_what_it_says_is_what_the_network_is_shown(cli: Cli, network: Path) -> None:
    gallery = network.parent / "gallery"
    picture = network.parent / "red.png"
    done = cli("index", gallery, picture, "--model", network, "--preset", "bytes", "--json")
    assert done.code == 0, done.err
    assert "does not say what it wants" not in done.err
    assert done.json["model"] == load_model(network, preset="bytes").fingerprint
    with Gallery.open(gallery) as store:
        embeddings = store.get("red.png").embeddings
    assert embeddings is not None
    assert embeddings.slot("global")[0].tolist() == [255, 0, 0]
    found = cli("search", gallery, picture, "--model", network, "--preset", "bytes", "--include-self", "--json")
    assert found.json[0]["hits"][0]["key"] == "red.png"
    other = cli("search", gallery, picture, "--model", network, "--preset", "half")
    assert other.code == 1
    assert "holds embeddings of" in other.err
    guessed = cli("search", gallery, picture, "--model", network)
    assert "--preset" in guessed.err


def test_a_preset_without_a_network_is_wrong_usage(cli: Cli, trained: Path, people: Path, network: Path) -> None:
    for line, said in (
        (("evaluate", trained / "model", "--data", people, "--preset", "half"), "says itself"),
        (("evaluate", network, "--data", people, "--preset", "hlaf"), "Did you mean 'half'?"),
        (("sweep", trained / "model", "--data", people, "--output", "out", "--preset", "half"), "none is given"),
    ):
        done = cli(*line)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
    with pytest.raises(BuildError, match="says itself what it wants to be shown"):
        load_model(trained / "model", preset="imagenet")


def test_a_preset_is_not_asked_for_where_no_model_is(cli: Cli, network: Path) -> None:
    gallery = network.parent / "gallery"
    cli("index", gallery, network.parent / "red.png", "--model", network, "--preset", "half")
    done = cli("search", gallery, "--key", "red.png", "--preset", "half")
    assert done.code == 2
    assert "--preset is about the network of --model" in done.err
