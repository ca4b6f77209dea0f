"""Qdrant's embedded engine, against the contract of the vector store."""

import pytest

from mainspring.adapters.qdrant_edge import ADAPTER
from mainspring.adapters.qdrant_edge.health import health
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
from mainspring.testing.vectors import VectorStoreContract

PROGRAM = """
from pathlib import Path
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
store = open_store(QdrantEdgeSettings(), Path({place!r}))
"""


@pytest.fixture
def place(tmp_path):
    return tmp_path / "é 100% (a)*"


@pytest.fixture
def opening(place):
    opened = []

    def open_one():
        opened.append(open_store(QdrantEdgeSettings(), place))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening):
    return opening()


class TestQdrantEdge(VectorStoreContract):
    @pytest.fixture
    def program(self, place):
        return PROGRAM.format(place=str(place))


def test_its_adapter_names_it(store):
    assert (ADAPTER.port, ADAPTER.name, ADAPTER.embedded) == ("vectors", "qdrant_edge", True)
    assert ADAPTER.capabilities["full_text"] == store.capabilities().full_text
    assert health(store) == {"indexes": 0, "rows": 0}
