"""HTTP as registries are spoken to: kept connections, redirects, proxies and certificates, and nothing else.

It is the standard library's client: what a library with all of HTTP takes to import is longer than a whole build of a
change of the code, and none of the rest is used.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import http.client
import os
import re
import select
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, BinaryIO

from mainspring.errors import ConfigError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import ssl
    import urllib.request as requesting

    import certifi
else:  # a registry on this machine, without a proxy, needs none of them
    ssl, certifi, requesting = lazy("ssl"), lazy("certifi"), lazy("urllib.request")

__all__ = ["BROKEN", "Answer", "Body", "Wire", "origin_of"]

Body = Callable[[], "BinaryIO | bytes"]
"""Opens what is sent, once a try."""
Origin = tuple[str, str, int]

BROKEN = (OSError, http.client.HTTPException)
"""What a connection raises that cannot be made, or does not last."""
_HOPS = 10
_MOVED = frozenset({301, 302, 303, 307, 308})
_BLOCK = 1 << 20
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name certificates to trust, as other clients of registries read them."""


def origin_of(url: str) -> Origin:
    """Whom a URL asks: scheme, host and port."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


class Answer:
    """What came back, its body still on the way.

    Attributes:
        method: of the request that was answered.
        url: whom that asked, after all redirects.
        status: the answer's.
        reason: the words beside the status.
        headers: by their names, in any case.
    """

    def __init__(self, method: str, url: str, response: HTTPResponse, done: Callable[[bool], None]) -> None:
        self.method, self.url = method, url
        self.status, self.reason, self.headers = response.status, response.reason or "", response.headers
        self._response, self._done = response, done
        self._body: bytes | None = None

    @property
    def body(self) -> bytes:
        """All of it, read once.

        Raises:
            OSError, HTTPException: the connection breaks off.
        """
        if self._body is None:
            self._body = b"".join(self.pieces(_BLOCK))
        return self._body

    def pieces(self, size: int) -> Iterator[bytes]:
        """The body, so many bytes at a time.

        Raises:
            OSError, HTTPException: the connection breaks off.
        """
        while piece := self._response.read(size):
            yield piece
        if self._response.length:  # it is what is still to come
            self.close()
            raise ConnectionError("the connection breaks off")
        self._end(self._response.will_close)

    def close(self) -> None:
        """Give up what has not come: its connection is of no more use."""
        self._end(True)

    def _end(self, broken: bool) -> None:
        done, self._done = self._done, lambda broken: None
        done(broken)


class Wire:
    """Connections to whoever is asked, kept for the next question; usable from several threads at once.

    Args:
        timeouts: seconds to connect, and between two bytes.
    """

    def __init__(self, timeouts: tuple[float, float]) -> None:
        self._timeouts = timeouts
        self._idle: dict[Origin, list[HTTPConnection]] = {}
        self._lock = threading.Lock()

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Answer:
        """Ask, and follow where the answer leads; who we are is told to nobody but the one that was asked first.

        Raises:
            OSError, HTTPException: no connection, or none that lasts.
            ConfigError: MS-8301, a proxy is of a kind that is not spoken to; MS-8302, no certificates to trust.
        """
        for _ in range(_HOPS):
            answer = self._once(method, url, headers, body)
            where = answer.headers.get("Location")
            if answer.status not in _MOVED or where is None:
                return answer
            _ = answer.body  # so that the connection can be kept
            to = urllib.parse.urljoin(url, where)
            if origin_of(to) != origin_of(url):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = "HEAD" if method == "HEAD" else "GET", None
                headers = {name: value for name, value in headers.items() if not name.startswith("Content-")}
            url = to
        raise ConnectionError(f"it leads on {_HOPS} times")

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept = [one for several in self._idle.values() for one in several]
            self._idle.clear()
        for one in kept:
            one.close()

    def __del__(self) -> None:
        """Nothing is left open by who forgets to close."""
        self.close()

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        origin = origin_of(url)
        target, own = _target(url), {"User-Agent": "mainspring"}
        if origin[0] == "http" and (proxy := _proxy(origin)):
            target, own = url, own | _proxy_login(proxy)
        connection = self._taken(origin) or self._connected(origin)
        try:
            _sent(connection, method, target, own | dict(headers), body)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise

        def done(broken: bool) -> None:
            if broken:
                connection.close()
                return
            with self._lock:
                self._idle.setdefault(origin, []).append(connection)

        return Answer(method, url, response, done)

    def _taken(self, origin: Origin) -> HTTPConnection | None:
        """A kept connection that the other side has not closed meanwhile."""
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                connection = kept.pop() if kept else None
            if connection is None or not _is_stale(connection):
                return connection
            connection.close()

    def _connected(self, origin: Origin) -> HTTPConnection:
        connect, between = self._timeouts
        connection = self._opened(origin, connect)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        connection.sock.settimeout(between)
        return connection

    def _opened(self, origin: Origin, timeout: float) -> HTTPConnection:
        scheme, host, port = origin
        proxy = _proxy(origin)
        at = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        if scheme == "http":
            return HTTPConnection(*at, timeout=timeout, blocksize=_BLOCK)
        connection = http.client.HTTPSConnection(*at, timeout=timeout, blocksize=_BLOCK, context=self._trust)
        if proxy:
            connection.set_tunnel(host, port, _proxy_login(proxy))
        return connection

    @functools.cached_property
    def _trust(self) -> ssl.SSLContext:
        return _context()


def _sent(connection: HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> None:
    opened = None if body is None else body()
    try:
        connection.request(method, target, opened, headers)
    except (BrokenPipeError, ConnectionResetError):
        if opened is None:
            raise
        # Who refuses a body may do so before it has come: the answer, when there is one, says why.
    finally:
        if opened is not None and not isinstance(opened, bytes):
            opened.close()


def _proxy(origin: Origin) -> urllib.parse.SplitResult | None:
    """The proxy that the environment names for a host, if it names one; none is asked for this machine itself."""
    scheme, host, port = origin
    if _LOOPBACK.fullmatch(host) or not any(name.lower() in (f"{scheme}_proxy", "all_proxy") for name in os.environ):
        return None
    named = requesting.getproxies_environment()
    found = named.get(scheme) or named.get("all")
    if not found or requesting.proxy_bypass(f"{host}:{port}"):
        return None
    proxy = urllib.parse.urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http":
        raise ConfigError(
            f"a proxy by {proxy.scheme} is not spoken to",
            code="MS-8301",
            why="registries are reached through proxies by http, which pass https on unread",
            origin=f"{scheme}_proxy of the environment",
            fix=f"name one that begins with http://, or add {host} to no_proxy",
        )
    return proxy


def _proxy_login(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {binascii.b2a_base64(pair.encode(), newline=False).decode()}"}


def _context() -> ssl.SSLContext:
    """What certificates are verified by: the bundle that the environment names, else that of certifi."""
    variable = next((name for name in _BUNDLES if os.environ.get(name)), "")
    bundle = os.environ.get(variable)
    if bundle is None:
        with contextlib.suppress(ModuleNotFoundError):
            bundle = certifi.where()
    folder = bundle if bundle is not None and os.path.isdir(bundle) else None
    try:
        return ssl.create_default_context(cafile=None if folder else bundle, capath=folder)
    except OSError as error:
        raise ConfigError(
            "the certificates to trust cannot be read",
            code="MS-8302",
            why=f"{bundle}: {error.strerror or error}",
            origin=variable or "certifi",
            fix=f"let {variable or 'SSL_CERT_FILE'} name a file of certificates in PEM",
        ) from error


def _target(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_stale(connection: HTTPConnection) -> bool:
    """Whether an idle connection has something to read: it can only be that it was closed."""
    try:
        watched = select.poll()
        watched.register(connection.sock, select.POLLIN)
        return bool(watched.poll(0))
    except (OSError, ValueError, TypeError):
        return True
