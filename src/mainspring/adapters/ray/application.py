"""The app's server as an application of Ray Serve: what a RayService runs.

Each replica is a server of its own, on a port of loopback, to which it passes requests on and hands answers back as
they come, so that on Ray the app speaks every protocol that it speaks elsewhere over HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from yarl import URL

from mainspring.adapters.ray.problems import unserved

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray's own, of what it builds on
    from ray import serve

__all__ = ["Replica", "server"]

_START_S = 300.0
_PAUSE_S = 0.1
_OF_THE_LINE = frozenset(
    {"connection", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that are about one connection: each side has its own."""


class Replica:
    """One server, started with the replica and stopped with it."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="mainspring-replica-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._at = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mainspring", "serve"],
            env=_environment(os.environ, port, self._place.name),
            stdin=subprocess.DEVNULL,
        )
        self._client: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._client

    async def reconfigure(self, settings: Mapping[str, float] | None) -> None:
        """Wait until the server answers: Ray Serve sends a replica nothing before this has returned.

        Args:
            settings: ``start_s``, the seconds that it may take; 300 when left out.

        Raises:
            ServiceError: MS-5150, it does not.
        """
        seconds = float((settings or {}).get("start_s", _START_S))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self._is("ready") and self._process.poll() is None:
                    await asyncio.sleep(_PAUSE_S)
                if self._process.poll() is None:
                    return
        raise unserved(self._process.poll(), seconds)

    async def check_health(self) -> None:
        """Ray Serve asks this every ten seconds, and replaces a replica of which it raises.

        Raises:
            ServiceError: MS-5150, the server does not live.
        """
        if not await self._is("live"):
            raise unserved(self._process.poll(), 0.0)

    async def _is(self, state: str) -> bool:
        try:
            async with self._session().get(f"{self._at}/v2/health/{state}") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def __call__(self, request: Request) -> Response:
        """Pass a request on."""
        query = f"?{request.url.query}" if request.url.query else ""
        at = URL(f"{self._at}{request.url.path}{query}", encoded=True)
        try:
            answer = await self._session().request(
                request.method,
                at,
                headers=_passed(request.headers.items()),
                data=await request.body(),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            return Response(f"the server of this replica does not answer: {error}", status_code=502)
        return StreamingResponse(_pieces(answer), status_code=answer.status, headers=_passed(answer.headers.items()))

    def __del__(self) -> None:
        """Stop it as a platform does: what is under way is answered first."""
        process = getattr(self, "_process", None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.wait()
        self._place.cleanup()


def _environment(own: Mapping[str, str], port: int, state: str) -> dict[str, str]:
    """What makes a server answer this replica alone: several share a machine, its ports, and its ``/tmp``.

    Where an image keeps its state below ``/tmp`` each has a folder of its own, as each container has; a project's own
    state stays where it is.
    """
    placed = {"MAINSPRING_STATE_FOLDER": state} if "MAINSPRING_STATE_FOLDER" in own else {}
    return {
        **own,
        **placed,
        "MAINSPRING_SERVER_HOST": "127.0.0.1",
        "MAINSPRING_SERVER_PORT": str(port),
        "MAINSPRING_MANAGEMENT_ENABLED": "false",
        "MAINSPRING_GRPC_PORT": "0",
    }


def _passed(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _OF_THE_LINE}


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


server = serve.deployment(name="server", user_config={"start_s": _START_S})(Replica).bind()
"""What ``import_path`` names; how many replicas there are is the RayService's to say.

Without a ``user_config`` Ray Serve would call no `reconfigure`, and give a replica up whose server is still starting.
"""
