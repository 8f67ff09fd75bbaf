"""FAISS on GPUs against FAISS on the CPU; skipped, and counted, where there is no GPU."""

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import DeviceError
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, exact_topk
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.index.faiss import FaissIndex


def gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or not gpus(), reason="needs a GPU that torch and FAISS see"),
]


def vectors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pair(factory: str, tmp_path, device: str = "cuda") -> tuple[FaissIndex, FaissIndex]:
    rows = vectors(4000, 0)
    index = FaissIndex(32, metric="inner_product", factory=factory)
    index.train(rows)
    index.add(rows, np.arange(4000) * 3)
    index.save(tmp_path / "index")
    return index, FaissIndex.load(tmp_path / "index", mmap=False, device=device)


@pytest.mark.parametrize("factory", ["Flat", "IVF32,Flat", "IVF32,SQ8", "IVF32,SQfp16", "PCA16,IVF32,Flat"])
def test_the_gpu_finds_what_the_cpu_finds(factory, tmp_path) -> None:
    cpu, gpu = pair(factory, tmp_path)
    queries = vectors(100, 1)
    for options in ({"effort": 8}, {"effort": 8, "allowed": np.arange(12_000) % 2 == 0}):
        (d, i), (e, j) = cpu.search(queries, 10, **options), gpu.search(queries, 10, **options)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(i, j, strict=True)]) > 9.8
        np.testing.assert_allclose(d, e, atol=2e-3)


def test_shares_on_several_gpus(tmp_path) -> None:
    if gpus() < 2:
        pytest.skip("needs two GPUs")
    cpu, gpu = pair("IVF32,Flat", tmp_path, "cuda:0,1")
    np.testing.assert_array_equal(
        cpu.search(vectors(50, 1), 5, effort=32)[1], gpu.search(vectors(50, 1), 5, effort=32)[1]
    )


def test_torch_and_faiss_share_one_process() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = PartEmbeddings(("a",), (torch.randn(3000, 32, generator=generator),), torch.ones(3000, 1))
    query, matcher = rows[:20], VisibilityWeightedMatcher()
    product = (rows.slot("a").cuda() @ rows.slot("a").cuda().T).sum().item()
    index = FaissIndex(32, metric="inner_product", device="cuda")
    numbers, unit = matcher.index_vectors(rows, "a")
    index.add(unit, numbers)
    found = approximate_topk(query, InMemoryRows(rows), matcher, 5, {"a": index})
    again = (rows.slot("a").cuda() @ rows.slot("a").cuda().T).sum().item()
    assert product == again
    exact = exact_topk(query, InMemoryRows(rows), matcher, 5, device="cuda")
    for q in range(20):
        np.testing.assert_array_equal(found.positions[q], exact.positions[q])
        np.testing.assert_array_equal(found.distances[q], exact.distances[q])


def test_a_graph_does_not_run_there() -> None:
    with pytest.raises(DeviceError, match="use Flat or IVF"):
        FaissIndex(32, metric="l2", factory="HNSW16", device="cuda")
