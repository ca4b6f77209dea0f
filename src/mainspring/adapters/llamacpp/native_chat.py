"""llama.cpp's own chat route: the OpenAI wire, with tokens counted by its timings, which hold for each choice."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import orjson

from mainspring.ports.llm import End, Event, Start, Usage
from mainspring.upstream.chat_events import ChatEvents

__all__ = ["NativeChat"]


class NativeChat(ChatEvents):
    """A `Decoder` that counts what was generated itself: the route's usage is that of one choice only.

    Args:
        choices: how many were asked for.
    """

    def __init__(self, choices: int) -> None:
        super().__init__(choices)
        self._prompt: int | None = None
        self._cached = 0
        self._generated = [0] * choices

    def feed(self, data: bytes) -> Iterable[Event]:
        """The events of one payload."""
        self._count(data)
        for event in super().feed(data):
            if isinstance(event, Start):
                self._prompt, self._cached = event.prompt_tokens, event.cached or 0
            yield event

    def _count(self, data: bytes) -> None:
        try:
            payload = orjson.loads(data)
            generated = payload["timings"]["predicted_n"]
            for choice in payload["choices"]:
                self._generated[choice["index"]] = generated
        except (ValueError, KeyError, IndexError, TypeError):
            return  # what is no such chunk is `feed`'s business

    def end(self) -> Iterable[Event]:
        """The last events, with the usage of all choices."""
        yield from map(self._counted, super().end())

    def cancelled(self) -> Iterable[Event]:
        """`End` as far as it came, with what it has cost."""
        yield from map(self._counted, super().cancelled())

    def _counted(self, event: Event) -> Event:
        if not isinstance(event, End) or self._prompt is None:
            return event
        return msgspec.structs.replace(event, usage=Usage(self._prompt, sum(self._generated), self._cached))
