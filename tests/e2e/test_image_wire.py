"""What registries are spoken to by: kept connections, certificates, proxies, redirects, bodies that break off."""

from __future__ import annotations

import contextlib
import http.server
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certificates import signed_certificate
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.wire import BROKEN, Wire
from mainspring.errors import MainspringError

HOST = "registry.test"
"""Resolved by no name server: only a proxy knows the way."""


class Side(http.server.BaseHTTPRequestHandler):
    """Says what a test wants said."""

    protocol_version = "HTTP/1.1"
    says: Callable[[Side], None]
    accepted: list[object]

    def setup(self) -> None:
        super().setup()
        self.accepted.append(self.client_address)

    def say(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do(self) -> None:
        type(self).says(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = do  # noqa: N815 - http.server's names

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def served(says: Callable[[Side], None], context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[object]]]:
    """A server on loopback; its address, and the connections that it has accepted."""
    accepted: list[object] = []
    handler = type("Handler", (Side,), {"says": says, "accepted": accepted})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", accepted
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    made = Wire((5.0, 5.0))
    yield made
    made.close()


def asked(wire: Wire, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    answer = wire.ask(method, url, headers, None if body is None else lambda: body)
    return answer.status, answer.body


def test_one_connection_serves_one_question_after_the_other(wire: Wire) -> None:
    with served(lambda side: side.say(200, side.path.encode())) as (host, accepted):
        for number in range(5):
            assert asked(wire, f"http://{host}/{number}?a=b") == (200, f"/{number}?a=b".encode())
        assert asked(wire, f"http://{host}/x", "HEAD") == (200, b"")
        assert len(accepted) == 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(wire: Wire) -> None:
    def once(side: Side) -> None:
        side.say(200, b"good")
        side.close_connection = True  # without a word of it

    with served(once) as (host, accepted):
        for _ in range(3):
            assert asked(wire, f"http://{host}/") == (200, b"good")
            for kept in wire._idle.values():
                select.select([kept[0].sock], [], [], 10)  # until it is closed there
        assert len(accepted) == 3


def test_who_answers_before_the_body_has_come_is_heard(wire: Wire) -> None:
    """A refusal of 64 MiB that were never read; who wrote on would only see a broken pipe."""

    def refuse(side: Side) -> None:
        side.say(413, b"too much")
        side.close_connection = True
        side.connection.shutdown(socket.SHUT_WR)
        while side.rfile.read1(1 << 20):  # what is under way, so that it is no reset
            pass

    with served(refuse) as (host, _):
        assert asked(wire, f"http://{host}/", "PUT", bytes(64 << 20)) == (413, b"too much")


def test_a_body_that_breaks_off_is_no_body(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(side: Side) -> None:
        side.say(200, b"half", length=8)
        side.close_connection = True

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with served(half) as (host, accepted):
        answer = wire.ask("GET", f"http://{host}/", {})
        with pytest.raises(BROKEN):
            _ = answer.body
        registry = Registry(reference_of(f"{host}/team/shop"), sleep=lambda seconds: None)
        with open(tmp_path / "blob", "wb") as file, pytest.raises(MainspringError) as caught:
            registry.fetch(f"sha256:{'0' * 64}", file)
        assert caught.value.code == "MS-4080"
        assert len(accepted) == 6, "the first, and five tries"


def test_redirects_are_followed_as_they_are_meant(wire: Wire) -> None:
    seen: list[tuple[str, str, bytes]] = []

    def lead(side: Side) -> None:
        body = side.rfile.read(int(side.headers.get("Content-Length") or 0))
        seen.append((side.command, side.path, body))
        if side.path == "/end":
            side.say(200, b"here")
        else:
            side.say(int(side.path.strip("/")), Location="/end" if side.path != "/302" else "/302")

    with served(lead) as (host, _):
        assert asked(wire, f"http://{host}/307", "PUT", b"body") == (200, b"here")
        assert seen == [("PUT", "/307", b"body"), ("PUT", "/end", b"body")], "the body goes along"
        seen.clear()
        assert asked(wire, f"http://{host}/303", "POST", b"body") == (200, b"here")
        assert seen == [("POST", "/303", b"body"), ("GET", "/end", b"")]
        with pytest.raises(ConnectionError, match="leads on"):
            asked(wire, f"http://{host}/302")


# -- certificates and proxies -----------------------------------------------------------------------------------------


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, Path, list[object]]]:
    """A server with a certificate of `HOST`: its address, who vouches for it, its connections."""
    certificate, key = signed_certificate(HOST, days=1)
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with served(lambda side: side.say(200, b"in secret"), context) as (host, accepted):
        yield host, tmp_path / "tls.crt", accepted


@contextlib.contextmanager
def proxied(to: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A proxy that leads every tunnel to one address; what it was asked for, and with which login."""
    seen: list[tuple[str, str]] = []

    def tunnel(side: Side) -> None:
        seen.append((f"{side.command} {side.path}", side.headers.get("Proxy-Authorization") or ""))
        host, _, port = to.rpartition(":")
        side.close_connection = True
        with socket.create_connection((host, int(port)), 10) as there:
            side.send_response(200)
            side.end_headers()
            ends = {side.connection: there, there: side.connection}
            while True:
                for one in select.select(list(ends), [], [], 10)[0]:
                    if not (data := one.recv(1 << 16)):
                        return
                    ends[one].sendall(data)

    with served(tunnel) as (host, _):
        yield host, seen


def test_https_goes_through_a_proxy_unread(
    wire: Wire, secured: tuple[str, Path, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, vouches, _ = secured
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(vouches))
    with proxied(host) as (proxy, seen):
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:s%40cret@{proxy}")
        assert asked(wire, f"https://{HOST}/v2/") == (200, b"in secret")
        assert asked(wire, f"https://{HOST}/v2/") == (200, b"in secret")
        assert seen == [(f"CONNECT {HOST}:443", "Basic YWRhOnNAY3JldA==")], "one tunnel, and its login"
        wire.close()
        monkeypatch.setenv("NO_PROXY", HOST)
        with pytest.raises(socket.gaierror):
            asked(wire, f"https://{HOST}/v2/")
        assert len(seen) == 1


def test_this_machine_is_asked_without_a_proxy(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with served(lambda side: side.say(200, b"near")) as (host, _):
        assert asked(wire, f"http://{host}/") == (200, b"near")


def test_a_proxy_that_cannot_be_spoken_to_is_named(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(MainspringError) as caught:
        asked(wire, f"https://{HOST}/v2/")
    assert caught.value.code == "MS-8301"
    assert "socks5" in caught.value.what


def test_certificates_are_those_that_the_environment_names(
    secured: tuple[str, Path, list[object]], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, vouches, _ = secured
    with proxied(host) as (proxy, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        with pytest.raises(ssl.SSLCertVerificationError):
            asked(Wire((5.0, 5.0)), f"https://{HOST}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(vouches.with_name("none.pem")))
        with pytest.raises(MainspringError) as caught:
            asked(Wire((5.0, 5.0)), f"https://{HOST}/")
        assert caught.value.code == "MS-8302"
        monkeypatch.setenv("SSL_CERT_FILE", str(vouches))
        assert asked(wire, f"https://{HOST}/") == (200, b"in secret")
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            asked(Wire((5.0, 5.0)), "https://other.test/")
