"""A load generator for HTTP/1.1: prepared bytes over kept connections, each asked again as soon as it has answered.

It does little on purpose, so that it is not what is measured: an answer is read as far as its status and its length.
Source of the method: a closed loop, one request under way a connection.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
import uvloop

from mainspring.errors import ServiceError

__all__ = ["Load", "Target", "load"]

_LIMIT = 1 << 26
_WAIT_S = 30.0


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what they are.

    Attributes:
        host: the address.
        port: the port.
        requests: whole requests, which are sent in turn.
    """

    host: str
    port: int
    requests: Sequence[bytes]


class Load(msgspec.Struct, frozen=True):
    """What came of a load.

    Attributes:
        concurrency: connections, each with one request under way.
        seconds: how long it took.
        statuses: how many answers had each status; 0 is a connection that broke.
        latencies: of every answer, in seconds, sorted.
        own_cpu: processor seconds of the generator itself.
    """

    concurrency: int
    seconds: float
    statuses: dict[int, int]
    latencies: Sequence[float]
    own_cpu: float

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self.latencies)

    @property
    def failed(self) -> int:
        """How many were not answered with success."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """The latency within which a share of the answers came, in seconds; 0 when there were none."""
        if not self.latencies:
            return 0.0
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def load(target: Target, concurrency: int, *, seconds: float | None = None, count: int | None = None) -> Load:
    """Ask a server as fast as it answers, for some time or some number of requests.

    Raises:
        ServiceError: MS-4383, it does not answer at all.
    """
    return uvloop.run(_load(target, concurrency, seconds, count))


async def _load(target: Target, concurrency: int, seconds: float | None, count: int | None) -> Load:
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    left = iter(range(count if count is not None else 1 << 62))
    requests, clock = target.requests, time.perf_counter
    before, started = _cpu(), clock()
    end = started + seconds if seconds is not None else float("inf")

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(target.host, target.port, limit=_LIMIT)
        try:
            for number in left:
                asked = clock()
                if asked >= end:
                    return
                writer.write(requests[number % len(requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                latencies.append(clock() - asked)
                statuses[int(head[9:12])] += 1
                if b"connection: close" in head.lower():
                    writer.close()
                    reader, writer = await asyncio.open_connection(target.host, target.port, limit=_LIMIT)
        finally:
            writer.close()

    async def kept() -> None:
        try:
            async with asyncio.timeout(None if seconds is None else seconds + _WAIT_S):
                await connection()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            statuses[0] += 1

    await asyncio.gather(*(kept() for _ in range(concurrency)))
    took = clock() - started
    if not latencies:
        raise ServiceError(
            f"nothing answers at {target.host}:{target.port}",
            code="MS-4383",
            why=f"{statuses[0]} connections were refused, or broke",
            fix="look whether the server runs: curl URL/v2/health/ready",
        )
    return Load(concurrency, took, dict(statuses), sorted(latencies), _cpu() - before)


def _length(head: bytes) -> int:
    found = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return int(found or 0)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
