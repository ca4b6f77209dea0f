"""What an answer that is passed on as it is says of its tokens: read beside the bytes, which nobody changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mainspring.ports.llm import Usage
from mainspring.upstream.chat_events import usage_of
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.sse import EventData

__all__ = ["Meter", "asked_tokens"]

_MOST_READ = 8 << 20
"""Bytes of a plain answer that are kept to be read at its end."""
_BYTES_A_TOKEN = 4
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Meter:
    """Reads the usage of an answer as its bytes go by.

    Args:
        content_type: of the answer; what is neither JSON nor a stream of events tells none.
        asked: bytes of the request, for an answer that does not tell.
    """

    def __init__(self, content_type: str, asked: int) -> None:
        self._events = EventData() if "event-stream" in content_type else None
        self._plain = self._events is None and "json" in content_type
        self._asked = asked
        self._answered = self._told = 0
        self._parts: list[bytes] = []
        self._found: dict[str, Any] = {}

    def feed(self, piece: bytes) -> None:
        """A part has gone by."""
        self._answered += len(piece)
        if self._events is not None:
            try:
                payloads = self._events.feed(piece)
            except BrokenError:  # an event that is too large to be looked into is passed on all the same
                self._events, payloads = None, []
            self._told += len(payloads)
            for data in payloads:
                if b'"usage"' in data:
                    self._look(data)
        elif self._plain and self._answered <= _MOST_READ:
            self._parts.append(piece)

    def usage(self) -> Usage:
        """What was used: as the upstream says, else what the lengths of the texts come to; nothing without texts."""
        if self._parts:
            self._look(b"".join(self._parts))
            self._parts.clear()
        if self._found:
            return _usage(self._found)
        if not self._plain and not self._told:
            return Usage(0, 0, source="counted")
        answered = self._told or -(-self._answered // _BYTES_A_TOKEN)  # an event of a stream is a token, more or less
        return Usage(-(-self._asked // _BYTES_A_TOKEN), answered, source="counted")

    def _look(self, data: bytes) -> None:
        """Take usage from an object, or from what it holds: a message that begins, a response that ends."""
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if not isinstance(found, dict):
            return
        for holder in (found, found.get("message"), found.get("response")):
            usage = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict):
                self._found |= {name: value for name, value in usage.items() if value is not None}


def _usage(found: Mapping[str, Any]) -> Usage:
    """Usage of either wire; Anthropic's input leaves out what its cache read and wrote, OpenAI's holds it."""
    if "input_tokens" not in found:
        return usage_of(dict(found))
    if "input_tokens_details" in found or "output_tokens_details" in found:  # of OpenAI's responses
        names = {
            "prompt_tokens": found.get("input_tokens"),
            "completion_tokens": found.get("output_tokens"),
            "prompt_tokens_details": found.get("input_tokens_details"),
            "completion_tokens_details": found.get("output_tokens_details"),
        }
        return usage_of({name: value for name, value in names.items() if value is not None})
    read, written = _whole(found, "cache_read_input_tokens"), _whole(found, "cache_creation_input_tokens")
    return Usage(_whole(found, "input_tokens") + read + written, _whole(found, "output_tokens"), read, written)


def _whole(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def asked_tokens(asked: Mapping[str, Any], size: int, unsaid: int) -> tuple[int, int]:
    """The most tokens that a request's prompt and answer can have.

    Args:
        asked: its JSON object.
        size: its bytes: no token is less than one.
        unsaid: tokens of an answer that nobody has said a number for.
    """
    limits = [_whole(asked, name) for name in _LIMITS if _whole(asked, name)]
    return size, (max(limits) if limits else unsaid) * max(_whole(asked, "n"), 1)
