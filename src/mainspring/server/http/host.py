"""Listeners on uvicorn and uvloop: bound before anything is said, drained on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import uvicorn

from mainspring.errors import ConfigError
from mainspring.server.http.asgi import Listener
from mainspring.server.http.bounds import Bounds
from mainspring.server.http.connections import Connection, look_after

__all__ = ["Bound", "bind", "refused", "run_listeners"]

_HOW = {"server": "--port, or ", "management": "--console-port of mainspring dev, or "}
"""How the port of a listener is chosen on the command line."""
_IDLE_S = 1.0
"""How long a connection may send nothing before it is closed, when the server stops."""
_LOOK_S = 0.5
"""How often connections are looked at for what takes too long."""
_YOUNG = 10_000
"""New objects that are still there when the collector looks for cycles: most of a request's are gone by themselves."""


class Bound(msgspec.Struct, frozen=True):
    """A socket that listens, and what answers on it."""

    name: str
    listener: Listener
    socket: socket.socket
    host: str
    port: int
    bounds: Bounds
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"


def bind(
    name: str,
    listener: Listener,
    host: str,
    port: int,
    origin: str,
    bounds: Bounds | None = None,
    tls: ssl.SSLContext | None = None,
    *,
    shared: bool = False,
) -> Bound:
    """Bind an address; port 0 takes a free one.

    Args:
        name: of the listener.
        listener: what answers.
        host: the address.
        port: of it.
        origin: where the port was set.
        bounds: what one client may take; without it what fits the listener's limits.
        tls: how the listener proves who it is; without it it speaks plain text.
        shared: whether other workers of the server listen at the same port.

    Raises:
        ConfigError: MS-3016, the port is taken; MS-3017, the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise refused(name, host, port, origin, error) from error
    host, port = listening.getsockname()[:2]
    return Bound(name, listener, listening, host, port, bounds or Bounds(listener.body_as_sent), tls)


def refused(name: str, host: str, port: int, origin: str, error: OSError) -> ConfigError:
    """The error of an address at which nothing can listen."""
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} is taken",
            code="MS-3016",
            why=f"another process listens at {host}:{port}",
            origin=origin,
            fix=f"stop it, or choose another: {_HOW.get(name, '')}{name}.port in mainspring.toml",
        )
    return ConfigError(
        f"cannot listen at {host}:{port}",
        code="MS-3017",
        why=str(error.strerror),
        origin=origin,
        fix=f"use an address of this machine and a port that you may open: {name}.host, {name}.port",
    )


async def run_listeners(
    listeners: Sequence[Bound],
    drain_seconds: float,
    started: Callable[[], Awaitable[None]],
    stopping: Callable[[], Awaitable[None]],
    asked: Callable[[int], None] = lambda number: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    On the signal the listening sockets are closed, requests under way and those that connections still send are
    answered with ``Connection: close`` (at most `drain_seconds`), connections that send nothing are closed, then
    `stopping` runs. A second signal does not wait for them.

    Args:
        listeners: bound sockets with what answers.
        drain_seconds: how long requests under way may take.
        started: called when all listeners answer.
        stopping: called when no request is under way.
        asked: told of the number of each signal, before anything is closed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    servers = [_server(bound, drain_seconds) for bound in listeners]

    def on_signal(number: int) -> None:
        asked(number)
        for bound in listeners:
            bound.listener.draining = True
        if stop.is_set():
            for server in servers:
                server.force_exit = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    looking = loop.create_task(_look(servers))
    ages = gc.get_threshold()
    gc.set_threshold(_YOUNG, *ages[1:])
    gc.freeze()  # what was loaded by now stays: no later collection looks at it again
    try:
        running = [
            asyncio.create_task(server._serve(sockets=[bound.socket]))  # serve() would take the signals for itself
            for server, bound in zip(servers, listeners, strict=True)
        ]
        while not all(server.started for server in servers):
            if any(task.done() for task in running):
                break
            await asyncio.sleep(0.005)
        await started()
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await _close_in_order(servers, min(_IDLE_S, drain_seconds))
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
        await stopping()
    finally:
        gc.unfreeze()
        gc.set_threshold(*ages)
        looking.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _look(servers: Sequence[uvicorn.Server]) -> None:
    """End what clients let take too long."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(_LOOK_S)
        for server in servers:
            look_after(server.server_state.connections, now())


async def _close_in_order(servers: Sequence[uvicorn.Server], seconds: float) -> None:
    """Take no new connection, and let those that are open end with an answer that says so.

    A connection that is closed while its client sends is reset under the client's hands; after an answer with
    ``Connection: close`` it sends nothing more.
    """
    for server in servers:
        for listening in server.servers:
            listening.close()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while any(server.server_state.connections for server in servers) and loop.time() < end:
        if any(server.force_exit for server in servers):
            return
        await asyncio.sleep(0.01)


def _server(bound: Bound, drain_seconds: float) -> uvicorn.Server:
    config = uvicorn.Config(
        bound.listener,
        loop="none",
        http=cast(Any, partial(Connection, bounds=bound.bounds)),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(int(drain_seconds), 1),
        ssl_context_factory=None if (tls := bound.tls) is None else lambda config, default: tls,
    )
    return uvicorn.Server(config)
