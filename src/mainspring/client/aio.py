"""The client for asyncio, on aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mainspring.client import wire
from mainspring.client.answers import FeatureAnswer, Inference, Labelled, Prediction, Pushed
from mainspring.client.tensors import Arrays
from mainspring.client.trying import Attempts
from mainspring.client.wire import Asked, Label, Received
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """Asks a Mainspring server from an event loop; arguments, answers and errors are those of `Client`.

    It is used as ``async with AsyncClient(url) as client``, or closed by `close`. A call that is cancelled is given up.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        tries: int = 3,
        connections: int = 32,
        ca: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._tries = tries
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._connections = connections
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None

    async def predict(self, endpoint: str, row: Mapping[str, Any], *, features: bool = False) -> Prediction:
        """As `Client.predict`."""
        return await self._call(wire.predict(endpoint, row, features=features))

    async def predict_many(
        self, endpoint: str, rows: Sequence[Mapping[str, Any]], *, features: bool = False
    ) -> list[Prediction]:
        """As `Client.predict_many`."""
        return await self._call(wire.predict_many(endpoint, rows, features=features))

    async def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        timeout_us: int | None = None,
    ) -> Inference:
        """As `Client.infer`."""
        return await self._call(wire.infer(model, inputs, version, outputs, timeout_us))

    async def features(
        self, service: str, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any] | None = None
    ) -> FeatureAnswer:
        """As `Client.features`."""
        return await self._call(wire.features(service, entities, request or {}))

    async def push(self, source: str, rows: Sequence[Mapping[str, Any]], *, key: str | None = None) -> Pushed:
        """As `Client.push`."""
        return await self._call(wire.push(source, rows, key))

    async def label(self, labels: Sequence[Label]) -> Labelled:
        """As `Client.label`."""
        return await self._call(wire.label(labels))

    async def models(self) -> list[str]:
        """As `Client.models`."""
        return await self._call(wire.models())

    async def _call(self, asked: Asked[T]) -> T:
        attempts = Attempts(self._timeout, self._tries)
        while True:
            received, why = await self._send(asked, attempts.left())
            pause = attempts.pause(received)
            if pause is None:
                return attempts.answer(asked, self.url, received, why)
            await asyncio.sleep(pause)

    async def _send(self, asked: Asked[T], seconds: float) -> tuple[Received | None, str]:
        try:
            async with self._open().request(
                asked.method,
                self.url + asked.path,
                data=asked.body or None,
                headers={**self._headers, **asked.headers},
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Received(answer.status, headers, await answer.read()), ""
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, str(error) or type(error).__name__

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._ca) if self._ca is not None else True
            connector = aiohttp.TCPConnector(limit=self._connections, ssl=context)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
