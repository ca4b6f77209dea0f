"""A feature view asked about one entity and moment: what was known then, what is known of it now, what is online."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from mainspring.console.state import ConsoleState
from mainspring.declare.frame import Frame
from mainspring.declare.record import Kind
from mainspring.errors import MainspringError
from mainspring.features.offline.history import history
from mainspring.features.online.plan import compile_plan
from mainspring.features.view import Pick, View, arrow_type
from mainspring.lazy import lazy
from mainspring.plan.graph import Node
from mainspring.server.loop import online_views

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["preview"]

_AT = "_preview_at"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ: Mapping[Kind, Callable[[str], object]] = {
    Kind.INTEGER: int,
    Kind.BOOLEAN: lambda text: {"true": True, "false": False}[text.lower()],
    Kind.DATE: date.fromisoformat,
    Kind.TIMESTAMP: lambda text: _moment(text),
    Kind.DECIMAL: Decimal,
    Kind.BYTES: bytes.fromhex,
}


class _MisreadError(Exception):
    """What was typed is no value of a key, or no moment."""


def preview(state: ConsoleState, node: Node, asked: Mapping[str, str]) -> dict[str, Any]:
    """The form of a view's keys and a moment, and, once it is filled in, what the view answers.

    Args:
        state: the console's view of the process.
        node: a feature view.
        asked: the keys by name, as typed, and ``at``: RFC 3339 with a zone; the present when left out.
    """
    view = online_views(state.services, state.plan())[node.name]
    fields = [{"name": k.name, "type": k.type.kind.value, "value": asked.get(k.name, "")} for k in view.keys]
    found: dict[str, Any] = {"fields": fields, "at": asked.get("at", ""), "answer": None, "error": ""}
    if not all(asked.get(key.name) for key in view.keys):
        return found
    try:
        return {**found, "answer": _answer(state, view, asked)}
    except _MisreadError as error:
        return {**found, "error": str(error)}
    except MainspringError as error:
        return {**found, "error": f"{error.what}{': ' if error.why else ''}{error.why}"}


def _answer(state: ConsoleState, view: View, asked: Mapping[str, str]) -> dict[str, Any]:
    keys = {key.name: _typed(key.name, key.type.kind, asked[key.name]) for key in view.keys}
    text = asked.get("at", "")
    at_us = state.now() if not text else (_typed_moment(text) - _EPOCH) // timedelta(microseconds=1)
    columns = {key.name: pa.array([keys[key.name]], arrow_type(key.type)) for key in view.keys}
    spine = Frame(pa.table({**columns, _AT: pa.array([at_us], pa.int64()).cast(pa.timestamp("us", "UTC"))}))
    then, now = (
        history(state.services, [view], spine, time=_AT, as_known=known, names="full", status=True)
        .arrow()
        .to_pylist()[0]
        for known in (True, False)
    )
    online = None
    if view.online and not text:
        values, statuses = compile_plan(state.services.online, [Pick(view, view.features)]).read_one(keys, at_us)
        online = dict(zip(view.feature_names, values, strict=True)) | {"(status)": statuses[view.name]}
    event = then[f"{view.name}__event_time"]
    rows = [(f.name, str(f.aggregate), f"{view.name}__{f.name}") for f in view.features]
    return {
        "at": at_us,
        "status": then[f"{view.name}__status"],
        "event": None if event is None else (event - _EPOCH) // timedelta(microseconds=1),
        "online_status": None if online is None else online["(status)"],
        "features": [
            {
                "name": name,
                "of": of,
                "then": _shown(then[column]),
                "now": _shown(now[column]),
                "online": None if online is None else _shown(online[name]),
            }
            for name, of, column in rows
        ],
    }


def _typed(name: str, kind: Kind, text: str) -> object:
    try:
        return _READ.get(kind, str)(text)
    except (ValueError, KeyError, ArithmeticError) as error:
        raise _MisreadError(f"{name} is {text!r}, which is no {kind.value}") from error


def _typed_moment(text: str) -> datetime:
    return cast(datetime, _typed("at", Kind.TIMESTAMP, text))


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("it has no time zone")
    return found


def _shown(value: object) -> object:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
