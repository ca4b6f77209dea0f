"""The client against a real server, and against one that does everything a server should not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from e2e.client_example import visit
from e2e.conftest import Served, free_port
from grpc_kit import address
from mainspring.client import (
    AnswerError,
    AsyncClient,
    AsyncGrpcClient,
    Client,
    GrpcClient,
    KeyRefusedError,
    Label,
    RequestRefusedError,
)
from mainspring.client.tensors import read_tensors, write_tensors
from mainspring.errors import DataError
from mainspring.protocols.bodies import decode_json

ROW = {"customer": "c1", "amount": 12.5}
MATRIX = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]], "f4")
EVENT = {"customer": "client", "amount": 3.0, "at": "2025-03-01T10:00:00Z", "returned": None}


def test_every_call_of_the_client(served: Served) -> None:
    with Client(served.url) as client:
        one = client.predict("returns", ROW, features=True)
        many = client.predict_many("returns", [ROW, {"customer": "nobody", "amount": None}])
        assert (one.model, many[0].score, many[1].status) == ("returns", one.score, {"habits": "MISSING"})
        assert one.features is not None
        assert one.features["amount"] == 12.5
        assert client.models() == ["returns"]
        first = client.push("visits", [EVENT], key="from-a-test")
        again = client.push("visits", [EVENT], key="from-a-test")
        assert first == again
        assert first.accepted == 1
        assert client.label([Label(one.id, True)]).accepted == 1
        assert client.label([Label(one.id, True)]).accepted in (0, 1)  # one of a later moment is a newer one


def test_the_example_of_the_docs(served: Served) -> None:
    assert visit(served.url, "docs", 12.5) in (True, False)
    with Client(served.url) as client:
        seen = client.predict("returns", {"customer": "docs", "amount": 12.5}, features=True)
    assert seen.status == {"habits": "PRESENT"}


def test_tensors_go_and_come_in_binary(served: Served) -> None:
    with Client(served.url) as client:
        whole = client.infer("returns", {"input": MATRIX})
        names = [column["name"] for column in columns_of(served)]
        apart = client.infer("returns", {name: MATRIX[:, place] for place, name in enumerate(names)})
        assert whole.outputs["score"].dtype == np.float64
        assert len(whole.ids) == 2
        assert whole.outputs["score"].tobytes() == apart.outputs["score"].tobytes()
        assert client.infer("returns", {"input": MATRIX}, version=whole.version, outputs=["score"]).model == "returns"
        with pytest.raises(RequestRefusedError, match="no output"):
            client.infer("returns", {"input": MATRIX}, outputs=["nothing"])
        with pytest.raises(DataError, match="complex"):
            client.infer("returns", {"input": MATRIX.astype("c8")})


def columns_of(served: Served) -> Any:
    with Client(served.url) as client:
        return [{"name": name} for name in client.predict("returns", ROW, features=True).features or ()]


def test_the_async_client_says_the_same(served: Served) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(served.url) as client:
            answers = await asyncio.gather(*(client.predict("returns", {**ROW, "amount": float(n)}) for n in range(40)))
            tensors = await client.infer("returns", {"input": MATRIX})
            pushed = await client.push("visits", [EVENT], key="from-a-test")
            labelled = await client.label([Label(answers[0].id, False)])
            many = await client.predict_many("returns", [ROW])
            return answers, tensors, pushed, labelled, await client.models(), many

    answers, tensors, pushed, labelled, models, many = asyncio.run(ask())
    with Client(served.url) as client:
        assert [a.score for a in answers] == [
            client.predict("returns", {**ROW, "amount": float(n)}).score for n in range(40)
        ]
        assert (
            tensors.outputs["score"].tobytes() == client.infer("returns", {"input": MATRIX}).outputs["score"].tobytes()
        )
        assert many[0].score == client.predict("returns", ROW).score
    assert pushed.accepted == 1
    assert labelled.accepted == 1
    assert models == ["returns"]


def test_what_the_server_refuses_says_why(served: Served) -> None:
    with Client(served.url) as client:
        with pytest.raises(RequestRefusedError) as found:
            client.predict("returns", {"customer": 7})
        assert (found.value.status, found.value.server_code) == (400, "MS-2302")
        assert "customer" in found.value.what
        assert "send customer" in found.value.fix
        with pytest.raises(RequestRefusedError, match="no endpoint is called 'nothing/here'"):
            client.predict("nothing/here", ROW)
        with pytest.raises(RequestRefusedError, match="no such path: /feature-services"):
            client.features("none", {"customer": ["c1"]})


def test_nobody_there() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", tries=2) as client, pytest.raises(AnswerError) as found:
        client.models()
    assert found.value.code == "MS-4380"
    assert "in 2 tries" in found.value.why

    async def ask() -> None:
        async with AsyncClient(f"http://127.0.0.1:{free_port()}", tries=1) as client:
            await client.models()

    with pytest.raises(AnswerError, match="does not answer"):
        asyncio.run(ask())


Reply = Callable[[BaseHTTPRequestHandler, int], None]


class Odd:
    """A server that answers as it is told, and counts what it is asked."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.seen.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
                reply(self, len(outer.seen))

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def odd() -> Iterator[Callable[[Reply], Odd]]:
    made: list[Odd] = []

    def start(reply: Reply) -> Odd:
        made.append(Odd(reply))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"{}", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def asked(odd: Odd, mode: str, **more: Any) -> Any:
    if mode == "sync":
        with Client(odd.url, **more) as client:
            return client.push("s", [{"a": 1}])

    async def ask() -> Any:
        async with AsyncClient(odd.url, **more) as client:
            return await client.push("s", [{"a": 1}])

    return asyncio.run(ask())


both = pytest.mark.parametrize("mode", ["sync", "async"])


@both
def test_a_busy_server_is_asked_again_under_the_same_key(odd: Callable[[Reply], Odd], mode: str) -> None:
    def reply(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number < 3:
            answer(handler, (503, 429)[number - 1], b'{"error": "later"}', retry_after="0")
        else:
            answer(handler, 200, b'{"accepted": 1, "quarantined": 0, "seq": 5}')

    server = odd(reply)
    assert asked(server, mode).accepted == 1
    assert len(server.seen) == 3
    assert len({seen["idempotency-key"] for seen in server.seen}) == 1


@both
def test_it_gives_up_after_its_tries_and_says_what_was_told(odd: Callable[[Reply], Odd], mode: str) -> None:
    server = odd(lambda handler, number: answer(handler, 503, b'{"error": "no champion"}', retry_after="0"))
    with pytest.raises(AnswerError) as found:
        asked(server, mode, tries=4)
    assert (found.value.status, len(server.seen)) == (503, 4)
    assert "no champion" in found.value.why


@both
def test_a_stall_ends_at_the_time_limit(odd: Callable[[Reply], Odd], mode: str) -> None:
    free = threading.Event()
    server = odd(lambda handler, number: (free.wait(30), None)[1])
    try:
        with pytest.raises(AnswerError, match="does not answer"):
            asked(server, mode, timeout=0.5)
        assert len(server.seen) == 1
    finally:
        free.set()


@both
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_not_followed_as_it_would_carry_the_key(
    odd: Callable[[Reply], Odd], mode: str, status: int
) -> None:
    elsewhere = odd(lambda handler, number: answer(handler, 200, b'{"accepted": 1}'))
    server = odd(lambda handler, number: answer(handler, status, location=f"{elsewhere.url}/sources/s/push"))
    with pytest.raises(RequestRefusedError) as found:
        asked(server, mode, key="secret")
    assert found.value.status == status
    assert not elsewhere.seen
    assert server.seen[0]["authorization"] == "Bearer secret"


@both
@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"accepted": "many"}', b"\xff\xfe"])
def test_garbage_is_an_error_of_its_own(odd: Callable[[Reply], Odd], mode: str, body: bytes) -> None:
    with pytest.raises(AnswerError) as found:
        asked(odd(lambda handler, number: answer(handler, 200, body)), mode)
    assert found.value.code == "MS-4382"


@both
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(odd: Callable[[Reply], Odd], mode: str, status: int) -> None:
    with pytest.raises(KeyRefusedError) as found:
        asked(odd(lambda handler, number: answer(handler, status, b'{"error": "a key is needed"}')), mode)
    assert "server.keys" in found.value.fix


KINDS = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8", ">i4"])


@given(KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=3, min_side=0, max_side=4))))
def test_tensors_come_back_as_they_went(array: np.ndarray[Any, Any]) -> None:
    body, length = write_tensors({"x": array, "words": np.array(["ab", "", "Ж"], object)})
    head = decode_json(body[:length])
    found = read_tensors(head["inputs"], memoryview(body)[length:])
    assert found["x"].shape == array.shape
    assert found["x"].dtype == array.dtype.newbyteorder("<")
    assert found["x"].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert found["words"].tolist() == [b"ab", b"", "Ж".encode()]


# -- gRPC -------------------------------------------------------------------------------------------------------------


def test_the_clients_over_grpc_say_the_same_as_over_http(served: Served) -> None:
    where = address(served)
    with Client(served.url) as http, GrpcClient(where) as client:
        wanted = http.infer("returns", {"input": MATRIX})
        found = client.infer("returns", {"input": MATRIX}, version=wanted.version, outputs=["score"])
        assert (found.model, found.version, len(found.ids)) == (wanted.model, wanted.version, 2)
        assert found.outputs["score"].tobytes() == wanted.outputs["score"].tobytes()
        assert client.models() == ["returns"]
        with pytest.raises(RequestRefusedError, match="no model is called 'nobody'") as refused:
            client.infer("nobody", {"input": MATRIX})
        assert refused.value.status == 404
        with pytest.raises(DataError, match="complex"):
            client.infer("returns", {"input": MATRIX.astype("c8")})
        with pytest.raises(AnswerError) as late:
            client.infer("returns", {"input": MATRIX}, timeout_us=1)
        assert late.value.status == 504

    async def ask() -> tuple[Any, ...]:
        async with AsyncGrpcClient(where) as client:
            many = await asyncio.gather(*(client.infer("returns", {"input": MATRIX + n}) for n in range(20)))
            with pytest.raises(RequestRefusedError, match="no output"):
                await client.infer("returns", {"input": MATRIX}, outputs=["nothing"])
            return await client.models(), many

    names, many = asyncio.run(ask())
    assert names == ["returns"]
    with Client(served.url) as http:
        for n, one in enumerate(many):
            assert (
                one.outputs["score"].tobytes()
                == http.infer("returns", {"input": MATRIX + n}).outputs["score"].tobytes()
            )


class Busy(grpc.GenericRpcHandler):
    """A server of gRPC that is busy so many times before it answers, and keeps what it was sent."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.keys: list[Any] = []

    def service(self, handler_call_details: Any) -> Any:
        self.keys.append(dict(handler_call_details.invocation_metadata).get("authorization"))

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            if self.left:
                self.left -= 1
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "0"),))
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
            return b"\x0a\x03\x0a\x01m"

        return grpc.unary_unary_rpc_method_handler(handle)


@both
@pytest.mark.parametrize(("times", "tries"), [(2, 3), (3, 3)])
def test_a_busy_server_of_grpc_is_asked_again_and_not_for_ever(mode: str, times: int, tries: int) -> None:
    handler = Busy(times)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), (handler,))
    where = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()

    def ask() -> list[str]:
        if mode == "sync":
            with GrpcClient(where, key="secret", tries=tries) as client:
                return client.models()

        async def asynchronously() -> list[str]:
            async with AsyncGrpcClient(where, key="secret", tries=tries) as client:
                return await client.models()

        return asyncio.run(asynchronously())

    try:
        if times < tries:
            assert ask() == ["m"]
        else:
            with pytest.raises(AnswerError, match="cannot answer now") as found:
                ask()
            assert (found.value.status, "too many" in (found.value.why or "")) == (429, True)
        assert handler.keys == ["Bearer secret"] * 3
    finally:
        server.stop(0).wait()
