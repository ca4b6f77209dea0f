"""What an assistant may use, whatever it is made of: a declared function, an endpoint, a feature view."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol

import msgspec

from mainspring.declare.assistant import Tool
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.identity import Identity
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError

__all__ = [
    "Call",
    "EndpointLike",
    "FeatureRead",
    "ToolFailedError",
    "Usable",
    "of_endpoint",
    "of_features",
    "of_tool",
    "result_text",
]

Call = Callable[[bytes, Identity], Awaitable[object]]
"""Carries a call out: its arguments as JSON, and the caller; `msgspec.DecodeError` when the arguments do not fit."""

_MOST_CHARACTERS = 32_000
_JSON_TYPES: Mapping[Kind, dict[str, object]] = {
    Kind.INTEGER: {"type": "integer"},
    Kind.FLOAT: {"type": "number"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TIMESTAMP: {"type": "string", "format": "date-time"},
    Kind.DATE: {"type": "string", "format": "date"},
    Kind.DECIMAL: {"type": "number"},
    Kind.VECTOR: {"type": "array", "items": {"type": "number"}},
}


class ToolFailedError(Exception):
    """What a tool outside says of its own failure: the model is told, and may do better."""


class Usable(msgspec.Struct, frozen=True):
    """A tool as an agent runs it.

    Attributes:
        name: what the model calls.
        description: when to call it.
        schema: a JSON schema of its arguments.
        call: carries it out.
        timeout: seconds of one attempt.
        approve: whether a person must agree.
        allow: principals that may cause a call; empty is everybody.
        retries: further attempts after a failure.
    """

    name: str
    description: str
    schema: Mapping[str, object]
    call: Call
    timeout: float = 30.0
    approve: bool = False
    allow: tuple[str, ...] = ()
    retries: int = 0

    def allowed(self, caller: Identity) -> bool:
        """Whether the caller may cause a call."""
        return not self.allow or not set(self.allow).isdisjoint(caller.principals)


def of_tool(tool: Tool[..., object], threads: ThreadPoolExecutor) -> Usable:
    """A declared tool; what is no coroutine function runs in a thread of the pool.

    Args:
        tool: the declaration.
        threads: of its own, so that a tool that hangs holds up nothing but tools.
    """
    spec = spec_of(tool)

    async def call(arguments: bytes, caller: Identity) -> object:
        given = spec.signature.arguments(arguments, caller)
        if inspect.iscoroutinefunction(spec.function):
            return await spec.function(**given)
        context = copy_context()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads, lambda: context.run(spec.function, **given))
        return await found if inspect.isawaitable(found) else found

    return Usable(
        name_of(tool),
        spec.signature.description,
        spec.signature.schema,
        call,
        spec.timeout_us / 1e6,
        spec.approve,
        spec.allow,
        spec.retries,
    )


class EndpointLike(Protocol):
    """A model behind an endpoint, as `mainspring.serving` has it."""

    @property
    def name(self) -> str:
        """The endpoint's name."""

    @property
    def keys(self) -> Mapping[str, ColumnType]:
        """The entity keys that a request names, with their types."""

    @property
    def columns(self) -> Sequence[Any]:
        """The model's columns; those with `feature` None come with the request."""

    def answer(self, rows: Sequence[Mapping[str, Any]], moments: Sequence[int]) -> Sequence[Any]:
        """One answer a row, with ``prediction``, ``score``, ``version`` and ``id``."""


def of_endpoint(endpoint: EndpointLike, description: str, now: Callable[[], int]) -> Usable:
    """An endpoint of the app as a tool: the model gives keys and columns, and is told the prediction.

    Args:
        endpoint: what answers.
        description: when to call it.
        now: the clock, microseconds since 1970.
    """
    asked = dict(endpoint.keys) | {column.name: column.type for column in endpoint.columns if column.feature is None}

    async def call(arguments: bytes, caller: Identity) -> object:
        row = _row(arguments, asked)
        (answer,) = await asyncio.to_thread(endpoint.answer, (row,), (now(),))
        return {"prediction": answer.prediction, "score": answer.score, "version": answer.version, "id": answer.id}

    text = description or f"The prediction of {endpoint.name} for one row."
    return Usable(endpoint.name, text, _row_schema(asked), call)


FeatureRead = Callable[[Mapping[str, object], int], Mapping[str, object]]
"""Reads a view's features of one entity at a moment (microseconds since 1970), by name."""


def of_features(
    name: str, keys: Mapping[str, ColumnType], read: FeatureRead, description: str, now: Callable[[], int]
) -> Usable:
    """A feature view of the app as a tool: the model gives the entity's keys, and is told its features as they are now.

    Args:
        name: the view's.
        keys: the entity's columns with their types.
        read: reads one entity.
        description: when to call it.
        now: the clock, microseconds since 1970.
    """

    async def call(arguments: bytes, caller: Identity) -> object:
        return await asyncio.to_thread(read, _row(arguments, keys), now())

    return Usable(name, description or f"The present features of {name}.", _row_schema(keys), call)


def _row_schema(columns: Mapping[str, ColumnType]) -> Mapping[str, object]:
    return {
        "type": "object",
        "properties": {name: _JSON_TYPES.get(kind.kind, {"type": "string"}) for name, kind in columns.items()},
        "required": [name for name, kind in columns.items() if not kind.nullable],
        "additionalProperties": False,
    }


def _row(arguments: bytes, columns: Mapping[str, ColumnType]) -> dict[str, object]:
    row: dict[str, object] = msgspec.json.decode(arguments or b"{}", type=dict[str, object])
    strange = [name for name in row if name not in columns]
    if strange:
        raise DataError(
            f"{strange[0]!r} is no argument",
            code="MS-2502",
            why="a tool takes what its schema names",
            fix="it takes " + ", ".join(columns),
        )
    return row


def result_text(result: object) -> str:
    """A tool's result as the model reads it: a text as it is, anything else as JSON, cut at 32,000 characters."""
    text = result if isinstance(result, str) else msgspec.json.encode(result, enc_hook=str).decode()
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]}\n[{left_out} more characters left out]"
