"""What a run tells while it goes: frozen events, the same over HTTP, in the terminal, on the console and in traces.

Each is ``{"v": 1, "seq": n, "type": ..., ...}``; `seq` counts from 0 without a gap; the last is exactly one of `End`,
`Error` and `Interrupt`. A run as one JSON value is these events folded: it can never say anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "VERSION",
    "Citation",
    "Cited",
    "End",
    "EndReason",
    "Error",
    "Event",
    "Folded",
    "Interrupt",
    "Retrieval",
    "Source",
    "Spent",
    "Start",
    "Text",
    "ToolCall",
    "ToolResult",
    "decode",
    "encode",
    "fold",
    "is_last",
    "plain",
]

VERSION = 1
EndReason = Literal["stop", "length", "content_filter", "cancelled"]
ToolStatus = Literal["ok", "error", "refused", "timeout"]
CitedBy = Literal["model", "overlap"]


class Citation(msgspec.Struct, frozen=True):
    """A passage that an answer stands on; checked: ``document[span[0]:span[1]] == quote``, and the caller may read it.

    Attributes:
        chunk_id: the chunk that was retrieved.
        document_id: its document.
        document_version: the version that holds the quote.
        uri: where the document is.
        title: its title.
        pages: first and last page of the chunk, from 1; None for what has no pages.
        span: first and one-past-last character in the document's text.
        quote: the words there.
    """

    chunk_id: str
    document_id: str
    document_version: int
    uri: str
    title: str
    pages: tuple[int, int] | None
    span: tuple[int, int]
    quote: str


class Source(msgspec.Struct, frozen=True):
    """A chunk that the model was shown, by the number it was shown under.

    Attributes:
        number: from 1; the model cites by it.
        index: where it was found.
        index_version: the index version that answered.
        chunk_id: the chunk.
        document_id: its document.
        document_version: the version that was found.
        score: of the search.
        title: its document's.
        uri: where its document is.
        path: the headings above it.
        pages: first and last page.
        span: in the document's text.
        text: what the model was shown.
    """

    number: int
    index: str
    index_version: int
    chunk_id: str
    document_id: str
    document_version: int
    score: float
    title: str
    uri: str
    path: tuple[str, ...]
    pages: tuple[int, int] | None
    span: tuple[int, int]
    text: str


class _Event(msgspec.Struct, frozen=True, tag_field="type"):
    seq: int = 0
    v: int = VERSION


class Start(_Event, frozen=True, kw_only=True, tag="start"):
    """A run has begun.

    Attributes:
        run: its id.
        thread: its thread, or empty for a run without one.
        assistant: who answers.
    """

    run: str
    thread: str
    assistant: str


class Retrieval(_Event, frozen=True, kw_only=True, tag="retrieval"):
    """An index has been searched.

    Attributes:
        index: which.
        version: of the index.
        query: what for.
        complete: whether it found as many as were asked for.
        notes: why not.
        took_us: microseconds.
        sources: what the model is shown.
    """

    index: str
    version: int
    query: str
    complete: bool
    notes: tuple[str, ...]
    took_us: int
    sources: tuple[Source, ...]


class Text(_Event, frozen=True, kw_only=True, tag="text"):
    """A piece of the answer."""

    text: str


class ToolCall(_Event, frozen=True, kw_only=True, tag="tool_call"):
    """The model asks for a tool."""

    id: str
    name: str
    arguments: Mapping[str, object]


class ToolResult(_Event, frozen=True, kw_only=True, tag="tool_result"):
    """What came of a call: ``ok``, ``error``, ``timeout``, or ``refused`` when it was not carried out."""

    id: str
    name: str
    status: ToolStatus
    content: str
    took_us: int = 0


class Cited(_Event, frozen=True, kw_only=True, tag="citation"):
    """A checked citation.

    Attributes:
        number: of its source.
        start: first character in the answer of what it supports.
        end: one past the last.
        by: whether the model cited it, or the answer's words were found in it.
        citation: the passage.
    """

    number: int
    start: int
    end: int
    by: CitedBy
    citation: Citation


class Spent(_Event, frozen=True, kw_only=True, tag="usage"):
    """Tokens of all the run's calls of the model.

    Attributes:
        prompt: all tokens that were read; holds `cached`.
        completion: all that were generated.
        cached: those whose state was reused.
        model_calls: how often the model was called.
        tool_calls: how many tools were carried out.
    """

    prompt: int
    completion: int
    cached: int
    model_calls: int
    tool_calls: int


class End(_Event, frozen=True, kw_only=True, tag="end"):
    """The run is over.

    Attributes:
        reason: ``stop``, ``length``, ``content_filter`` or ``cancelled``.
        refused: whether the answer says that it does not know.
        dropped: citations that did not hold and were taken out.
        took_us: microseconds.
    """

    reason: EndReason
    refused: bool
    dropped: int
    took_us: int


class Error(_Event, frozen=True, kw_only=True, tag="error"):
    """The run has failed.

    Attributes:
        code: ``MS-dddd``.
        kind: ``timeout``, ``rate``, ``overloaded``, ``internal``, ...
        message: for the client: no internals.
        retryable: whether the same question may do better later.
    """

    code: str
    kind: str
    message: str
    retryable: bool


class Interrupt(_Event, frozen=True, kw_only=True, tag="interrupt"):
    """The run waits for a person, for as long as it takes; its thread holds it over restarts.

    Attributes:
        id: what the decisions name.
        thread: where it waits.
        action_requests: the calls, each ``{"name", "args", "description"}``.
        review_configs: what may be decided of each, ``{"action_name", "allowed_decisions"}``.
    """

    id: str
    thread: str
    action_requests: tuple[Mapping[str, object], ...]
    review_configs: tuple[Mapping[str, object], ...]


Event: TypeAlias = Start | Retrieval | Text | ToolCall | ToolResult | Cited | Spent | End | Error | Interrupt

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """An event as JSON."""
    return _ENCODER.encode(event)


def decode(data: bytes) -> Event:
    """An event from its JSON.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return _DECODER.decode(data)


def is_last(event: Event) -> bool:
    """Whether nothing follows an event."""
    return isinstance(event, End | Error | Interrupt)


class Folded(msgspec.Struct, frozen=True):
    """A run as one value.

    Attributes:
        run: its id.
        thread: its thread, or empty.
        assistant: who answered.
        text: the answer.
        sources: what the model was shown, in order of their numbers.
        citations: what holds, in order of appearance.
        tools: results of the calls.
        usage: tokens.
        end: how it ended, when it did.
        error: or how it failed.
        interrupt: or what it waits for.
    """

    run: str = ""
    thread: str = ""
    assistant: str = ""
    text: str = ""
    sources: tuple[Source, ...] = ()
    citations: tuple[Cited, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    tools: tuple[ToolResult, ...] = ()
    usage: Spent | None = None
    end: End | None = None
    error: Error | None = None
    interrupt: Interrupt | None = None


def fold(events: Iterable[Event]) -> Folded:
    """A run's events as one value."""
    told = list(events)
    start = next((event for event in told if isinstance(event, Start)), None)
    return Folded(
        run=start.run if start else "",
        thread=start.thread if start else "",
        assistant=start.assistant if start else "",
        text="".join(event.text for event in told if isinstance(event, Text)),
        sources=tuple(source for event in told if isinstance(event, Retrieval) for source in event.sources),
        citations=tuple(event for event in told if isinstance(event, Cited)),
        calls=tuple(event for event in told if isinstance(event, ToolCall)),
        tools=tuple(event for event in told if isinstance(event, ToolResult)),
        usage=next((event for event in told if isinstance(event, Spent)), None),
        end=next((event for event in told if isinstance(event, End)), None),
        error=next((event for event in told if isinstance(event, Error)), None),
        interrupt=next((event for event in told if isinstance(event, Interrupt)), None),
    )


def plain(folded: Folded) -> dict[str, object]:
    """A folded run as the JSON value of a run that is not streamed."""
    return {"v": VERSION, **msgspec.to_builtins(folded)}
