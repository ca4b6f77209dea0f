"""A feature service as it answers: entities by column in, rows out, with one round trip to the store."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from mainspring.declare.model import Input
from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.features.online.answered import Rows
from mainspring.features.online.computed import compile_selection
from mainspring.features.online.sampled import Samples
from mainspring.features.selection import Selection, functions_of, selection_of
from mainspring.features.view import View
from mainspring.ports.online import OnlineStore

__all__ = ["ServedFeatures", "serve_features"]


Count = Callable[[Mapping[str, Sequence[str]]], None]
"""Is told the statuses of entities by view."""


class ServedFeatures:
    """Features that are asked for together.

    Args:
        name: of the service, for errors.
        selection: what it answers.
        store: the online store.
        functions: its on-demand functions, by name.
        samples: where some answers are kept, to be computed again; None where none are.
        count: is told the statuses of the entities of each answer, by view.

    Attributes:
        keys: the entity keys of a question, with their types.
        request: the fields of the request, with their types.
        blocks: whether an answer may take long enough to hold up an event loop: a batch function is called.
    """

    def __init__(
        self,
        name: str,
        selection: Selection,
        store: OnlineStore,
        functions: Mapping[str, Callable[..., object]],
        samples: Samples | None = None,
        count: Count | None = None,
    ) -> None:
        self._count = count
        self.name = name
        self.names = tuple(selection.names)
        self.types = tuple(output.type for output in selection.outputs)
        self.views = tuple(output.view for output in selection.outputs)
        self.versions = {pick.view.name: pick.view.version for pick in selection.picks}
        self.keys = selection.keys
        self.request = {field.name: field.type for field in selection.request}
        self.blocks = any(one.written != "scalar" for one in selection.calculations)
        self._plan = compile_selection(store, selection, functions, samples)
        self._converted = [(key, _KEYS[kind.kind]) for key, kind in self.keys.items() if kind.kind in _KEYS]
        self._known = {**self.keys, **self.request}
        self._plain = None if self._converted or self.request else self.keys.keys()
        self._only = next(iter(self.keys)) if len(self.keys) == 1 else None
        read = None if self._plain is None else self._plan.read_column
        self._column = None if read is None else (next(iter(self.keys)), read)

    def read(self, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any], now_us: int) -> Rows:
        """The features of entities at a moment (UTC microseconds).

        Args:
            entities: the entity keys by column.
            request: the fields of the request: a list as long as the entities' is a value each, else one for all.
            now_us: the moment.

        Raises:
            DataError: MS-2310, columns are missing, unknown or of unequal length; MS-2120, MS-2302, one has the wrong
                type; MS-2162.
            UserCodeError: MS-2161, an on-demand function failed.
        """
        column = None if self._column is None or request or len(entities) != 1 else entities.get(self._column[0])
        if self._column is None or not column:
            return self.read_rows(self._questions(entities, request), now_us)
        rows, statuses, events = self._column[1](column, now_us)
        self._counted(statuses)
        return Rows(self.names, self.types, rows, statuses, events)

    def read_mappings(self, entities: Sequence[Mapping[str, Any]], now_us: int) -> Rows | None:
        """The features of a mapping an entity, or None where these do not hold its keys alone, as they are stored.

        Args:
            entities: the entity keys, a mapping each.
            now_us: the moment.

        Raises:
            DataError: MS-2120, a key has the wrong type.
        """
        wanted = self._plain
        if wanted is None or not entities:
            return None
        only = self._only
        for entity in entities:  # most have one key, which is asked for faster than the keys are compared
            if type(entity) is not dict or (
                len(entity) != 1 or only not in entity if only is not None else entity.keys() != wanted
            ):
                return None
        rows, statuses, events = self._plan.read_rows(entities, now_us)
        self._counted(statuses)
        return Rows(self.names, self.types, rows, statuses, events)

    def read_rows(self, questions: Sequence[Mapping[str, Any]], now_us: int) -> Rows:
        """The same of a mapping an entity, which holds its keys and its fields of the request."""
        rows, statuses, events = self._plan.read_rows(questions, now_us)
        self._counted(statuses)
        return Rows(self.names, self.types, rows, statuses, events)

    def _counted(self, statuses: Mapping[str, Sequence[str]]) -> None:
        if self._count is not None:
            self._count(statuses)

    def _questions(self, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any]) -> list[dict[str, Any]]:
        for wanted, given, what in ((self.keys, entities, "entities"), (self.request, request, "request")):
            if extra := sorted(set(given) - set(wanted)):
                raise self._wrong(f"{what} holds {extra[0]!r}, which is none of its")
        if missing := [key for key in self.keys if key not in entities]:
            raise self._wrong(f"entities lacks the key {missing[0]!r}")
        lengths = {len(column) for column in entities.values()}
        if len(lengths) > 1:
            raise self._wrong(f"the columns of entities have {' and '.join(map(str, sorted(lengths)))} values")
        fields = {
            name: value
            for name, value in request.items()
            if isinstance(value, list) and self.request[name].kind not in (Kind.VECTOR, Kind.LIST)
        }
        count = lengths.pop() if lengths else max((len(value) for value in fields.values()), default=1)
        for name, value in fields.items():
            if len(value) != count:
                raise self._wrong(f"request has {len(value)} values of {name!r} for {count} entities")
        columns = {**entities, **{name: fields.get(name, [value] * count) for name, value in request.items()}}
        found = _rows(columns, count)
        for name, read in self._converted:
            for row in found:
                row[name] = self._key(name, row[name], read)
        return found

    def _key(self, name: str, value: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return None if value is None else read(value)
        except (TypeError, ValueError, ArithmeticError):
            raise self._wrong(f"entity key {name!r} is {repr(value)[:80]}, not {self.keys[name]}") from None

    def _wrong(self, why: str) -> DataError:
        fields = ", ".join(f"{name}: {kind}" for name, kind in self.request.items())
        keys = ", ".join(f"{name}: {kind}" for name, kind in self.keys.items())
        return DataError(
            f"feature service {self.name!r} cannot be asked so: {why}",
            code="MS-2310",
            fix=f"send entities {{{keys}}}, request {{{fields}}}",
        )


def _rows(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    if not columns:
        return [{} for _ in range(count)]
    if len(columns) == 1:  # the commonest question
        ((name, column),) = columns.items()
        return [{name: value} for value in column]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def serve_features(
    name: str,
    inputs: Sequence[Input],
    views: Mapping[str, View],
    store: OnlineStore,
    samples: Samples | None = None,
    count: Count | None = None,
) -> ServedFeatures:
    """A feature service of declared inputs.

    Raises:
        DeclarationError: MS-2160.
    """
    return ServedFeatures(name, selection_of(inputs, views), store, functions_of(inputs), samples, count)


def _moment(value: Any) -> Any:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(found, datetime):
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    if type(found) is not int:
        raise TypeError
    return found


_KEYS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.TIMESTAMP: _moment,
    Kind.DATE: lambda value: date.fromisoformat(value) if isinstance(value, str) else value,
    Kind.DECIMAL: lambda value: value if isinstance(value, Decimal) else Decimal(str(value)),
    Kind.BYTES: lambda value: base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(value),
}
"""How keys that JSON has no type for are read."""
