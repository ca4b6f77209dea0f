"""zvec, against the contract of the vector store."""

import pytest

from mainspring.adapters.zvec import ADAPTER
from mainspring.adapters.zvec.health import health
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.adapters.zvec.vector_store import open_store
from mainspring.testing.vectors import VectorStoreContract

PROGRAM = """
from pathlib import Path
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.adapters.zvec.vector_store import open_store
store = open_store(ZvecSettings(), Path({place!r}))
"""


@pytest.fixture
def place(tmp_path):
    return tmp_path / "é 100% (a)*"


@pytest.fixture
def opening(place):
    opened = []

    def open_one():
        opened.append(open_store(ZvecSettings(), place))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening):
    return opening()


class TestZvec(VectorStoreContract):
    smallest = 8 << 20  # zvec takes 4 MB for an index of any size
    stop_words = False  # it has a stemmer, and no list of stop words

    @pytest.fixture
    def program(self, place):
        return PROGRAM.format(place=str(place))


def test_its_adapter_names_it(store):
    assert (ADAPTER.port, ADAPTER.name, ADAPTER.embedded) == ("vectors", "zvec", True)
    assert ADAPTER.capabilities["full_text"] == store.capabilities().full_text
    assert health(store) == {"indexes": 0, "rows": 0}
