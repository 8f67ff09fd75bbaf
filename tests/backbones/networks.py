"""Small networks in files, as strangers would bring them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 5


def write_onnx(
    path: Path, *, batch: int | str = "batch", height: int | str = 32, extra: str = "", opset: int = 17
) -> Path:
    """Conv to half the size, conv to a quarter, mean, product: maps (4, 16, 8) and (6, 8, 4), a vector of 5.

    Args:
        path: where it goes.
        batch: the batch of input and output, as a number or a name.
        height: of the input, likewise.
        extra: "if" puts control flow in, "two" a second vector, "reshape" a batch of 1 that cannot be changed.
        opset: of the standard operators.
    """
    draw = np.random.default_rng(0)
    weights = {
        "w1": draw.standard_normal((4, 3, 3, 3)).astype(np.float32) / 4,
        "w2": draw.standard_normal((6, 4, 3, 3)).astype(np.float32) / 4,
        "w3": draw.standard_normal((6, WIDTH)).astype(np.float32),
    }
    pads = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["fine"], **pads),
        helper.make_node("Relu", ["fine"], ["fine_relu"]),
        helper.make_node("Conv", ["fine_relu", "w2"], ["coarse"], **pads),
        helper.make_node("Relu", ["coarse"], ["coarse_relu"]),
        helper.make_node("GlobalAveragePool", ["coarse_relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["embedding"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, WIDTH])]
    if extra == "two":
        nodes.append(helper.make_node("Relu", ["embedding"], ["second"]))
        outputs.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [batch, WIDTH]))
    if extra == "reshape":
        weights["shape"] = np.array([1, 6], dtype=np.int64)
        nodes[5] = helper.make_node("Reshape", ["pooled", "shape"], ["flat"])
    if extra == "if":
        weights["yes"] = np.array(True)
        branch = helper.make_graph(
            [helper.make_node("Identity", ["embedding"], ["chosen"])],
            "branch",
            [],
            [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
        )
        nodes.append(helper.make_node("If", ["yes"], ["decided"], then_branch=branch, else_branch=branch))
        outputs = [helper.make_tensor_value_info("decided", TensorProto.FLOAT, [batch, WIDTH])]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, 16])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def by_hand(images: np.ndarray) -> np.ndarray:
    """The embedding, in float64 and without onnx: (N, 3, 32, 16) -> (N, 5)."""
    draw = np.random.default_rng(0)
    first = (draw.standard_normal((4, 3, 3, 3)).astype(np.float32) / 4).astype(np.float64)
    second = (draw.standard_normal((6, 4, 3, 3)).astype(np.float32) / 4).astype(np.float64)
    last = draw.standard_normal((6, WIDTH)).astype(np.float32).astype(np.float64)

    def conv(maps: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
        rows, columns = maps.shape[2] // 2, maps.shape[3] // 2
        out = np.zeros((len(maps), len(kernel), rows, columns))
        for y in range(rows):
            for x in range(columns):
                window = padded[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                out[:, :, y, x] = np.einsum("nchw,ochw->no", window, kernel)
        return np.maximum(out, 0)

    return conv(conv(images.astype(np.float64), first), second).mean((2, 3)) @ last
