"""HTTPS to one upstream, through aiohttp; the same interface as our own client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.lazy import lazy
from mainspring.ports.llm import Error
from mainspring.upstream.client import Client, Place
from mainspring.upstream.faults import BrokenError, crashed, late

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

__all__ = ["SecureClient", "SecureReply", "open_client"]

T = TypeVar("T")


class SecureReply:
    """An answer over TLS.

    Attributes:
        status: 0 until the headers are there.
        headers: by lower-case name.
    """

    def __init__(self, sending: Coroutine[Any, Any, aiohttp.ClientResponse]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._sending: Coroutine[Any, Any, aiohttp.ClientResponse] | None = sending
        self._response: aiohttp.ClientResponse | None = None
        self._task: asyncio.Task[Any] | None = None
        self._closed = False
        self._rest: asyncio.Task[None] | None = None

    async def head(self, seconds: float) -> None:
        """Wait for the status and the headers."""
        if self._sending is None:
            raise _closed()
        sending, self._sending = self._sending, None
        self._response = await self._within(sending, seconds, "the upstream's answer")
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.headers.items()}

    async def piece(self, seconds: float, what: str = "") -> bytes:
        """The next bytes of the body; empty at its end."""
        if self._closed or self._response is None:
            raise _closed()
        return await self._within(self._response.content.readany(), seconds, what or "the upstream's next bytes")

    def release(self) -> None:
        """Read what is left for a second, and close the connection if it is not whole then."""
        response = self._response
        if response is not None and not self._closed and not response.content.at_eof():
            self._rest = asyncio.ensure_future(_read_out(response))

    async def _within(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        task: asyncio.Task[T] = asyncio.ensure_future(work)
        self._task = task
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                self.close()
                raise late(what, seconds)
            if self._closed:
                raise _closed()
            return task.result()
        except asyncio.CancelledError:
            task.cancel()
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _turned(error) from error
        finally:
            self._task = None

    def close(self) -> None:
        """Close the connection unless the answer is whole; who waits is told."""
        self._closed = True
        if self._sending is not None:
            self._sending.close()
            self._sending = None
        if self._task is not None:
            self._task.cancel()
        if self._response is not None and self._rest is None:
            self._response.close()  # a response that is whole has given its connection back already


class SecureClient:
    """Requests to one place over TLS; redirects are never followed, and proxies of the environment are not used.

    Args:
        place: where it is, with the headers of every request.
        ca: file of the certificates to trust instead of the system's, or empty.
    """

    def __init__(self, place: Place, ca: str = "") -> None:
        self.place = place
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> SecureReply:
        """A request, sent when its head is waited for; `headers` as `Client.request` has them."""
        return SecureReply(self._send(method, path, body, headers))

    async def _send(
        self, method: str, path: str, body: bytes | None, further: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        place, headers = self.place, dict[str, str]()
        if further is not None:
            headers.update(further)
        elif body is not None:
            headers["content-type"] = "application/json"
        headers.update({name.lower(): value for name, value in place.headers.items()})
        url = f"https://{place.authority}{place.target(path)}"
        session = self._open()

        async def send() -> aiohttp.ClientResponse:
            return await session.request(method, url, data=body, headers=headers, allow_redirects=False)

        try:
            return await send()
        except aiohttp.ServerDisconnectedError:  # a connection that was kept and had been closed meanwhile
            return await send()

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            context = ssl.create_default_context(cafile=self._ca or None)
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.place.connect),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "accept-encoding", "content-type"),
            )
        return self._session

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def open_client(place: Place, ca: str = "") -> Client | SecureClient:
    """The client for a place."""
    return SecureClient(place, ca) if place.tls else Client(place)


async def _read_out(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(1.0):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        response.close()


def _turned(error: Exception) -> BrokenError:
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return BrokenError(Error("upstream", "the upstream's certificate is not trusted"))
    if isinstance(error, TimeoutError):
        return BrokenError(Error("timeout", "connecting to the upstream took too long", retryable=True))
    if isinstance(error, aiohttp.ClientConnectorError):
        return crashed("the upstream cannot be reached")
    return crashed()


def _closed() -> BrokenError:
    return BrokenError(Error("upstream", "the request was closed"))
