"""The Qdrant server's adapter, against the contract; through the client's local mode, for want of a server here."""

import warnings

import pytest
from qdrant_client import QdrantClient, models

from mainspring.adapters.qdrant import ADAPTER
from mainspring.adapters.qdrant.health import health
from mainspring.adapters.qdrant.settings import QdrantSettings
from mainspring.adapters.qdrant.vector_store import QdrantStore, open_store
from mainspring.errors import ServiceError
from mainspring.testing.vectors import VectorStoreContract


@pytest.mark.skip(
    "needs a Qdrant server: docker run -p 6333:6333 qdrant/qdrant; the client's local mode has one process and no graph"
)
def needs_a_server(self):
    raise AssertionError


@pytest.fixture
def opening(tmp_path):
    opened = []

    def open_one():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = QdrantClient(path=str(tmp_path / "local"), force_disable_check_same_thread=True)
        opened.append(QdrantStore(client, QdrantSettings()))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening):
    return opening()


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestQdrant(VectorStoreContract):
    @pytest.fixture
    def program(self):
        return ""

    tells_bytes = False

    test_a_kill_loses_nothing_that_was_flushed = needs_a_server
    test_another_process = needs_a_server
    test_searches_and_writes_go_on_while_the_index_is_built = needs_a_server
    test_threads_share_a_store = needs_a_server
    test_most_of_the_true_nearest_are_found = needs_a_server
    test_new_rows_are_found_before_the_index_is_built = needs_a_server
    test_a_filter_that_few_fulfil_still_finds_k = needs_a_server


def test_its_adapter_names_it(store):
    assert (ADAPTER.port, ADAPTER.name, ADAPTER.embedded) == ("vectors", "qdrant", False)
    assert health(store) == {"indexes": 0}


def test_collections_of_others_are_left_alone(store, opening):
    store._client.create_collection("theirs", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    assert store.indexes() == ()
    with pytest.raises(ServiceError) as caught:
        store.count("theirs")
    assert caught.value.code == "MS-4180"


@pytest.mark.parametrize("grpc_port", [0, 1])
def test_nobody_there(tmp_path, grpc_port):
    store = open_store(
        QdrantSettings(url="qdrant://127.0.0.1:1", api_key="topsecret", timeout=1, grpc_port=grpc_port), tmp_path
    )
    with pytest.raises(ServiceError) as caught:
        store.indexes()
    error = caught.value
    assert (error.code, error.origin) == ("MS-4195", "vectors.url")
    assert "topsecret" not in f"{error} {error.why} {error.fix}"
