"""Writing what a Feast repository defines as an app, its settings, and a report of what is otherwise here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from mainspring.declare.duration import spell
from mainspring.declare.featuring import Featuring
from mainspring.protocols.feast.code import Names, called, layout, listed, quoted
from mainspring.protocols.feast.columns import TYPES, Column, column_of, fits, reads
from mainspring.protocols.feast.definitions import (
    FeastField,
    FeastOnDemand,
    FeastRepository,
    FeastService,
    FeastSource,
    FeastView,
    Note,
)
from mainspring.protocols.feast.expressions import DynamicError
from mainspring.protocols.feast.files import FileColumn
from mainspring.protocols.feast.functions import Carried, carry
from mainspring.protocols.feast.places import online_of, place_of, setting_name

__all__ = ["Project", "project_of"]

_OPTIONS = {
    name for name, item in inspect.signature(Featuring.features).parameters.items() if item.kind is item.KEYWORD_ONLY
} | {"self"}
_EXTRAS = (
    ("s3://", "aws"),
    ("az://", "azure"),
    ("gs://", "gcp"),
    ("postgresql://", "postgres"),
    ("redis", "redis"),
)
"""What is installed besides, by the beginning of a url, in the order of their names."""
_COLUMN = "where the rows can have it otherwise, add its column to the record and last(...) to the view"
_BY_HAND = "declare it in the app by hand"


class Project(msgspec.Struct, frozen=True):
    """What is to be written, and what the person should know.

    Attributes:
        files: text by path, relative to the project.
        carried: what is there as it was; changed: what is there and answers otherwise; left: what is not there.
    """

    files: Mapping[str, str]
    carried: tuple[Note, ...]
    changed: tuple[Note, ...]
    left: tuple[Note, ...]


def project_of(
    repository: FeastRepository, columns: Mapping[str, Mapping[str, FileColumn]], *, module: str, target: str
) -> Project:
    """A repository as a project.

    Args:
        repository: as `read_repository` found it.
        columns: those of each source's files, by the source's name, as far as they could be read.
        module: the name of the app's module.
        target: the project's folder, an absolute path.
    """
    writer = _Writer(repository, columns)
    app = writer.app()
    settings = writer.settings(module, target)
    extras = ",".join(["tabular", *(extra for scheme, extra in _EXTRAS if f'url = "{scheme}' in settings)])
    return Project(
        {
            f"{module}.py": app,
            "mainspring.toml": settings,
            "requirements.in": f"mainspring[{extras}]\n",
            ".gitignore": ".mainspring/\n__pycache__/\n",
        },
        tuple(writer.carried),
        tuple(writer.changed),
        (*repository.left, *writer.left),
    )


class _Table(msgspec.Struct):
    """A source as it will be written, with the columns that its views need."""

    source: FeastSource
    time: str
    columns: dict[str, Column] = msgspec.field(default_factory=dict)


class _View(msgspec.Struct, frozen=True):
    """A view as it will be written: its keys, and for each feature its column and type in Feast."""

    view: FeastView
    keys: tuple[str, ...]
    features: Mapping[str, tuple[str, str]]


class _Writer:
    def __init__(self, repository: FeastRepository, columns: Mapping[str, Mapping[str, FileColumn]]) -> None:
        self.repository = repository
        self._held = columns
        self.carried: list[Note] = []
        self.changed: list[Note] = []
        self.left: list[Note] = []
        self._tables: dict[str, _Table] = {}
        self._views: dict[str, _View] = {}
        self._outputs: dict[str, tuple[str, ...]] = {}
        self._offline: set[str] = set()
        self._variables: dict[tuple[str, str], str] = {}

    def app(self) -> str:
        """The text of the app."""
        for view in self.repository.views:
            self._take(view)
        carried = self._carry_functions()
        names = Names(name for _, function in carried for name in (*function.imports, *function.constants))
        self._name_all(names, carried)
        self._loosen_keys()
        for name, table in self._tables.items():
            if table.source.pushed:
                self._all_columns(name, table)
        blocks: list[str] = [self._opening()]
        imports = {line for _, function in carried for line in function.imports.values()}
        constants = {line for _, function in carried for line in function.constants.values()}
        blocks += ["\n".join(sorted(constants))] if constants else []
        for name, table in self._tables.items():
            blocks += self._source(name, table)
        blocks += [self._view(name, view) for name, view in self._views.items()]
        for asked, function in carried:
            blocks += self._function(asked, function)
        blocks += [text for service in self.repository.services if (text := self._service(service))]
        self._told()
        head = f"The features of {self.repository.project}, as its Feast repository defines them."
        return layout(head, imports, blocks)

    # -- views and sources --------------------------------------------------------------------------------------

    def _take(self, view: FeastView) -> None:
        """Take a view in, with its columns; or say why not."""
        what = f"feature view {view.name}"
        try:
            table = self._table(view)
            keys = tuple(dict.fromkeys(entity.key for entity in view.entities))
            if not keys:
                raise DynamicError("it has no entity", view.where)
            added = {key: self._key(view, key) for key in keys}
            features = self._features(view, table, keys, added)
            if not features:
                raise DynamicError("none of its features could be carried", view.where)
        except DynamicError as error:
            self.left.append(Note(what, error.why, error.where, _BY_HAND))
            return
        self._tables[view.source.name] = table
        table.columns.update(added)
        self._views[view.name] = _View(view, keys, features)

    def _table(self, view: FeastView) -> _Table:
        source = view.source
        held = self._tables.get(source.name)
        if held is not None:
            return held
        file = self._held.get(source.name, {})
        times = [name for name, column in file.items() if column.type == "UnixTimestamp" and name != source.created]
        time = source.time or (times[0] if len(times) == 1 else "")
        if not time:
            raise DynamicError("its source names no timestamp_field", source.where)
        for name in filter(None, (time, source.created)):
            if not fits(name):
                raise DynamicError(f"its source has the column {name!r}, which no Python class can have", source.where)
        return _Table(source, time)

    def _key(self, view: FeastView, key: str) -> Column:
        if not fits(key):
            raise DynamicError(f"its key {key!r} is no name that Python can have", view.where)
        entity = next(entity for entity in view.entities if entity.key == key)
        said = next((item.type for item in view.fields if item.name == key), "") or entity.type
        column = self._held.get(view.source.name, {}).get(key)
        kind = said or (column.type if column else "")
        if not kind:
            kind = "String"
            self.changed.append(
                Note(
                    f"key {key} of feature view {view.name}",
                    "its type is written nowhere, and its data cannot be looked into: declared as str",
                    view.where,
                    "correct it in the record if it is a number",
                )
            )
        made = column_of(kind, 0, column, "")
        if made is None or made.type in ("float", "list[float]", "bytes"):
            raise DynamicError(f"its key {key!r} is {kind}, which is no key here", view.where)
        return Column(made.type, False, made.rules)

    def _features(
        self, view: FeastView, table: _Table, keys: tuple[str, ...], added: dict[str, Column]
    ) -> Mapping[str, tuple[str, str]]:
        """The features that can be carried, each with its column; their columns go to `added`."""
        features: dict[str, tuple[str, str]] = {}
        columns = {name: column for column, name in view.source.mapping}
        file = self._held.get(view.source.name, {})
        besides = {*keys, table.time, table.source.created}
        for item in self._schema(view, table, keys):
            column = columns.get(item.name, item.name)
            if item.name in besides or column in besides:
                continue
            try:
                made = self._feature(item, column, file)
                known = added.get(column) or table.columns.get(column)
                if known is not None and known.type != made.type:
                    raise DynamicError(f"its column is {known.type} for another view", item.where)
            except DynamicError as error:
                self.left.append(Note(f"feature {view.name}:{item.name}", error.why, error.where, _COLUMN))
                continue
            added[column] = known or made
            features[item.name] = (column, item.type)
        return features

    def _schema(self, view: FeastView, table: _Table, keys: tuple[str, ...]) -> Iterable[FeastField]:
        """The fields of a view; of one that names none, those that Feast would find in the file."""
        if any(item.name not in keys for item in view.fields):
            return view.fields
        names, file = dict(view.source.mapping), self._held.get(view.source.name, {})
        besides = {*keys, table.time, view.source.created}
        if not file:
            raise DynamicError("it has no schema, and its data cannot be looked into", view.where)
        return [
            FeastField(names.get(name, name), column.type, column.length, where=view.where)
            for name, column in file.items()
            if name not in besides
        ]

    def _feature(self, item: FeastField, column: str, file: Mapping[str, FileColumn]) -> Column:
        for name in (item.name, column):
            if not fits(name):
                raise DynamicError(f"{name!r} is no name that Python can have", item.where)
        if item.name in _OPTIONS:
            raise DynamicError(f"{item.name!r} is the name of an option of app.features", item.where)
        if file and column not in file:
            raise DynamicError(f"its file has no column {column!r}", item.where)
        made = column_of(item.type, item.length, file.get(column), item.doc)
        if made is not None:
            held = TYPES.get(file[column].type, "") if file else ""
            if held and not reads(made.type, held):
                self.changed.append(
                    Note(
                        f"column {column}",
                        f"Feast declares {item.type}, and its file holds {file[column].type}: declared as {held}",
                        item.where,
                    )
                )
                made = column_of(file[column].type, item.length, file[column], item.doc)
        if made is None:
            why = "its length is written nowhere" if "Array(Float" in item.type else "precision is written nowhere"
            known = item.type in TYPES
            raise DynamicError(f"it is {item.type}, {why if known else 'which no column here can be'}", item.where)
        if item.type in ("ZonedTimestamp", "Array(Float64)"):
            lost = "its zone is not kept, its moment is" if item.type[0] == "Z" else "vectors are kept in 32 bits"
            self.changed.append(Note(f"column {column}", lost, item.where))
        return made

    def _loosen_keys(self) -> None:
        """Where views of one source have other keys, a row that lacks one of them is the others' all the same."""
        for name, table in self._tables.items():
            keys = {view.keys for view in self._views.values() if view.view.source.name == name}
            for key in {key for each in keys for key in each} if len(keys) > 1 else ():
                table.columns[key] = replace(table.columns[key], nullable=True)

    def _all_columns(self, name: str, table: _Table) -> None:
        """What is pushed in Feast carries every column of the batch source, so the record of a push source has all."""
        file = self._held.get(name, {})
        for column, held in file.items():
            made = column_of(held.type, 0, held, "")
            if column not in (table.time, table.source.created) and fits(column) and made is not None:
                table.columns.setdefault(column, made)
        if not file:
            why = "its data cannot be looked into: a push may carry the columns that views read, and no others"
            self.changed.append(Note(f"source {name}", why, table.source.where, "add the others to its record"))

    # -- names --------------------------------------------------------------------------------------------------

    def _name_all(self, names: Names, carried: Sequence[tuple[FeastOnDemand, Carried]]) -> None:
        """Give everything a variable of its own; entities and views are the first to get the one that they want."""
        keys = dict.fromkeys(key for view in self._views.values() for key in view.keys)
        entities = {entity.key: entity.name for view in self.repository.views for entity in view.entities}
        for kind, wanted in (
            ("view", self._views),
            ("function", [view.name for view, _ in carried]),
            ("source", self._tables),
            ("service", [service.name for service in self.repository.services]),
        ):
            for name in wanted:
                self._variables[kind, name] = names.take(name, kind)
        for key in keys:
            self._variables["entity", key] = names.take(entities[key], "entity")
        for name in (*self._tables, *(view.name for view, _ in carried)):
            parts = re.split(r"[^A-Za-z0-9]+", name)
            self._variables["record", name] = names.take(
                "".join(part[:1].upper() + part[1:] for part in parts), "record"
            )
        for view, function in carried:
            if function.called:
                self._variables["copy", view.name] = names.take(function.called, "copy")

    # -- text ---------------------------------------------------------------------------------------------------

    def _opening(self) -> str:
        lines = [f"app = App({quoted(self.repository.project)})"]
        for (kind, key), variable in self._variables.items():
            if kind == "entity":
                lines.append(f'{variable} = Entity("{key}")')
                self.carried.append(Note(f"entity {variable}"))
        return "\n".join(lines)

    def _source(self, name: str, table: _Table) -> list[str]:
        record, source = self._variables["record", name], table.source
        times = {table.time: Column("datetime", False)}
        if source.created:
            times[source.created] = Column("datetime", True)
        lines = [column.line(column_name) for column_name, column in (table.columns | times).items()]
        arguments = [record, f'time="{table.time}"']
        if source.created:
            arguments.append(f'ingested="{source.created}"')
        arguments.append('zone="UTC"')
        self.carried.append(Note(f"source {name}", where=source.where))
        return [
            f"class {record}(Record):\n" + "\n".join(lines),
            self._declared("source", name, "app.source", arguments),
        ]

    def _view(self, name: str, held: _View) -> str:
        view, entities = held.view, [self._variables["entity", key] for key in held.keys]
        arguments = [self._variables["source", view.source.name]]
        whose = ", ".join(entities)
        arguments.append(f"entity=({whose})" if len(entities) > 1 else f"entity={whose}")
        if view.ttl > timedelta(0):
            arguments.append(f'ttl="{spell(view.ttl // timedelta(microseconds=1))}"')
        if not view.online:
            arguments.append("online=False")
        arguments += [f'{feature}=last("{column}")' for feature, (column, _) in held.features.items()]
        count = len(held.features)
        self.carried.append(Note(f"feature view {name}", f"{count} feature{'s' if count > 1 else ''}", view.where))
        return self._declared("view", name, "app.features", arguments)

    def _declared(self, kind: str, name: str, function: str, arguments: list[str]) -> str:
        variable, name = self._variables[kind, name], setting_name(name) if kind == "source" else name
        named = [] if variable == name else [f"called={quoted(name)}"]
        return called(f"{variable} = {function}", [*arguments, *named])

    # -- functions ----------------------------------------------------------------------------------------------

    def _carry_functions(self) -> list[tuple[FeastOnDemand, Carried]]:
        found: list[tuple[FeastOnDemand, Carried]] = []
        constants: dict[str, str] = {}
        for view in self.repository.on_demand:
            try:
                function = carry(view, {name: kind for name, (_, kind) in self._inputs(view).items()})
                self._may_be(view, function)
                for name, line in {**function.constants, **function.imports}.items():
                    if constants.setdefault(name, line) != line:
                        raise DynamicError(f"{name} is something else for another function", view.where)
            except DynamicError as error:
                fix = "write it in Polars or as a scalar function: docs/features.md, On demand"
                self.left.append(Note(f"on-demand feature view {view.name}", error.why, error.where, fix))
                continue
            self._outputs[view.name] = tuple(item.name for item in view.fields)
            origins = {self._inputs(view)[name][0].partition(":")[0] for name in function.inputs} - {""}
            if not all(self._views[origin].view.online for origin in origins):
                self._offline.add(view.name)
            found.append((view, function))
        return found

    def _inputs(self, view: FeastOnDemand) -> dict[str, tuple[str, str]]:
        """What a function may read: where each input comes from, and its type in Feast."""
        inputs: dict[str, tuple[str, str]] = {}
        for part in view.parts:
            held = self._views.get(part.name)
            if held is None:
                raise DynamicError(f"it reads {part.name}, which is no feature view that could be carried", view.where)
            for name in part.features or held.features:
                if name not in held.features:
                    raise DynamicError(f"it reads {part.name}:{name}, which could not be carried", view.where)
                for known in (name, f"{part.name}__{name}"):
                    inputs[known] = (f"{part.name}:{name}", held.features[name][1])
        for request in view.requests:
            inputs |= {item.name: ("", item.type) for item in request.fields}
        short = {name: value for name, value in inputs.items() if "__" not in name}
        return short | inputs

    def _may_be(self, view: FeastOnDemand, function: Carried) -> None:
        """The names and types of a function's inputs and features are such as can be declared."""
        if not view.fields:
            raise DynamicError("its schema names no feature", view.where)
        if not function.inputs:
            raise DynamicError("it reads no feature and no request field", view.where)
        inputs = self._inputs(view)
        for name in (*function.inputs, *(item.name for item in view.fields)):
            if not fits(name) or name in ("returns", "called", "self"):
                raise DynamicError(f"{name!r} is no name that Python can have", view.where)
        for name, kind in (
            *((name, inputs[name][1]) for name in function.inputs),
            *((item.name, item.type) for item in view.fields),
        ):
            if TYPES.get(kind) in (None, "list[float]", "Decimal"):
                raise DynamicError(f"{name} is {kind}, which no function is given here", view.where)

    def _function(self, view: FeastOnDemand, function: Carried) -> list[str]:
        record, name = self._variables["record", view.name], self._variables["function", view.name]
        columns = [Column(TYPES[item.type], True).line(item.name) for item in view.fields]
        inputs = self._inputs(view)
        arguments = [f"returns={record}"] if function.table else []
        arguments += [] if name == view.name else [f"called={quoted(view.name)}"]
        for given in function.inputs:
            origin, kind = inputs[given]
            arguments.append(f"{given}={self._feature_of(origin) if origin else f'app.request({TYPES[kind]})'}")
        takes = "rows: pl.DataFrame" if function.table else ", ".join(function.inputs)
        copy = self._variables.get(("copy", view.name), "")
        body = "\n".join(function.body).replace(function.called or "\0", copy).replace("RECORD", record)
        head = called("@app.on_demand", arguments)
        text = f"{head}\ndef {name}({takes}) -> {'pl.DataFrame' if function.table else record}:\n"
        text += "\n".join(f"    {line}" for line in body.splitlines())
        self.carried.append(
            Note(
                f"on-demand feature view {view.name}",
                "its pandas code in Polars" if view.mode == "pandas" else "its Python as it is",
                view.where,
            )
        )
        if view.stored:
            self.changed.append(
                Note(
                    f"on-demand feature view {view.name}",
                    "it is computed when it is asked for; Feast stores what it makes when rows are written",
                    view.where,
                )
            )
        before = [function.before.replace(function.called, copy, 1)] if function.before else []
        return [f"class {record}(Record):\n" + "\n".join(columns), *before, text]

    def _feature_of(self, origin: str) -> str:
        view, _, feature = origin.partition(":")
        variable = self._variables["view", view]
        return f'{variable}["{feature}"]' if feature.startswith("_") else f"{variable}.{feature}"

    # -- services -----------------------------------------------------------------------------------------------

    def _service(self, service: FeastService) -> str:
        """The text of a feature service, or "" where nothing of it is left."""
        inputs: list[str] = []
        taken: set[str] = set()
        missing: list[str] = []
        for part in service.parts:
            whole = self._whole(part.name)
            wanted = part.features or whole
            some = [name for name in wanted if name in whole and name not in taken]
            missing += [f"{part.name}:{name}" for name in wanted if name not in some] or ([] if whole else [part.name])
            taken.update(some)
            variable = self._variables.get(("view", part.name)) or self._variables.get(("function", part.name), "")
            if part.features is None and some == list(whole) and some:
                inputs.append(variable)
            elif part.name in self._views:
                inputs += [self._feature_of(f"{part.name}:{name}") for name in some]
            else:
                inputs += [f"{variable}.{name}" for name in some]
        what = f"feature service {service.name}"
        if not inputs:
            self.left.append(Note(what, "none of its features could be carried", service.where, _BY_HAND))
            return ""
        if missing:
            self.changed.append(
                Note(
                    what,
                    f"it is without {', '.join(missing)}: not carried, not kept online, or there twice",
                    service.where,
                )
            )
        self.carried.append(Note(what, where=service.where))
        name = quoted(service.name)
        head = f"{self._variables['service', service.name]} = app.feature_service"
        return called(head, [name, listed(inputs, 110 - len(head) - len(name))])

    def _whole(self, name: str) -> tuple[str, ...]:
        """The features of a view that a service may read."""
        held = self._views.get(name)
        if held is not None:
            return tuple(held.features) if held.view.online else ()
        return () if name in self._offline else self._outputs.get(name, ())

    # -- settings and report ------------------------------------------------------------------------------------

    def settings(self, module: str, target: str) -> str:
        """The text of mainspring.toml."""
        parts = [f'app = "{module}:app"']
        for name, table in self._tables.items():
            fine = any(
                column.fine
                for key, column in self._held.get(name, {}).items()
                if key in table.columns or key in (table.time, table.source.created)
            )
            text, left = place_of(table.source, self.repository, target, fine=fine)
            parts.append(text)
            self.left += left
            if fine:
                self.changed.append(
                    Note(
                        f"source {name}",
                        "its times have nanoseconds, which are cut off to microseconds",
                        table.source.where,
                    )
                )
        text, changed, unset = online_of(self.repository)
        self.changed += changed
        self.left += unset
        return "\n\n".join([*parts, *([text] if text else [])]) + "\n"

    def _told(self) -> None:
        """What is otherwise here, once each."""
        timed = [name for name, held in self._views.items() if held.view.ttl > timedelta(0)]
        if timed:
            self.changed.append(
                Note(
                    f"ttl of {', '.join(timed)}",
                    "online, a value older than it is null and EXPIRED; "
                    "Feast answers with the stale one and calls it present",
                )
            )
        ever = [name for name, held in self._views.items() if held.view.ttl == timedelta(0)]
        if ever:
            self.changed.append(
                Note(f"ttl of {', '.join(ever)}", "0 or none is for ever in Feast: left out, which is for ever here")
            )
        created = [name for name, table in self._tables.items() if table.source.created]
        if created:
            self.changed.append(
                Note(
                    f"created_timestamp_column of {', '.join(created)}",
                    "a row is trained on from that moment on; in Feast it only decides between rows of one event time",
                    fix="history(..., as_known=False) reads as Feast does",
                )
            )
        unread = [source for source in self.repository.sources if source.name not in self._tables]
        for source in unread:
            self.left.append(Note(f"source {source.name}", "no feature view that was carried reads it", source.where))
        if self.repository.auth != "no_auth":
            self.left.append(
                Note(
                    f"auth {self.repository.auth}",
                    "who may ask is not carried",
                    "feature_store.yaml",
                    "set server.keys, and callers",
                )
            )
