"""Which device is chosen, what is refused, and that float32 products keep their digits."""

import logging
import threading

import pytest
import torch

from occluded_reid.errors import DeviceError, OccludedReIDError
from occluded_reid.search.device import choose_device, describe_device, full_precision


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that torch sees so many GPUs."""

    def pretend(count: int, built: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: count - 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)

        class Properties:
            name, total_memory = "Card", 80 * 2**30

        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)

    return pretend


def test_auto_says_what_it_chose(gpus, caplog) -> None:
    caplog.set_level(logging.INFO, logger="occluded_reid")
    gpus(0)
    assert choose_device() == choose_device("auto") == torch.device("cpu")
    gpus(2)
    assert choose_device("auto") == torch.device("cuda", 1), "the current one"
    assert [record.message for record in caplog.records][1:] == [
        f"Device 'auto' is {describe_device('cpu')}.",
        "Device 'auto' is cuda:1 (Card, 80 GiB).",
    ]


def test_a_named_device_is_that_device_with_its_number(gpus) -> None:
    gpus(3)
    assert choose_device("cpu") == choose_device(torch.device("cpu", 0)) == torch.device("cpu")
    assert choose_device("cuda") == torch.device("cuda", 2), "the current one"
    assert choose_device("cuda:0") == choose_device(torch.device("cuda", 0)) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "count", "message"),
    [
        ("cuda", 0, r"device is 'cuda', but no GPU that it can use was found .* Search on 'cpu', or let 'auto' choose"),
        ("cuda:0", 0, r"device is 'cuda:0', but no GPU"),
        ("cuda:7", 2, r"device is 'cuda:7', but here are only 'cuda:0' \(Card 0\), 'cuda:1' \(Card 1\)"),
        ("cuda:1", 1, r"device is 'cuda:1', but here is only 'cuda:0'"),
        ("mps", 1, r"device is 'mps', but search needs float64.* search on 'cpu'"),
        ("meta", 1, r"device is 'meta', which search does not know; give 'auto', 'cpu', 'cuda' or 'cuda:1'"),
        ("gpu", 1, r"device is 'gpu'; give 'auto', 'cpu', 'cuda' or 'cuda:<number>'"),
        (None, 1, r"device is None; give 'auto'"),
    ],
)
def test_nothing_falls_back_in_silence(gpus, device, count, message) -> None:
    gpus(count)
    with pytest.raises(DeviceError, match=message) as caught:
        choose_device(device)
    assert isinstance(caught.value, OccludedReIDError)


def test_a_torch_without_cuda_is_named_as_the_reason(gpus) -> None:
    gpus(0, built=False)
    with pytest.raises(DeviceError, match="this torch is built for the CPU alone"):
        choose_device("cuda")


def test_descriptions_name_threads_or_the_card(gpus) -> None:
    gpus(1)
    assert describe_device(torch.device("cuda", 0)) == "cuda:0 (Card, 80 GiB)"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert describe_device("cpu") == "cpu (1 thread)"
        torch.set_num_threads(2)
        assert describe_device("cpu") == "cpu (2 threads)"
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def fast_products():
    """Products as training scripts like to set them: TF32 on GPUs, bfloat16 on CPUs that have it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def settings() -> tuple[object, ...]:
    return torch.get_float32_matmul_precision(), *(
        getattr(backend, "fp32_precision", None)
        for backend in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    )


def is_full() -> bool:
    _, *each = settings()
    return all(value == "ieee" for value in each) if None not in each else settings()[0] == "highest"


def test_products_keep_their_digits_and_settings_come_back(fast_products) -> None:
    before = settings()
    assert not is_full()
    with full_precision("cpu"):
        assert is_full()
    assert settings() == before
    with pytest.raises(ZeroDivisionError), full_precision("cpu"):
        _ = 1 / 0
    assert settings() == before


def test_settings_come_back_when_the_last_search_ends(fast_products) -> None:
    before = settings()
    started, go_on = threading.Event(), threading.Event()

    def search() -> None:
        with full_precision("cpu"):
            started.set()
            go_on.wait(timeout=60)

    other = threading.Thread(target=search)
    with full_precision("cpu"):
        other.start()
        assert started.wait(timeout=60)
    assert is_full(), "the other search still runs"
    go_on.set()
    other.join()
    assert settings() == before


def test_autocast_around_a_search_does_not_reach_its_products() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision("cpu"):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
