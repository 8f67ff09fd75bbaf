"""PartEmbeddings and EmbeddedSet: what they refuse, slicing, and files bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EmbeddingError, OccludedReIDError, ShapeError
from occluded_reid.files import write_safetensors

NAMES = ("global", "part_1")


def make(rows=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    slots = tuple(torch.randn(rows, width, generator=generator).to(dtype) for width in (4, 3))
    return PartEmbeddings(NAMES, slots, torch.rand(rows, 2, generator=generator))


def same(one: PartEmbeddings, other: PartEmbeddings) -> bool:
    return (
        one.names == other.names
        and all(torch.equal(a, b) for a, b in zip(one.embeddings, other.embeddings, strict=True))
        and torch.equal(one.visibility, other.visibility)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_and_the_row_is_named(value):
    slot = torch.zeros(4, 3)
    slot[2, 1] = slot[3, 0] = value
    with pytest.raises(EmbeddingError, match=r"slot 'part_1' holds NaN or infinity in 2 of 4 rows, the first is row 2"):
        PartEmbeddings(NAMES, (torch.zeros(4, 2), slot), torch.ones(4, 2))


def test_opposite_infinities_do_not_hide_each_other():
    slot = torch.tensor([[float("inf"), -float("inf")]])
    with pytest.raises(EmbeddingError, match="row 0"):
        PartEmbeddings(("a",), (slot,), torch.ones(1, 1))


def test_large_finite_numbers_are_welcome():
    largest = torch.full((3, 2), torch.finfo(torch.float64).max, dtype=torch.float64)
    assert len(PartEmbeddings(("a",), (largest,), torch.ones(3, 1))) == 3


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_visibility_outside_its_range_is_refused(value):
    visibility = torch.ones(3, 2)
    visibility[1, 1] = value
    with pytest.raises(EmbeddingError, match=r"visibility of slot 'part_1' in row 1 is .*must lie in \[0, 1\]"):
        PartEmbeddings(NAMES, (torch.zeros(3, 2), torch.zeros(3, 2)), visibility)


@pytest.mark.parametrize(
    ("names", "slots", "visibility", "message"),
    [
        ((), (), torch.ones(2, 0), "slot names must be given and differ"),
        (("a", "a"), (torch.zeros(2, 1),) * 2, torch.ones(2, 2), "slot names must be given and differ"),
        (("a", "b"), (torch.zeros(2, 1),), torch.ones(2, 2), "need as many embeddings; got 1"),
        (("a",), (torch.zeros(2, 1),), torch.ones(2), r"visibility must be \(N, 1\).*got \(2,\)"),
        (("a",), (torch.zeros(2, 1),), torch.ones(2, 2), r"visibility must be \(N, 1\).*got \(2, 2\)"),
        (("a",), (torch.zeros(2, 1),), torch.ones(2, 1, dtype=torch.int64), "must be floating-point; got torch.int64"),
        (("a",), (torch.zeros(3, 1),), torch.ones(2, 1), r"slot 'a' must be a floating-point \(2, D\) tensor"),
        (("a",), (torch.zeros(2),), torch.ones(2, 1), r"slot 'a' must be a floating-point \(2, D\).*got .*\(2,\)"),
        (("a",), (torch.zeros(2, 1).long(),), torch.ones(2, 1), r"got torch.int64 \(2, 1\)"),
    ],
)
def test_shapes_that_do_not_fit(names, slots, visibility, message):
    with pytest.raises(ShapeError, match=message):
        PartEmbeddings(names, slots, visibility)


def test_no_rows_are_rows_too():
    empty = PartEmbeddings(NAMES, (torch.zeros(0, 4), torch.zeros(0, 3)), torch.zeros(0, 2))
    assert len(empty) == 0
    assert len(PartEmbeddings.cat([empty, make(2), empty])) == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(-8, 8), st.integers(-8, 8), st.integers(1, 3), st.data())
def test_rows_are_chosen_like_a_list(rows, start, stop, step, data):
    whole, numbers = make(rows), list(range(rows))
    listed = data.draw(st.lists(st.sampled_from(numbers), max_size=8)) if numbers else []
    for index, expected in ((slice(start, stop, step), numbers[start:stop:step]), (listed, listed)):
        assert_rows(whole[index], whole, expected)


def assert_rows(chosen: PartEmbeddings, whole: PartEmbeddings, expected: list[int]) -> None:
    assert len(chosen) == len(expected)
    for position, row in enumerate(expected):
        assert torch.equal(chosen.slot("part_1")[position], whole.slot("part_1")[row])
        assert torch.equal(chosen.visibility[position], whole.visibility[row])


def test_a_slice_shares_memory_and_an_index_may_be_of_several_kinds():
    whole = make()
    assert whole[1:3].slot("global").data_ptr() == whole.slot("global")[1].data_ptr()
    for index in ([3, 0], torch.tensor([3, 0]), np.array([3, 0]), (3, 0)):
        assert torch.equal(whole[index].slot("global"), whole.slot("global")[[3, 0]])
    mask = torch.tensor([True, False, False, True, False])
    assert same(whole[mask], whole[[0, 3]])
    assert len(whole[[]]) == 0


def test_select_slot_and_concatenate():
    whole = make()
    assert whole.widths == {"global": 4, "part_1": 3}
    assert torch.equal(whole.concatenate(), torch.cat([whole.slot("global"), whole.slot("part_1")], 1))
    turned = whole.select(["part_1", "global"])
    assert turned.names == ("part_1", "global")
    assert torch.equal(turned.visibility, whole.visibility[:, [1, 0]])
    assert repr(whole) == "PartEmbeddings(5 rows: global 4, part_1 3)"
    with pytest.raises(EmbeddingError, match=r"no slot is named 'part_2'\. Did you mean 'part_1'\?"):
        whole.slot("part_2")
    with pytest.raises(EmbeddingError, match="no slot is named 'globl'"):
        whole.select(["globl"])
    with pytest.raises(ShapeError, match="slot names must be given"):
        whole.select([])


def test_with_visibility_and_to():
    whole = make()
    hidden = whole.with_visibility(torch.zeros(5, 2))
    assert hidden.visibility.sum() == 0
    assert whole.visibility.sum() > 0
    half = whole.to(dtype=torch.float16)
    assert {e.dtype for e in half.embeddings} == {torch.float16}
    assert half.visibility.dtype == torch.float32
    with pytest.raises(ShapeError, match="visibility"):
        whole.with_visibility(torch.zeros(5, 3))


def test_cat_wants_equal_slots():
    one, two = make(2), make(3, seed=1)
    both = PartEmbeddings.cat([one, two])
    assert same(both[:2], one)
    assert same(both[2:], two)
    with pytest.raises(EmbeddingError, match=r"slots do not fit: one side holds .*global.*Embed both sides"):
        PartEmbeddings.cat([one, two.select(["part_1"])])
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        one.require_same_slots(two.select(["part_1", "global"]))
    with pytest.raises(EmbeddingError, match="nothing to concatenate"):
        PartEmbeddings.cat([])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saved_and_loaded_bit_for_bit(tmp_path, dtype):
    whole = make(7, seed=3, dtype=dtype)
    whole.save(tmp_path / "deep" / "rows.safetensors")
    loaded = PartEmbeddings.load(tmp_path / "deep" / "rows.safetensors")
    assert same(loaded, whole)
    assert [e.dtype for e in loaded.embeddings] == [dtype, dtype]


def test_slots_that_share_memory_are_saved_too(tmp_path):
    rows = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    shared = PartEmbeddings(("a", "b", "c"), (rows, rows, rows[:, :3]), torch.ones(1, 3))
    shared.save(tmp_path / "x")
    assert same(PartEmbeddings.load(tmp_path / "x"), shared)
    make(6)[::2].save(tmp_path / "y")
    assert same(PartEmbeddings.load(tmp_path / "y"), make(6)[::2])


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_damaged_file_is_named(tmp_path, keep):
    path = tmp_path / "rows.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EmbeddingError, match=r"rows\.safetensors' could not be read as safetensors"):
        PartEmbeddings.load(path)


def test_files_that_hold_something_else(tmp_path):
    with pytest.raises(EmbeddingError, match="absent"):
        PartEmbeddings.load(tmp_path / "absent")
    tensors = {"slot.a": torch.zeros(1, 2), "visibility": torch.ones(1, 1)}
    for metadata in ({}, {"slots": "["}, {"slots": "3"}, {"slots": '["b"]'}):
        write_safetensors(tmp_path / "other", tensors, metadata)
        with pytest.raises(EmbeddingError, match=r"other' holds no part embeddings .*PartEmbeddings\.save\(\)"):
            PartEmbeddings.load(tmp_path / "other")
    write_safetensors(tmp_path / "nan", {**tensors, "visibility": torch.full((1, 1), 2.0)}, {"slots": '["a"]'})
    with pytest.raises(EmbeddingError, match=r"visibility of slot 'a' in row 0 is 2\.0"):
        PartEmbeddings.load(tmp_path / "nan")


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddingError, match="could not be written"):
        make().save(tmp_path / "file" / "rows")


def test_embedded_set_checks_its_labels():
    rows = make(3)
    labelled = EmbeddedSet(rows, [1, 2, 3], [0, 0, 1], ("a", "b", "c"))
    assert labelled.identity.dtype == labelled.camera.dtype == np.int64
    assert len(labelled) == 3
    assert labelled.select(["global"]).embeddings.names == ("global",)
    assert labelled.select(["global"]).paths == ("a", "b", "c")
    with pytest.raises(ShapeError, match=r"identity must be \(3,\)"):
        EmbeddedSet(rows, [1, 2], [0, 0, 1])
    with pytest.raises(ShapeError, match=r"camera must be \(3,\).*got \(3, 1\)"):
        EmbeddedSet(rows, [1, 2, 3], [[0], [0], [1]])
    with pytest.raises(ShapeError, match="name all 3 rows; got 1"):
        EmbeddedSet(rows, [1, 2, 3], [0, 0, 1], ("a",))


def test_both_errors_are_the_librarys():
    assert issubclass(EmbeddingError, OccludedReIDError)
    assert issubclass(ShapeError, ValueError)
