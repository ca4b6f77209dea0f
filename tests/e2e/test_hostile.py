"""Clients that mean ill, or know no better, over raw sockets: refused, cut off, or served, and nobody else suffers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SERVER = Path(__file__).resolve().parents[1] / "host_server.py"
GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"


@contextlib.contextmanager
def running(side: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, str(SERVER), side], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


BAD_HOSTS = (b"a b", b"a@b", b"a/b", b"a?b", b"a,b:c", b"[::1")
BAD_TARGETS = (b"ftp://x/echo", b"x:80", b"echo", b"http://a@x:b/echo")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running("ours") as (found, _):
        yield found


@contextlib.contextmanager
def client(port: int, *, buffer: int | None = None) -> Iterator[socket.socket]:
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    try:
        yield connection
    finally:
        connection.close()


def answer_of(connection: socket.socket, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
    """The next answer of a connection; its length is told, or its parts are, or it ends with the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1)  # not a byte of the answer behind it
        assert more, f"the connection ended: {data!r}"
        data += more
    first, *lines = data[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    status = int(first.split(" ")[1])
    if status == 100:
        return answer_of(connection, head=head)
    if head or status in (204, 304):
        return status, headers, b""
    return status, headers, _body(connection, headers)


def _body(connection: socket.socket, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return _exactly(connection, int(headers["content-length"]))
    body = b""
    if headers.get("transfer-encoding") != "chunked":
        while more := connection.recv(65_536):
            body += more
        return body
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += _exactly(connection, 1)
        size = int(line, 16)
        body += _exactly(connection, size)
        assert _exactly(connection, 2) == b"\r\n"
        if size == 0:
            return body


def _exactly(connection: socket.socket, count: int) -> bytes:
    body = b""
    while len(body) < count:
        more = connection.recv(count - len(body))
        assert more, f"the connection ended after {len(body)} of {count} bytes"
        body += more
    return body


def asked(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    with client(port) as connection:
        connection.sendall(request)
        return answer_of(connection)


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes; what it says before that is thrown away."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def cut_off(connection: socket.socket, part: bytes, times: int) -> bool:
    """Whether the other side closes before a part is sent so many times."""
    try:
        for _ in range(times):
            connection.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def counts(port: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(port, b"GET /counts HTTP/1.1\r\nhost: x\r\n\r\n")[2])
    return found


def until(what: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", b"GET /echo HT", b"GET /echo HTTP/1.1\r\nhost: x\r\nx-a: b\r\n", b"\r\n\r\n\r\n"]
)
def test_a_head_that_never_ends_is_given_up(port: int, said: bytes) -> None:
    with client(port) as connection:
        connection.sendall(said)
        assert closed(connection)


def test_a_head_that_drips_is_refused(port: int) -> None:
    with client(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in GET + b"x" * 200:
                connection.sendall(bytes([byte]))
                time.sleep(0.06)
                if byte == ord("x") and _readable(connection):
                    break
        status, headers, _ = answer_of(connection)
    assert (status, headers["connection"]) == (408, "close")


def _readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(60)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /echo HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(80)) + b"\r\n",
        b"GET /echo HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /echo?" + b"q" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_refused(port: int, request_: bytes) -> None:
    status, headers, _ = asked(port, request_)
    assert (status, headers["connection"]) == (431, "close")


@pytest.mark.parametrize("part", [b"x-a: b\r\n" * 512, b"a" * 4096, b"GET /" + b"b" * 4091])
def test_a_header_bomb_costs_no_memory(port: int, part: bytes) -> None:
    before = counts(port)["resident"]
    with client(port) as connection:
        connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\nx-first: ")
        assert cut_off(connection, part, 100_000)  # long before it is through
    assert counts(port)["resident"] - before < 32 << 20


def test_other_clients_do_not_notice_slow_ones(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(client(port)).sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\nx-")
        for _ in range(50):
            assert asked(port, GET)[0] == 200


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_length_that_is_larger_than_the_body(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        assert answer_of(connection)[0] == 408
        assert closed(connection)


def test_a_length_that_is_smaller_than_the_body_makes_the_rest_a_bad_request(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc and more")
        status, _, body = answer_of(connection)
        assert (status, json.loads(body)["length"]) == (200, 3)
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"]) == (400, "close")
        assert closed(connection)


def test_a_length_beyond_the_limit_is_refused_before_the_body(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n")
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert closed(connection)


def test_who_sends_too_much_sees_why(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(40):
                connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert answer_of(connection)[0] == 413


def test_a_body_that_drips_is_given_up(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        until(lambda: _dripped(connection))
        assert answer_of(connection)[0] == 408


def _dripped(connection: socket.socket) -> bool:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"x")
    time.sleep(0.05)
    return _readable(connection)


@pytest.mark.parametrize(
    "body",
    [
        b"".join([b"1\r\nx\r\n"] * 1001) + b"0\r\n\r\n",  # too many
        b"xyz\r\nabc\r\n0\r\n\r\n",  # no size
        b"3\r\nabcd\r\n0\r\n\r\n",  # a size that lies
        b"3\nabc\n0\n\n",  # bare line feeds
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabc\r\n",
    ],
)
def test_bad_chunks_are_refused(port: int, body: bytes) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"]) == (400, "close")
        assert closed(connection)


def test_extensions_of_chunks_have_no_end_but_the_bound(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;a=")
        assert cut_off(connection, b"b" * 4096, 100_000)


def test_trailers_are_not_headers(port: int) -> None:
    request = (
        b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nauthorization: Bearer other\r\nx-more: 7\r\n\r\n"
    )
    with client(port) as connection:
        connection.sendall(request)
        told = json.loads(answer_of(connection)[2])
        assert told["length"] == 3
        assert [name for name, _ in told["headers"]] == ["host", "transfer-encoding"]
        connection.sendall(GET)
        assert answer_of(connection)[0] == 200


def test_a_client_that_expects_100_is_told_to_go_on(port: int) -> None:
    with client(port) as connection:
        head = b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        connection.sendall(head)
        assert _exactly(connection, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert json.loads(answer_of(connection)[2])["length"] == 3
        connection.sendall(head + b"abc")  # does not wait for it: no need to tell it
        assert json.loads(answer_of(connection)[2])["length"] == 3
        connection.sendall(head.replace(b"length: 3", b"length: 3000000"))
        status, headers, _ = answer_of(connection)  # refused instead
        assert (status, headers["connection"]) == (413, "close")


# -- two servers, two readings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"content-length: 3\r\ntransfer-encoding: chunked\r\n", 400),
        (b"transfer-encoding: chunked\r\ncontent-length: 3\r\n", 400),
        (b"content-length: 3\r\ncontent-length: 3\r\n", 400),
        (b"content-length: 3\r\ncontent-length: 4\r\n", 400),
        (b"content-length: 3, 3\r\n", 400),
        (b"content-length: +3\r\n", 400),
        (b"content-length: -1\r\n", 400),
        (b"content-length: 0x3\r\n", 400),
        (b"content-length: 99999999999999999999\r\n", 400),
        (b"content-length:\r\n", 400),
        (b"content-length : 3\r\n", 400),
        (b"transfer-encoding: chunked, chunked\r\n", 400),
        (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 400),
        (b"transfer-encoding: chunked, identity\r\n", 400),
        (b"transfer-encoding: identity\r\n", 501),
        (b"transfer-encoding: gzip, chunked\r\n", 501),
        (b"transfer-encoding: xchunked\r\n", 501),
        (b"transfer-encoding : chunked\r\n", 400),
        (b"transfer-encoding:\x0bchunked\r\n", 400),
        (b"x-folded: a\r\n b\r\ncontent-length: 3\r\n", 400),
        (b" x-space: a\r\n", 400),
        (b"x-nul: a\x00b\r\n", 400),
        (b"x-bare: a\rb\r\n", 400),
        (b"x-bare: a\nb: c\r\n", 400),
        (b"x-bare: a\n", 400),
        (b"x name: a\r\n", 400),
        (b": a\r\n", 400),
        (b"host: y\r\n", 400),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(port: int, head: bytes, status: int) -> None:
    smuggled = b"0\r\n\r\nGET /echo/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    with client(port) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n" + smuggled)
        found, headers, body = answer_of(connection)
        assert (found in (400, 501), headers["connection"]) == (True, "close"), (found, body)
        assert found == status
        assert connection.recv(1) == b""  # nothing behind it was answered


@pytest.mark.parametrize(
    "name", [b"authorization", b"X-API-Key", b"content-type", b"content-encoding", b"inference-header-content-length"]
)
def test_who_asks_and_what_the_body_is_are_said_once(port: int, name: bytes) -> None:
    with client(port) as connection:
        twice = b"%s: a\r\nx-other: b\r\nx-other: c\r\n%s: a\r\n" % (name, name.lower())
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\n" + twice + b"content-length: 2\r\n\r\nhi")
        status, _, body = answer_of(connection)
        assert (status, name.lower() in body) == (400, True)
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\nx-other: b\r\nx-other: c\r\ncontent-length: 2\r\n\r\nhi")
        assert answer_of(connection)[0] == 200


@pytest.mark.parametrize("host", [b"x", b"x:80", b"x:", b"[::1]:80", b"[fe80::1%25eth0]", b"a_b.example", b""])
@pytest.mark.parametrize("target", [b"/echo", b"http://other:1/echo", b"HTTPS://other/echo?a=b"])
def test_hosts_and_targets_in_all_their_forms_are_taken(port: int, host: bytes, target: bytes) -> None:
    with client(port) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nhost: %s\r\n\r\n" % (target, host))
        status, _, body = answer_of(connection)
        assert (status, json.loads(body)["path"]) == (200, "/echo")


@pytest.mark.parametrize("path", [b"//echo", b"/./echo", b"/x/../echo", b"/ech%6f%00", b"*"])
def test_a_path_is_not_tidied_up(port: int, path: bytes) -> None:
    """What a proxy before this server has rules for is the path that is served, and no other."""
    with client(port) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi" % path)
        assert answer_of(connection)[0] == 404


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\nhost: x\n\n",
        b"GET /echo\r\n\r\n",
        b"GET /echo HTTP/2.0\r\nhost: x\r\n\r\n",
        b"GET /echo HTTP/1.1 \r\nhost: x\r\n\r\n",
        *(b"GET /echo HTTP/1.1\r\nhost: %s\r\n\r\n" % host for host in BAD_HOSTS),
        *(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % target for target in BAD_TARGETS),
        b"get /echo HTTP/1.1\r\nhost: x\r\n\r\n",
        b"BREW /echo HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /ec\x00ho HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    ],
)
def test_what_is_no_request_is_refused(port: int, request_: bytes) -> None:
    with client(port) as connection:
        connection.sendall(request_)
        status, headers, _ = answer_of(connection)
        assert (status in (400, 501, 505), headers["connection"]) == (True, "close")
        assert closed(connection)


def test_a_bad_request_behind_good_ones_does_not_break_into_their_answers(port: int) -> None:
    soon = b"GET /soon HTTP/1.1\r\nhost: x\r\n\r\n"
    with client(port) as connection:
        connection.sendall(soon + GET + b"no HTTP\r\n\r\n" + GET)
        assert answer_of(connection)[2] == b'"soon"'
        assert answer_of(connection)[0] == 200
        assert answer_of(connection)[0] == 400
        assert connection.recv(1) == b""


def test_another_protocol_is_not_spoken_and_the_connection_goes_on(port: int) -> None:
    upgrade = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with client(port) as connection:
        for _ in range(3):
            connection.sendall(upgrade * 2 + GET)
            assert [answer_of(connection)[0] for _ in range(3)] == [200, 200, 200]


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=6), close=st.booleans(), chunked=st.booleans())
def test_a_body_behind_the_offer_of_another_protocol_is_read(
    port: int, cuts: list[int], close: bool, chunked: bool
) -> None:
    """Java's client offers HTTP/2 with every request, so Spring's does."""
    body = b'{"customer": "c1", "upgrade: h2c": [1, 2]}'
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    offer = (
        b"POST /echo/1?a=b HTTP/1.1\r\nConnection: %sUpgrade, HTTP2-Settings\r\n%s\r\nHost: x\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n\r\n%s"
    ) % (b"close, " if close else b"", length, sent)
    stream = offer if close else offer * 2 + GET
    places = sorted({cut for cut in cuts if cut < len(stream)})
    with client(port) as connection:
        for start, end in zip([0, *places], [*places, len(stream)], strict=True):
            connection.sendall(stream[start:end])
        for _ in range(1 if close else 2):
            status, _, answer = answer_of(connection)
            found = json.loads(answer)
            assert (status, found["path"], found["body"]) == (200, "/echo/1", hashlib.sha256(body).hexdigest())
            assert "upgrade" not in dict(found["headers"])
        assert close or answer_of(connection)[0] == 200
        if close:
            assert connection.recv(1) == b""


# -- many at once ------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_their_requests(port: int) -> None:
    paths = [b"/soon", b"/echo/1", b"/stream?short", b"/echo/2", b"/nothing", b"/mounted/x", b"/echo/3"]
    with client(port) as connection:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths))
        found = [answer_of(connection) for _ in paths]
    assert [status for status, _, _ in found] == [200, 200, 200, 200, 204, 200, 200]
    assert [json.loads(found[place][2])["path"] for place in (1, 3, 6)] == ["/echo/1", "/echo/2", "/echo/3"]
    assert (found[0][2], found[2][2]) == (b'"soon"', b"one two three")


def test_who_asks_too_much_at_once_gets_what_fits(port: int) -> None:
    soon = b"GET /soon HTTP/1.1\r\nhost: x\r\n\r\n"
    with client(port) as connection:
        connection.sendall(soon + GET * 100)
        statuses = [answer_of(connection)[0] for _ in range(18)]
        assert statuses == [200] * 17 + [429]
        assert closed(connection)


def test_a_client_that_pipelines_and_never_reads_costs_little(port: int) -> None:
    before = counts(port)["resident"]
    with client(port, buffer=4096) as connection:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            for _ in range(2000):
                connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert counts(port)["resident"] - before < 160 << 20


# -- answers -----------------------------------------------------------------------------------------------------------


def test_a_client_that_never_reads_is_cut_off(port: int) -> None:
    with client(port, buffer=4096) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(4)
        connection.settimeout(60)
        assert closed(connection)  # what had been sent by then, and no more


def test_a_stream_that_nobody_reads_stops_and_is_cut_off(port: int) -> None:
    left = counts(port)["left"]
    with client(port, buffer=4096) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.recv(1)
        time.sleep(0.5)
        made = counts(port)["parts"]
        time.sleep(0.3)
        assert counts(port)["parts"] == made  # nothing piles up
        until(lambda: counts(port)["left"] > left)


def test_a_slow_reader_is_served_to_the_end(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        got = 0
        while got < (16 << 20):
            more = connection.recv(1 << 20)
            assert more
            got += len(more)
            time.sleep(0.1)


def test_a_client_that_leaves_ends_what_waits_for_it(port: int) -> None:
    before = counts(port)
    for path in (b"/waits", b"/stream"):
        with client(port) as connection:
            connection.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            begun = before["begun"] + (1 if path == b"/waits" else 2)
            until(lambda: counts(port)["begun"] == begun)  # noqa: B023
    until(lambda: counts(port)["left"] == before["left"] + 2)


def test_a_client_that_leaves_ends_what_waits_behind_other_requests(port: int) -> None:
    before = counts(port)
    with client(port) as connection:
        connection.sendall(b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\n" + GET * 3)
        until(lambda: counts(port)["begun"] == before["begun"] + 1)
    until(lambda: counts(port)["left"] == before["left"] + 1)


def test_a_half_closed_connection_is_answered(port: int) -> None:
    for path, status in ((b"/echo", 200), (b"/soon", 200), (b"/large", 200), (b"/nothing", 204)):
        with client(port) as connection:
            connection.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            connection.shutdown(socket.SHUT_WR)
            assert answer_of(connection)[0] == status
            assert closed(connection)
    with client(port) as connection:
        connection.sendall(b"GET /soon HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        connection.shutdown(socket.SHUT_WR)
        assert [answer_of(connection)[0] for _ in range(2)] == [200, 200]
        assert closed(connection)


def test_a_half_closed_connection_without_a_whole_request_is_closed(port: int) -> None:
    for said in (b"", GET[:-2], b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"):
        with client(port) as connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            assert closed(connection)


def test_what_takes_too_long_is_504(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        assert answer_of(connection)[0] == 504
        assert answer_of(connection)[0] == 200


def test_a_header_that_would_end_its_line_is_never_sent(port: int) -> None:
    status, headers, _ = asked(port, b"GET /splits HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 500
    assert "x-other" not in headers


def test_heads_and_old_clients(port: int) -> None:
    with client(port) as connection:
        connection.sendall(b"HEAD /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, _ = answer_of(connection, head=True)
        assert status == 200
        assert int(headers["content-length"]) > 0
        connection.sendall(GET)
        assert answer_of(connection)[0] == 200
    for path, length in ((b"/echo", True), (b"/stream?short", False), (b"/mounted/x", False)):
        with client(port) as connection:
            connection.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path)
            status, headers, body = answer_of(connection)
            assert (status, headers["connection"]) == (200, "close")
            assert "transfer-encoding" not in headers  # HTTP/1.0 knows no chunks
            assert ("content-length" in headers) is length
            assert closed(connection)
            assert path != b"/stream?short" or body == b"one two three"


def test_an_idle_connection_is_closed(port: int) -> None:
    with client(port) as connection:
        connection.sendall(GET)
        answer_of(connection)
        assert connection.recv(1) == b""


def test_a_signal_in_the_middle_of_it_all() -> None:
    with running("ours") as (port, process), contextlib.ExitStack() as stack:
        asking = stack.enter_context(client(port))
        asking.sendall(b"GET /soon HTTP/1.1\r\nhost: x\r\n\r\n")
        for said in (b"", b"GET /ec", b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"):
            stack.enter_context(client(port)).sendall(said)
        unread = stack.enter_context(client(port, buffer=4096))
        unread.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        status, headers, body = answer_of(asking)
        assert (status, body, headers["connection"]) == (200, b'"soon"', "close")
        assert process.wait(60) == 0


def test_no_connection_is_left_open() -> None:
    """Every client of a storm is let go of, whatever it did."""
    with running("ours") as (port, process):
        files = Path(f"/proc/{process.pid}/fd")
        asked(port, GET)
        before = len(list(files.iterdir()))
        said = [
            b"",
            b"GET /ec",
            b"no HTTP\r\n\r\n",
            GET,
            b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
        ]

        def storm(number: int) -> None:
            with client(port) as connection:
                connection.sendall(said[number % len(said)])
                if number % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset

        threads = [threading.Thread(target=storm, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        until(lambda: len(list(files.iterdir())) <= before)
