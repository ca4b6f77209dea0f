"""Embedders and rerankers behind HTTP: the contract over real sockets, and everything that a server can do wrong."""

from __future__ import annotations

import email.utils
import importlib.metadata
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inference import ModelServer, drip, drop, garbage, half, json_answer, stall, status
from mainspring.adapters.model_server.calling import Caller, RetryBudget, _asked_to_wait
from mainspring.adapters.model_server.embedder import ServerEmbedder, open_embedder
from mainspring.adapters.model_server.health import health
from mainspring.adapters.model_server.reranker import open_reranker
from mainspring.adapters.model_server.settings import EmbedderSettings, RerankerSettings
from mainspring.adapters.onnxruntime.embedder import open_embedder as open_local
from mainspring.adapters.onnxruntime.settings import EmbedderSettings as LocalSettings
from mainspring.errors import ConfigError, ServiceError
from mainspring.ports.embedder import EMBEDDERS
from mainspring.ports.reranker import Reranker
from mainspring.testing.embedder import EmbedderContract


@pytest.fixture(scope="module")
def local():
    return open_local(LocalSettings(), Path("nowhere"))


@pytest.fixture
def server(local):
    opened = ModelServer(local)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def steady(local):
    opened = ModelServer(local)
    yield opened
    opened.close()


def tokenizer_path() -> str:
    (point,) = importlib.metadata.entry_points(group=EMBEDDERS)
    return point.load().tokenizer


def remote(server, sleep=lambda _: None, **settings) -> ServerEmbedder:
    """An embedder that does not wait between its tries."""
    given = EmbedderSettings(**{"url": f"{server.url}/v1", "model": "mini", "dims": 384, "timeout": 5.0} | settings)
    caller = Caller(given.url, given.key, given.concurrency, given.timeout, given.retries, sleep)
    return ServerEmbedder(given, "", caller)


def fault(call) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    assert caught.value.fix
    return caught.value


# -- the contract -----------------------------------------------------------------------------------------------------


def opened(settings):
    embedder = open_embedder(settings, Path("/"))
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def by_openai(steady):
    yield from opened(EmbedderSettings(f"{steady.url}/v1", "mini", max_tokens=256, tokenizer=tokenizer_path()))


@pytest.fixture(scope="module")
def by_base64(steady):
    yield from opened(EmbedderSettings(f"{steady.url}/v1/", "mini", encoding="base64"))


@pytest.fixture(scope="module")
def by_tei(steady):
    yield from opened(EmbedderSettings(steady.url, "mini", "tei", max_tokens=256))


class TestOpenAI(EmbedderContract):
    @pytest.fixture
    def embedder(self, by_openai):
        return by_openai


class TestOpenAIBase64(EmbedderContract):
    @pytest.fixture
    def embedder(self, by_base64):
        return by_base64


class TestTei(EmbedderContract):
    @pytest.fixture
    def embedder(self, by_tei):
        return by_tei


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_what_openai_is_asked(server):
    remote(server, key="sk-1", query_prefix="q: ", document_prefix="d: ").embed_documents(["a", "b"])
    path, headers, body = server.seen[-1]
    assert path == "/v1/embeddings"
    assert headers["authorization"] == "Bearer sk-1"
    assert body == {"model": "mini", "input": ["d: a", "d: b"], "encoding_format": "float"}
    remote(server, query_prefix="q: ").embed_query("a")
    assert server.seen[-1][2]["input"] == ["q: a"]
    assert "authorization" not in server.seen[-1][1]


def test_what_tei_is_asked(server):
    mine = remote(server, url=server.url, api="tei")
    mine.embed_documents(["a", "b"])
    assert server.seen[-1][0] == "/embed"
    assert server.seen[-1][2] == {"inputs": ["a", "b"], "normalize": True, "truncate": True}
    assert mine.count(["a b", "c " * 900]) == [4, 902]
    assert server.seen[-1][0] == "/tokenize"


def test_vectors_are_those_of_the_model_in_order_of_the_texts(server, local):
    texts = [f"text number {number} about {'wings ' * (number % 5)}" for number in range(70)]
    expected = local.embed_documents(texts)
    found = remote(server, batch_texts=8, concurrency=3).embed_documents(texts)
    assert ((found * expected).sum(1)).min() > 0.95
    assert (found @ expected.T).argmax(1).tolist() == list(range(70))
    assert len(server.seen) == 9
    assert max(len(body["input"]) for _, _, body in server.seen) == 8


def test_no_more_requests_at_once_than_allowed(server):
    mine = remote(server, batch_texts=1, concurrency=3)
    gate = threading.Barrier(3, timeout=60)

    def together(handler):
        gate.wait()  # three are under way at once, or this breaks
        json_answer({"data": [{"index": 0, "embedding": [1.0] * 384}]})(handler)

    server.faults = [together] * 12
    mine.embed_documents(["x"] * 12)
    assert server.most == 3


def test_a_query_is_asked_once(server):
    mine = remote(server)
    for _ in range(3):
        mine.embed_query("the same")
    assert len(server.seen) == 1


def test_the_server_tells_the_length(server):
    mine = remote(server, dims=None)
    assert mine.dims == 384
    assert mine.id == "mini:384"
    assert len(server.seen) == 1


def test_ids_tell_apart_what_gives_other_vectors(server):
    changes = ({}, {"dims": 2}, {"model": "m"}, {"query_prefix": "a"}, {"document_prefix": "a"})
    ids = {remote(server, **change).id for change in changes}
    assert len(ids) == 5
    assert remote(server, url="http://127.0.0.1:1/v1").id == remote(server).id


def test_counts_without_a_tokenizer_are_rather_too_great(server, local):
    texts = ["Plain English text about wings.", "Größe und Maß", "漢字の文章", "x = f(1, 2) # code", "a" * 50]
    guessed = remote(server).count(texts)
    assert all(guess >= exact for guess, exact in zip(guessed[:4], local.count(texts)[:4], strict=True))
    assert remote(server).tokenizer == ""
    assert not server.seen


# -- faults that pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [status(429), status(500), status(503, {"retry-after": "0"}), drop, half, status(408)])
def test_a_fault_that_passes_is_not_seen(server, local, bad):
    server.faults = [bad, bad]
    found = remote(server).embed_documents(["the wing"])
    assert float(found[0] @ local.embed_documents(["the wing"])[0]) > 0.99
    assert len(server.seen) == 3


def test_the_wait_that_is_asked_for_is_kept(server):
    waits: list[float] = []
    server.faults = [status(429, {"retry-after": "7"}), status(429)]
    remote(server, waits.append).embed_documents(["x"])
    assert waits[0] == 7
    assert 0 < waits[1] <= 1


def test_a_wait_beyond_the_deadline_is_not_begun(server):
    waits: list[float] = []
    server.faults = [status(429, {"retry-after": "3600"})]
    assert fault(lambda: remote(server, waits.append, deadline=30.0).embed_documents(["x"])).code == "MS-4062"
    assert waits == []
    assert len(server.seen) == 1


def test_what_servers_write_for_a_wait():
    assert _asked_to_wait(None) == 0
    assert _asked_to_wait("1.5") == 1.5
    assert _asked_to_wait("-3") == 0
    assert _asked_to_wait("soon") == 0
    assert 80 < _asked_to_wait(email.utils.formatdate(time.time() + 100, usegmt=True)) <= 100
    assert _asked_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0


# -- faults that stay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "code", "tries"),
    [
        (status(429), "MS-4066", 5),
        (status(500), "MS-4066", 5),
        (drop, "MS-4061", 5),
        (half, "MS-4061", 5),
        (status(401), "MS-4063", 1),
        (status(403), "MS-4063", 1),
        (status(400, body=b'{"error": "input too long"}'), "MS-4065", 1),
        (status(413), "MS-4065", 1),
        (status(302, {"location": "http://127.0.0.1:1/"}), "MS-4065", 1),
        (garbage, "MS-4064", 1),
        (json_answer({"data": "what"}), "MS-4064", 1),
        (json_answer([1, 2]), "MS-4064", 1),
        (json_answer({"data": []}), "MS-4064", 1),
        (json_answer({"data": [{"index": 3, "embedding": [1.0] * 384}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": ["a"] * 384}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": [[1.0] * 384]}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": "!!no base64!!"}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": [None] * 384}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": [0.0] * 384}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": [1e39] * 384}]}), "MS-4064", 1),
        (json_answer({"data": [{"index": 0, "embedding": [1.0] * 100}]}), "MS-4067", 1),
    ],
)
def test_a_fault_that_stays(server, bad, code, tries):
    server.faults = [bad] * 20
    found = fault(lambda: remote(server, key="sk-secret").embed_documents(["x"]))
    assert found.code == code
    assert len(server.seen) == tries
    assert "sk-secret" not in found.lines() + repr(found.as_dict())


@pytest.mark.parametrize(
    "answer", [[], [[1.0] * 384] * 2, {"no": 1}, [["a"] * 384], [1.0] * 384, [[float("nan")] * 384], "text", None]
)
def test_teis_answers_are_checked(server, answer):
    server.faults = [json_answer(answer)]
    mine = remote(server, url=server.url, api="tei")
    assert fault(lambda: mine.embed_documents(["x"])).code in ("MS-4064", "MS-4067")


@pytest.mark.parametrize("bad", [stall(3), drip(3)])
def test_a_server_that_stalls(server, bad):
    server.faults = [bad] * 9
    found = fault(lambda: remote(server, timeout=0.2, retries=1).embed_documents(["x"]))
    assert found.code == "MS-4062"
    assert len(server.seen) == 2
    assert fault(lambda: remote(server, timeout=9.0, deadline=0.3).embed_documents(["x"])).code == "MS-4062"


def test_nobody_is_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = EmbedderSettings(url, "mini", dims=2, retries=0)
    found = fault(lambda: open_embedder(settings, Path("/")).embed_query("x"))
    assert found.code == "MS-4061"
    assert "refused" in found.why


def test_retries_are_a_share_of_all_requests(server):
    """A server that fails for everybody is not asked five times as much."""
    server.faults = [status(503)] * 1000
    mine = remote(server)
    for _ in range(50):
        fault(lambda: mine.embed_documents(["x"]))
    assert len(server.seen) <= 50 + 10 + 50 * 0.2 + 1


def test_the_budget_fills_again():
    budget = RetryBudget(share=0.5, most=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.pay()
    assert not budget.take()
    budget.pay()
    assert budget.take()
    for _ in range(100):
        budget.pay()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_one_batch_that_fails_ends_them_all(server):
    server.faults = [status(400)]
    mine = remote(server, batch_texts=1, concurrency=1)
    fault(lambda: mine.embed_documents(["x"] * 200))
    asked = len(server.seen)
    assert asked < 20
    assert len(mine.embed_documents(["x"])) == 1


def test_the_key_goes_to_no_other_server(server, local):
    other = ModelServer(local)
    server.faults = [status(307, {"location": f"{other.url}/v1/embeddings"})]
    assert fault(lambda: remote(server, key="sk-secret").embed_documents(["x"])).code == "MS-4065"
    assert not other.seen
    other.close()


def test_a_password_in_the_url_is_not_told():
    settings = EmbedderSettings("http://me:hunter2@127.0.0.1:1", "m", dims=2, retries=0)
    found = fault(lambda: open_embedder(settings, Path("/")).embed_query("x"))
    assert "hunter2" not in found.lines()
    assert "127.0.0.1:1" in found.what


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_embedder(EmbedderSettings("http://127.0.0.1:1", ""), tmp_path / ".mainspring")
    assert caught.value.code == "MS-3051"
    (tmp_path / "t.json").write_text("{}")
    for path in ("gone.json", "t.json"):
        with pytest.raises(ConfigError) as caught:
            open_embedder(EmbedderSettings("http://127.0.0.1:1", "m", tokenizer=path), tmp_path / ".mainspring")
        assert caught.value.code == "MS-3052"


# -- rerankers --------------------------------------------------------------------------------------------------------

TEXTS = ["nothing here", "the wing of a plane", "a thin wing at speed", "plane", "wing"]
QUERY = "a wing of thin plane"


def reranker(server, **settings) -> Reranker:
    return open_reranker(RerankerSettings(**{"url": server.url, "timeout": 5.0} | settings), Path("/"))


@pytest.mark.parametrize("api", ["tei", "cohere", "jina"])
def test_scores_are_in_the_order_of_the_texts(server, api):
    mine = reranker(server, api=api, model="cross", batch_texts=2)
    assert isinstance(mine, Reranker)
    assert mine.rerank(QUERY, TEXTS) == [0.0, 4.0, 3.0, 1.0, 1.0]
    assert len(server.seen) == 3
    assert mine.rerank(QUERY, []) == []
    assert health(mine)["reranks"] is True
    mine.close()


def test_what_rerankers_are_asked(server):
    expected = {
        "tei": ("/rerank", {"query": "q", "texts": ["a"], "raw_scores": True, "truncate": True}),
        "cohere": ("/v2/rerank", {"query": "q", "documents": ["a"], "top_n": 1, "model": "m"}),
        "jina": ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 1, "model": "m", "return_documents": False}),
    }
    for api, (path, body) in expected.items():
        reranker(server, api=api, model="m", key="sk").rerank("q", ["a"])
        assert server.seen[-1][0] == path
        assert server.seen[-1][2] == body
        assert server.seen[-1][1]["authorization"] == "Bearer sk"


@pytest.mark.parametrize("bad", [stall(3), drip(3), status(429, {"retry-after": "60"})])
def test_past_the_deadline_there_are_no_scores(server, bad):
    server.faults = [bad] * 5
    assert reranker(server).rerank(QUERY, TEXTS, deadline=0.2) is None
    assert reranker(server, timeout=0.2).rerank(QUERY, TEXTS) is None
    assert reranker(server).rerank(QUERY, TEXTS, deadline=0.0) is None


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("tei", []),
        ("tei", {"results": []}),
        ("tei", [{"index": 0}]),
        ("tei", [{"index": 1, "score": 1.0}]),
        ("tei", [{"index": 0, "score": "high"}]),
        ("tei", [{"index": 0, "score": None}]),
        ("cohere", [{"index": 0, "relevance_score": 1.0}]),
        ("cohere", {"results": [{"index": 0, "score": 1.0}]}),
        ("jina", {"results": None}),
    ],
)
def test_answers_of_rerankers_are_checked(server, api, answer):
    server.faults = [json_answer(answer)]
    assert fault(lambda: reranker(server, api=api).rerank("q", ["a"])).code == "MS-4064"


def test_a_reranker_that_fails(server):
    server.faults = [status(500)] * 2 + [status(401)] + [garbage]
    mine = reranker(server)
    mine._caller._sleep = lambda _: None
    assert fault(lambda: mine.rerank("q", ["a"])).code == "MS-4066"
    assert fault(lambda: mine.rerank("q", ["a"])).code == "MS-4063"
    assert fault(lambda: mine.rerank("q", ["a"])).code == "MS-4064"
    assert mine.rerank("q", ["a"]) == [0.0]


def test_health_of_an_embedder(server):
    assert health(remote(server))["embeds"] is True
    assert np.isclose(np.linalg.norm(remote(server).embed_query("x")), 1)
