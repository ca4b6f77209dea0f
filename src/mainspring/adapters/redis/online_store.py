"""The online port on Redis: a batch is one transaction of scripts, which compare rows where they are."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import redis

from mainspring.adapters.redis.connecting import client_of, place_of
from mainspring.adapters.redis.problems import closed, turned
from mainspring.adapters.redis.settings import RedisSettings

__all__ = ["RedisStore", "open_store"]

T = TypeVar("T")
_ORDER = 24
_PIECE = 500
"""Keys of one script and of one look; a script holds up the server."""
_SPECIAL = re.compile(rb"[*?\[\]\\^-]")
# Lua's own comparison of strings follows the server's locale, so bytes are compared one by one.
_PUT_NEWER = f"""
local written = 0
for i, key in ipairs(KEYS) do
    local new, old = ARGV[i], redis.call('GETRANGE', key, 0, {_ORDER - 1})
    local newer = old == ''
    if not newer then
        for at = 1, {_ORDER} do
            local left, right = string.byte(new, at) or -1, string.byte(old, at) or -1
            if left ~= right then
                newer = left > right
                break
            end
        end
    end
    if newer then
        redis.call('SET', key, new)
        written = written + 1
    end
end
return written
"""
_SWAP = """
local old = redis.call('GET', KEYS[1])
if (ARGV[1] == '0' and old == false) or (ARGV[1] == '1' and old == ARGV[2]) then
    redis.call('SET', KEYS[1], ARGV[3])
    return 1
end
return 0
"""


class RedisStore:
    """Rows as strings under a prefix; threads and forked children may share a store.

    What is acknowledged is as durable as the server is configured to be; the store can be written anew from the log.

    Args:
        settings: where the server is.

    Raises:
        ServiceError: MS-4210 to MS-4213; nothing is asked before the first call.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._place = place_of(settings)
        self._prefix = settings.prefix.encode()
        self._closed = False
        self._client = client_of(settings)
        self._put_newer = self._client.register_script(_PUT_NEWER)
        self._swap = self._client.register_script(_SWAP)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[redis.Redis]:
        if self._closed:
            raise closed(self._place)
        try:
            yield self._client
        except redis.RedisError as error:
            raise turned(error, self._place) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment: one command."""
        with self._asked() as client:
            found = client.mget([self._prefix + key for key in keys]) if keys else []
            return cast("list[bytes | None]", found)

    def answers(self) -> bool:
        """Whether the server answers; raises as a read does when it cannot."""
        return self.get_many([b""]) == [None]

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless a newer one is there; several scripts of one batch are one transaction."""
        batch = [(self._prefix + key, row) for key, row in rows]
        if not batch:
            return 0
        with self._asked() as client, client.pipeline(transaction=True) as pipeline:
            for part in _parts(batch):
                keys, values = [key for key, _ in part], [row for _, row in part]
                self._put_newer(keys=keys, args=values, client=pipeline)
            return sum(pipeline.execute())

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""
        with self._asked():
            there: list[bytes | int] = [0, b""] if old is None else [1, old]
            return bool(self._swap(keys=[self._prefix + key], args=[*there, new]))

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        with self._asked() as client:
            for part in _parts([self._prefix + key for key in keys]):
                client.unlink(*part)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so. Redis knows no order, so their keys are gathered and sorted first."""
        cut = len(self._prefix)
        for part in _parts(self._keys(prefix)):
            with self._asked() as client:
                found = cast("list[bytes | None]", client.mget(part))
            yield from ((key[cut:], row) for key, row in zip(part, found, strict=True) if row is not None)

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""
        dropped = 0
        with self._asked() as client:
            for part in _parts(self._keys(prefix)):
                dropped += client.unlink(*part)
        return dropped

    def _keys(self, prefix: bytes) -> list[bytes]:
        pattern = _SPECIAL.sub(rb"\\\g<0>", self._prefix + prefix) + b"*"
        with self._asked() as client:
            return sorted(set(client.scan_iter(match=pattern, count=_PIECE)))

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._client.connection_pool.disconnect()


def _parts(items: Sequence[T]) -> Iterator[list[T]]:
    left = iter(items)
    while part := list(itertools.islice(left, _PIECE)):
        yield part


def open_store(settings: RedisSettings, place: Path) -> RedisStore:
    """The store at the server that ``online.url`` names."""
    return RedisStore(settings)
