"""Stores compared on one's own rows: the truth, the figures, the recommendation."""

import numpy as np
import pytest

from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.adapters.zvec.vector_store import open_store as open_zvec
from mainspring.ports.vector_store import Hits
from mainspring.rag.choosing import Asked, Build, Measured, Rows, Usage, compare, nearest, recommend
from mainspring.testing.vector_oracle import clustered, id_of


def test_the_true_nearest_are_those_of_a_look_at_each():
    rows, queries = clustered(1000, 24), clustered(7, 24, 1)
    wanted = [sorted((float(row @ query) for row in rows), reverse=True)[:10] for query in queries]
    for piece in (1, 3, 999, 1000, 5000):
        found = nearest(rows, queries, 10, piece)
        assert np.allclose(np.take_along_axis(queries @ rows.T, found, 1), wanted)
    assert nearest(rows[:3], queries, 10).shape == (7, 3)


def test_two_real_stores_side_by_side(tmp_path):
    count = 3000
    rows = Rows([id_of(n) for n in range(count)], clustered(count, 32), [f"row w{n % 50}" for n in range(count)])
    stores = {
        "qdrant_edge": open_store(QdrantEdgeSettings(), tmp_path / "a"),
        "zvec": open_zvec(ZvecSettings(), tmp_path / "b"),
    }
    said = []
    report = compare(
        stores, rows, clustered(20, 32, 3), words=[f"w{n}" for n in range(20)], rounds=1, progress=said.append
    )
    assert list(dict.fromkeys(text.partition(":")[0] for text in said)) == ["qdrant_edge", "zvec"]
    assert (report.rows, report.dims) == (count, 32)
    for one in report.measured:
        assert one.plain.recall >= 0.95
        assert one.filtered.recall >= 0.98
        assert one.plain.complete == one.filtered.complete == 1.0
        assert one.hybrid is not None
        assert one.build.cpu > 0
        assert one.plain.per_cpu_second > 0
        assert one.build.bytes_allocated > count * 32 * 4
        assert not one.elsewhere
    assert report.recommended in stores
    assert report.why
    for store in stores.values():
        assert store.indexes() == (), "what was built to compare is gone"
        store.close()


class Forgetful:
    """Passes everything on, and answers with half of what was found."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def search(self, index, query):
        found = self._store.search(index, query)
        return Hits(found.hits[: len(found.hits) // 2], False)


def test_what_is_not_found_is_counted(tmp_path):
    store = open_store(QdrantEdgeSettings(), tmp_path)
    rows = Rows([id_of(n) for n in range(300)], clustered(300, 16))
    report = compare({"half": Forgetful(store)}, rows, clustered(10, 16, 3), rounds=1)
    (one,) = report.measured
    assert (one.plain.recall, one.plain.complete) == (0.5, 0.0)
    assert one.plain.target == 0.995, "it was asked for more and more"
    assert report.recommended == ""
    store.close()


def measured(name, *, speed=1000.0, build=10.0, recall=0.97, filtered=0.99, elsewhere=False, wall=0.01):
    took = Usage(1 / speed, wall)
    return Measured(
        name,
        elsewhere,
        Build(Usage(build, build), Usage(0.0, 0.0), 1),
        Asked(0.95, recall, 1.0, took),
        Asked(0.95, filtered, 1.0, took),
        None,
        0,
    )


@pytest.mark.parametrize(
    ("stores", "chosen"),
    [
        ([measured("a", speed=1000), measured("b", speed=2000)], "b"),
        ([measured("a", speed=1900, build=5), measured("b", speed=2000)], "a"),
        ([measured("a", speed=9000, recall=0.94), measured("b")], "b"),
        ([measured("a", speed=9000, filtered=0.97), measured("b")], "b"),
        ([measured("a", recall=0.9), measured("b", filtered=0.9)], ""),
        ([measured("a", speed=9000, wall=0.02), measured("far", speed=1, elsewhere=True, wall=0.001)], "far"),
    ],
)
def test_the_recommendation(stores, chosen):
    name, why = recommend(stores)
    assert name == chosen
    assert all(why)
