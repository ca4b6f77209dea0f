"""Parts of one piece of work as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import exceptions

from mainspring.adapters.ray.problems import lost, unreachable
from mainspring.adapters.ray.settings import RaySettings
from mainspring.errors import MainspringError

__all__ = ["RayCompute", "open_compute"]

_cluster: Any = ray  # its functions have no types
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""How a client of HTTP/2 begins (RFC 9113, section 3.4): its preface and settings, which are none."""
_SETTINGS, _FRAME = b"\x04", 9
"""What a server answers first, by the type in the head of a frame, and the bytes of that head."""
T = TypeVar("T")
R = TypeVar("R")


class RayCompute:
    """A Ray cluster that this machine is a node of; it is connected to at first use.

    Args:
        settings: which, and how much of it.
    """

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._connected = False

    def map(self, function: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        """What a function makes of each part, in their order; a part whose machine is lost is carried out again."""
        self._connect()
        settings = self._settings
        options: dict[str, Any] = {"num_cpus": settings.cpus, "max_retries": settings.tries - 1}
        if settings.memory:
            options["memory"] = settings.memory
        task = ray.remote(**options)(function)
        most = max(1, int(self._cores() / settings.cpus * settings.waiting))
        waiting: deque[Any] = deque()
        try:
            for part in parts:
                if len(waiting) >= most:
                    yield self._result(waiting.popleft())
                waiting.append(task.remote(part))
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for reference in waiting:
                with contextlib.suppress(exceptions.RayError):
                    ray.cancel(reference)

    def size(self) -> dict[str, object]:
        """How many nodes there are, and cores."""
        self._connect()
        return {"nodes": sum(node["Alive"] for node in _cluster.nodes()), "cores": self._cores()}

    def close(self) -> None:
        """Leave the cluster."""
        if self._connected:
            self._connected = False
            ray.shutdown()

    def _cores(self) -> float:
        return float(_cluster.cluster_resources().get("CPU", 1.0))

    def _connect(self) -> None:
        if self._connected:
            return
        url = self._settings.url
        address = url.partition("://")[2].rstrip("/")
        try:
            self._knock(address)
            ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError, exceptions.RayError) as error:
            raise unreachable(url, error) from error
        self._connected = True

    def _knock(self, address: str) -> None:
        """See whether somebody is there who speaks HTTP/2, as a cluster does: Ray itself asks for minutes."""
        host, _, port = address.rpartition(":")
        deadline = time.monotonic() + self._settings.connect_timeout
        with socket.create_connection((host.strip("[]"), int(port)), timeout=self._settings.connect_timeout) as knock:
            knock.sendall(_GREETING)
            heard = b""
            while len(heard) < _FRAME:
                knock.settimeout(max(deadline - time.monotonic(), 0.001))
                part = knock.recv(_FRAME - len(heard))
                if not part:
                    break
                heard += part
        if heard[3:4] != _SETTINGS:
            raise ConnectionError("what listens there is no cluster's address (ray status names it)")

    def _result(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, MainspringError):
                raise cause from error
            raise
        except exceptions.RayError as error:
            raise lost(error, self._settings.tries) from error


def open_compute(settings: RaySettings, place: Path) -> RayCompute:
    """A cluster; nothing is connected yet."""
    return RayCompute(settings)
