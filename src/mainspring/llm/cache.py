"""The answers to equal requests, given again: only where equal means equal in everything that may change an answer."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from mainspring.ports.llm import End, Event, Generation, Reasoning, Text, ToolDelta

__all__ = ["ExactCache", "cache_key", "cacheable", "kept_size"]

_ENCODER = msgspec.msgpack.Encoder(order="sorted")
_EVENT_BYTES = 120
"""What an event takes besides its text, roughly."""


def cache_key(request: Generation, route: str, version: str, prompt: str, tenant: str) -> bytes:
    """The key of a request: 32 bytes over everything that may change its answer, and whose it is.

    Args:
        request: what is asked; its id and its user are left out.
        route: the public name.
        version: of the models that may answer.
        prompt: the declared prompt's id.
        tenant: answers are never shared between tenants.
    """
    sampling, bias = request.sampling, tuple[tuple[int, float], ...]()
    if sampling.logit_bias:
        bias = tuple(sorted(sampling.logit_bias.items()))
        sampling = msgspec.structs.replace(sampling, logit_bias={})
    parts = (
        route,
        version,
        prompt,
        tenant,
        request.messages,
        request.prompt,
        request.echo,
        request.suffix,
        sampling,
        bias,
        request.tools,
        request.choice,
        request.schema,
        request.extra,
    )
    return hashlib.blake2b(_ENCODER.encode(parts), digest_size=32).digest()


def cacheable(request: Generation, *, sampled: bool) -> bool:
    """Whether a request's answer may be given again: greedy, or drawn where the route consents."""
    return sampled or request.sampling.temperature == 0


def kept_size(events: Sequence[Event]) -> int | None:
    """Bytes that an answer takes, roughly; None where it may not be given again: it calls tools, or was cut short."""
    end = events[-1] if events else None
    if not isinstance(end, End) or any(reason not in ("stop", "length") for reason in end.reasons):
        return None
    if any(isinstance(event, ToolDelta) for event in events):
        return None
    return sum(_EVENT_BYTES + (len(e.text) if isinstance(e, (Text, Reasoning)) else 0) for e in events)


class ExactCache:
    """Whole answers by key, the least recently used forgotten first.

    Args:
        now: a clock in seconds that only goes forward.
        most_bytes: room for all answers together.
    """

    __slots__ = ("_bytes", "_entries", "_most", "_now", "hits", "misses")

    def __init__(self, now: Callable[[], float], most_bytes: int = 64 << 20) -> None:
        self._now = now
        self._most = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[float, int, tuple[Event, ...]]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: bytes) -> tuple[Event, ...] | None:
        """The events after `Start` of an equal request's answer."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._now():
            if entry is not None:
                self._drop(key)
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[2]

    def put(self, key: bytes, events: Sequence[Event], seconds: float) -> bool:
        """Keep a whole answer; False where it may not be: it calls tools, was cut short by anyone, or is too large."""
        size = kept_size(events)
        if size is None or size > self._most // 8:
            return False
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (self._now() + seconds, size, tuple(events))
        self._bytes += size
        while self._bytes > self._most:
            self._drop(next(iter(self._entries)))
        return True

    def clear(self) -> None:
        """Forget all answers."""
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._entries.pop(key)[1]
