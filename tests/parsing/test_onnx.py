"""The ONNX teacher on networks of one convolution, made here, against plain loops."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import BuildError, ImageError, MaskError, MissingExtraError, UnknownOptionError, WeightsError
from occluded_reid.parsing.onnx import OnnxTeacher
from occluded_reid.registry import PARSERS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "label_set": "pascal7"}
# BodyPix counts its parts from 0; each is followed by its mirror image.
MIRROR = [1, 0, 4, 5, 2, 3, 8, 9, 6, 7, 11, 10, 12, 13, 16, 17, 14, 15, 20, 21, 18, 19, 23, 22]
TO_SORN8 = [1, 1, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 2, 2, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7]


def picture(width=6, height=10, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(width, height, seed=0):
    return picture(3, 4, seed).resize((width, height), Image.Resampling.BICUBIC)


def save(path, outputs, *, layout="nchw", size=("h", "w"), batch=1, stride=1, kind="FLOAT", softmax=False, extra=()):
    """A convolution for each output: name -> weights (K, 3, rows, columns)."""
    helper, types = onnx.helper, onnx.TensorProto
    real = getattr(types, kind)
    channels_last = layout == "nhwc"
    shape = [batch, *size, 3] if channels_last else [batch, 3, *size]
    nodes, stored, inner = [], [], "image"
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2]))
        inner = "turned"
    declared = []
    for name, weights in outputs.items():
        stored.append(helper.make_tensor(f"{name}_w", real, weights.shape, weights.astype(np.float64).ravel().tolist()))
        pad = weights.shape[2] // 2
        last = f"{name}_raw" if channels_last or softmax else name
        attributes = {"strides": [stride, stride], "pads": [pad] * 4}
        nodes.append(helper.make_node("Conv", [inner, f"{name}_w"], [last], **attributes))
        if softmax:
            ended = name if not channels_last else f"{name}_soft"
            nodes.append(helper.make_node("Softmax", [last], [ended], axis=1))
            last = ended
        if channels_last:
            nodes.append(helper.make_node("Transpose", [last], [name], perm=[0, 2, 3, 1]))
        declared.append(helper.make_tensor_value_info(name, real, [None] * 4))
    nodes += [each for each, _ in extra]
    declared += [helper.make_tensor_value_info(each.output[0], real, [None] * rank) for each, rank in extra]
    image = helper.make_tensor_value_info("image", real, shape)
    graph = helper.make_graph(nodes, "tiny", [image], declared, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def weights(classes, size=1, seed=0):
    return np.random.default_rng(seed).normal(size=(classes, 3, size, size))


def expected_labels(image, kernel, mean=(0, 0, 0), std=(1, 1, 1), order=(0, 1, 2)):
    values = np.asarray(image, dtype=np.float64)
    out = np.zeros(values.shape[:2], int)
    for row, column in np.ndindex(out.shape):
        pixel = [(values[row, column, c] / 255 - mean[c]) / std[c] for c in order]
        scores = [sum(k[c, 0, 0] * pixel[c] for c in range(3)) for k in kernel]
        out[row, column] = scores.index(max(scores))
    return out


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16"])
def test_class_scores_become_classes(tmp_path, layout, softmax, kind):
    kernel = np.round(4 * weights(7)) / 4  # exact in 16 bits
    path = save(tmp_path / "net.onnx", {"out": kernel}, layout=layout, softmax=softmax, kind=kind)
    statistics = {"mean": (0.5, 0.25, 0.5), "std": (0.5, 0.25, 1.0)}
    output = "probabilities" if softmax else "logits"
    teacher = OnnxTeacher(path, **{**PLAIN, **statistics}, height=10, width=6, output=output)
    image = picture()
    (found,) = teacher.parse([image], ["a.png"])
    assert found.dtype == np.uint8
    agree = found == expected_labels(image, kernel, **statistics)
    assert agree.all() if kind == "FLOAT" else agree.mean() > 0.9


def test_channels_in_the_other_order(tmp_path):
    kernel = weights(7)
    path = save(tmp_path / "net.onnx", {"out": kernel})
    teacher = OnnxTeacher(path, **PLAIN, height=10, channels="bgr")
    (found,) = teacher.parse([picture()], ["a.png"])
    np.testing.assert_array_equal(found, expected_labels(picture(), kernel, order=(2, 1, 0)))


def test_a_fixed_size_is_read_from_the_graph(tmp_path):
    kernel = weights(7)
    path = save(tmp_path / "net.onnx", {"out": kernel}, size=(10, 6))
    (found,) = OnnxTeacher(path, **PLAIN, resample="nearest").parse([picture().resize((12, 20), 0)], ["a.png"])
    small = expected_labels(picture(), kernel)
    # At the image's size scores are interpolated: in the middle of four equal pixels nothing else mixes in much.
    assert found.shape == (20, 12)
    assert (found == small.repeat(2, 0).repeat(2, 1)).mean() > 0.6
    (canvas,) = OnnxTeacher(path, **PLAIN, resample="nearest", decide="canvas").parse(
        [picture().resize((12, 20), 0)], ["a.png"]
    )
    np.testing.assert_array_equal(canvas, small.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("merge", ["sum", "max"])
def test_channels_of_one_class_are_joined(tmp_path, merge):
    """Softmax .4 .3 .3: the first wins alone, the other two together."""
    kernel = np.zeros((3, 3, 1, 1))
    kernel[:, 0, 0, 0] = np.log([0.4, 0.3, 0.3])
    path = save(tmp_path / "net.onnx", {"out": kernel})
    teacher = OnnxTeacher(path, **PLAIN, height=4, class_table=(5, 2, 2), merge=merge)
    (found,) = teacher.parse([Image.new("RGB", (2, 4), (255, 0, 0))], ["a.png"])
    assert (found == (2 if merge == "sum" else 5)).all()


def test_flip_averages_with_the_mirror_image(tmp_path):
    """LIP: whatever says left in the mirror means right."""
    kernel = weights(20, size=3, seed=3)
    path = save(tmp_path / "net.onnx", {"out": kernel})
    options = {**PLAIN, "label_set": "lip20", "height": 10, "width": 6}
    image = picture(seed=4)
    (found,) = OnnxTeacher(path, **options, flip=True).parse([image], ["a.png"])
    swapped = list(range(20))
    for left, right in ((14, 15), (16, 17), (18, 19)):
        swapped[left], swapped[right] = right, left
    values = np.asarray(image, dtype=np.float64) / 255
    here, there = naive_softmax(naive_conv(values, kernel, 1)), naive_softmax(naive_conv(values[:, ::-1], kernel, 1))
    for row, column in np.ndindex(10, 6):
        mixed = [here[row, column, k] + there[row, 5 - column, swapped[k]] for k in range(20)]
        assert found[row, column] == mixed.index(max(mixed))
    assert (found != OnnxTeacher(path, **options).parse([image], ["a.png"])[0]).any()


def naive_conv(values, kernel, stride):
    """Correlation with zero padding of half the kernel, in float64."""
    rows, columns, _ = values.shape
    half = kernel.shape[2] // 2
    padded = np.pad(values, ((half, half), (half, half), (0, 0)))
    out = np.zeros((-(-(rows - 0) // stride), -(-(columns - 0) // stride), len(kernel)))
    for r, c, k in np.ndindex(out.shape):
        patch = padded[r * stride : r * stride + 2 * half + 1, c * stride : c * stride + 2 * half + 1]
        out[r, c, k] = (patch * kernel[k].transpose(1, 2, 0)).sum()
    return out


def naive_softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def naive_bilinear(plane, height, width):
    """Half-pixel centres, for growing only."""
    out = np.zeros((height, width))
    for r, c in np.ndindex(height, width):
        y = min(max((r + 0.5) * plane.shape[0] / height - 0.5, 0), plane.shape[0] - 1)
        x = min(max((c + 0.5) * plane.shape[1] / width - 0.5, 0), plane.shape[1] - 1)
        y0, x0 = min(int(y), plane.shape[0] - 2), min(int(x), plane.shape[1] - 2)
        fy, fx = y - y0, x - x0
        top = plane[y0, x0] * (1 - fx) + plane[y0, x0 + 1] * fx
        bottom = plane[y0 + 1, x0] * (1 - fx) + plane[y0 + 1, x0 + 1] * fx
        out[r, c] = top * (1 - fy) + bottom * fy
    return out


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("flip", [False, True])
def test_bodypix_step_by_step(tmp_path, flip):
    """Scale, pad, stretch, both views, sigmoid, best part of each class, mean, grow, decide, back to the image."""
    parts, person = 3 * weights(24, size=3, seed=5), 2 * weights(1, size=3, seed=6)
    path = save(
        tmp_path / "net.onnx", {"part_heatmaps": parts, "segments": person, "rest": parts}, layout="nhwc", stride=8
    )
    teacher = OnnxTeacher(path, preset="bodypix", height=32, person_threshold=0.55, flip=flip)
    assert teacher.label_set == "sorn8"
    image = smooth(32, 64, seed=7)
    (found,) = teacher.parse([image], ["a.png"])

    content = np.asarray(image.resize((16, 32), Image.Resampling.BICUBIC))  # in proportion, and a multiple of 16
    padded = np.pad(content, ((16, 16), (16, 16), (0, 0)), mode="edge")  # 15 % of 16 and 5 % of 32, up to 16
    canvas = np.asarray(Image.fromarray(padded).resize((49, 65), Image.Resampling.BICUBIC)).astype(np.float64)
    views = [canvas, canvas[:, ::-1]] if flip else [canvas]
    best = np.zeros((9, 7, 8))
    someone = np.zeros((9, 7))
    for number, view in enumerate(views):
        heat, segment = naive_conv(view / 127.5 - 1, parts, 8), naive_conv(view / 127.5 - 1, person, 8)
        for r, c in np.ndindex(9, 7):
            column = 6 - c if number else c
            someone[r, c] += sigmoid(segment[r, column, 0]) / len(views)
            for label in range(1, 8):
                mine = [sigmoid(heat[r, column, k]) for k in range(24) if TO_SORN8[k] == label]
                best[r, c, label] += max(mine) / len(views)
    grown = np.stack([naive_bilinear(best[..., k], 64, 48) for k in range(8)], -1)[16:48, 16:32]
    where = naive_bilinear(someone, 64, 48)[16:48, 16:32]
    sure = 0
    for r, c in np.ndindex(64, 32):
        at = (r // 2, c // 2)
        ordered = np.sort(grown[at][1:])
        if abs(where[at] - 0.55) < 1e-5 or ordered[-1] - ordered[-2] < 1e-5:
            continue
        sure += 1
        assert found[r, c] == (int(grown[at].argmax()) if where[at] > 0.55 else 0)
    assert sure > 1800
    assert len(np.unique(found)) > 3, "or the test shows nothing"


def test_bodypix_with_its_own_classes(tmp_path):
    """All 24 parts: in the mirror, left parts are looked for among the right ones."""
    parts, person = 3 * weights(24, size=3, seed=5), np.full((1, 3, 1, 1), 0.0)
    path = save(tmp_path / "net.onnx", {"part_heatmaps": parts, "segments": person}, layout="nhwc", stride=8)
    options = {
        "label_set": "bodypix24",
        "height": 17,
        "width": 17,
        "pad": (0, 0),
        "multiple": 1,
        "person_threshold": 0.4,
    }
    image = smooth(17, 17)
    (found,) = OnnxTeacher(path, preset="bodypix", **options).parse([image], ["a.png"])
    # 17 = 2·8 + 1 is rounded up to 3·8 + 1.
    values = np.asarray(image.resize((25, 25), Image.Resampling.BICUBIC)).astype(np.float64)
    here, there = naive_conv(values / 127.5 - 1, parts, 8), naive_conv(values[:, ::-1] / 127.5 - 1, parts, 8)
    mean = np.zeros((4, 4, 24))
    for r, c, k in np.ndindex(mean.shape):
        mean[r, c, k] = (sigmoid(here[r, c, k]) + sigmoid(there[r, 3 - c, MIRROR[k]])) / 2
    grown = np.stack([naive_bilinear(mean[..., k], 17, 17) for k in range(24)], -1)
    ordered = np.sort(grown, -1)
    sure = ordered[..., -1] - ordered[..., -2] > 1e-5
    np.testing.assert_array_equal(found[sure], grown.argmax(-1)[sure] + 1)
    assert sure.mean() > 0.9


def test_neighbours_change_nothing(tmp_path):
    path = save(tmp_path / "net.onnx", {"out": weights(7, size=3)})
    teacher = PARSERS.create("onnx", path, **PLAIN, height=12, multiple=2, threads=1)
    images = [picture(seed=k, width=4 + k) for k in range(3)]
    together = teacher.parse(images, ["a", "b", "c"])
    for image, mask in zip(images, together, strict=True):
        assert mask.shape == (image.height, image.width)
        np.testing.assert_array_equal(teacher.parse([image], ["x"])[0], mask)


def test_a_description_tells_models_and_settings_apart(tmp_path):
    one, other = save(tmp_path / "1.onnx", {"out": weights(7)}), save(tmp_path / "2.onnx", {"out": weights(7, seed=1)})
    base = OnnxTeacher(one, **PLAIN, height=8).describe()
    assert base == OnnxTeacher(one, **PLAIN, height=8, threads=1).describe()
    assert base["sha256"] != OnnxTeacher(other, **PLAIN, height=8).describe()["sha256"]
    assert base != OnnxTeacher(one, **PLAIN, height=9).describe()


def test_classes_that_do_not_fit_are_said_when_the_teacher_is_made(tmp_path):
    path = save(tmp_path / "net.onnx", {"out": weights(6)})
    with pytest.raises(BuildError, match="has 6 channels; label set 'pascal7' with these settings wants 7"):
        OnnxTeacher(path, **PLAIN, height=8)
    with pytest.raises(BuildError, match=r"class_table names \[9\]; wanted a class of pascal7"):
        OnnxTeacher(path, **PLAIN, height=8, class_table=(0, 1, 2, 3, 4, 9))
    assert OnnxTeacher(path, **PLAIN, height=8, class_table=(0, 1, 2, 3, 4, 5)).label_set == "pascal7"
    parts = save(tmp_path / "parts.onnx", {"p": weights(8), "s": weights(2)}, layout="nhwc")
    names = {"output_name": "p", "person_name": "s", "stride": None}
    with pytest.raises(BuildError, match="has 8 channels; label set 'sorn8' with these settings wants 24"):
        OnnxTeacher(parts, preset="bodypix", **names)
    with pytest.raises(BuildError, match=r"output 's' of '.*' has 2 channels; wanted 1, the person logits"):
        OnnxTeacher(parts, preset="bodypix", **names, label_set="sorn8", class_table=(0, 1, 2, 3, 4, 5, 6, 7))


def test_what_a_model_must_be(tmp_path):
    three, two = weights(7), {"a": weights(7), "b": weights(7)}
    with pytest.raises(BuildError, match="Give height=512"):
        OnnxTeacher(save(tmp_path / "1.onnx", {"out": three}), **PLAIN)
    with pytest.raises(BuildError, match=r"has outputs a, b. Choose one with output_name"):
        OnnxTeacher(save(tmp_path / "2.onnx", two), **PLAIN, height=8)
    with pytest.raises(BuildError, match=r"has no output 'c'.* It has: a, b"):
        OnnxTeacher(tmp_path / "2.onnx", **PLAIN, height=8, output_name="c")
    with pytest.raises(BuildError, match="with layout=nhwc it would have 8 channels instead of 3"):
        OnnxTeacher(save(tmp_path / "3.onnx", {"out": three}, size=(8, 8)), **PLAIN, layout="nhwc")
    with pytest.raises(BuildError, match="does not say where its 3 channels are"):
        OnnxTeacher(save(tmp_path / "4.onnx", {"out": three}, size=(8, 3)), **PLAIN)
    with pytest.raises(BuildError, match="takes 4 images at once"):
        OnnxTeacher(save(tmp_path / "5.onnx", {"out": three}, batch=4), **PLAIN, height=8)
    with pytest.raises(BuildError, match=r"takes tensor\(uint8\); wanted float32"):
        OnnxTeacher(bytes_model(tmp_path / "6.onnx"), **PLAIN, height=8)
    flat = onnx.helper.make_node("ReduceMax", ["out"], ["flat"], axes=[1], keepdims=0)
    save(tmp_path / "7.onnx", {"out": three}, extra=[(flat, 3)])
    with pytest.raises(BuildError, match=r"output 'flat' of '.*' has shape \(1, 8, 4\); wanted a map for each class"):
        OnnxTeacher(tmp_path / "7.onnx", **PLAIN, height=8, output_name="flat")
    wide = onnx.helper.make_node("AveragePool", ["out"], ["pooled"], kernel_shape=[5, 5])
    save(tmp_path / "8.onnx", {"out": three}, extra=[(wide, 4)])
    with pytest.raises(BuildError, match="cannot be run on a canvas of 1×1"):
        OnnxTeacher(tmp_path / "8.onnx", **PLAIN, height=1, output_name="pooled")


def bytes_model(path):
    """A model that takes whole numbers and does nothing."""
    helper, kind = onnx.helper, onnx.TensorProto.UINT8
    ends = [helper.make_tensor_value_info(name, kind, [1, 3, None, None]) for name in ("image", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["out"])], "bytes", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_settings_that_cannot_be(tmp_path):
    path = save(tmp_path / "net.onnx", {"out": weights(7)})
    with pytest.raises(BuildError, match="nothing says which classes this model tells apart"):
        OnnxTeacher(path)
    with pytest.raises(UnknownOptionError, match=r"takes no 'heigth'. Did you mean 'height'"):
        OnnxTeacher(path, **PLAIN, heigth=8)
    with pytest.raises(UnknownOptionError, match="'merge' was given 'mean'"):
        OnnxTeacher(path, **PLAIN, height=8, merge="mean")
    with pytest.raises(BuildError, match="no preset is named 'bodypics'"):
        OnnxTeacher(path, preset="bodypics")
    with pytest.raises(BuildError, match="person_threshold is 40"):
        OnnxTeacher(path, **PLAIN, person_threshold=40)
    with pytest.raises(BuildError, match="std is"):
        OnnxTeacher(path, **{**PLAIN, "std": (0, 1, 1)})
    with pytest.raises(BuildError, match="output=person_parts reads two outputs"):
        OnnxTeacher(path, **PLAIN, output="person_parts")
    table = (0, 1, 2, 3, 4, 13, 14)
    with pytest.raises(BuildError, match="class 14 of 'lip20' becomes class 15 in the mirror"):
        OnnxTeacher(path, **{**PLAIN, "label_set": "lip20"}, height=8, class_table=table, flip=True)
    with pytest.raises(BuildError, match=r"has no TensorrtX; it has .*CPUExecutionProvider"):
        OnnxTeacher(path, **PLAIN, height=8, providers=("TensorrtX",))


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        OnnxTeacher(tmp_path / "gone.onnx", **PLAIN)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(WeightsError, match=r"text\.onnx' cannot be opened as an ONNX model"):
        OnnxTeacher(tmp_path / "text.onnx", **PLAIN)


def test_the_extra_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "net.onnx", {"out": weights(7)})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'occluded-reid\[onnx\]'"):
        OnnxTeacher(path, **PLAIN, height=8)


def test_images_it_cannot_take_are_named(tmp_path):
    kernel = np.zeros((7, 3, 1, 1))
    kernel[1, 0] = np.nan
    broken = save(tmp_path / "broken.onnx", {"out": kernel})
    with pytest.raises(MaskError, match=r"gave NaN or infinite scores for 'a grey image'"):
        OnnxTeacher(broken, **PLAIN, height=8)
    teacher = OnnxTeacher(save(tmp_path / "net.onnx", {"out": weights(7)}), **PLAIN, height=8)
    with pytest.raises(ImageError, match=r"'beside\.png' has no pixels"):
        teacher.parse([np.zeros((0, 4, 3), np.uint8)], ["beside.png"])


def test_a_very_wide_image_and_images_of_any_kind_are_taken(tmp_path):
    teacher = OnnxTeacher(save(tmp_path / "net.onnx", {"out": weights(7)}), **PLAIN, height=8)
    (mask,) = teacher.parse([Image.new("RGB", (9_000, 1))], ["long.png"])
    assert mask.shape == (1, 9_000)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    (wanted,) = teacher.parse([image], ["a"])
    for form in (tmp_path / "a.png", pixels):
        assert np.array_equal(teacher.parse([form], ["a"])[0], wanted)
    assert np.array_equal(teacher.parse([pixels[..., ::-1]], ["a"], channels="bgr")[0], wanted)
