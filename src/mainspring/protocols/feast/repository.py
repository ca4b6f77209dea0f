"""Reading a Feast repository: ``feature_store.yaml`` and the definitions of its Python files, none of which is run."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from mainspring.errors import UsageError
from mainspring.protocols.feast.definitions import (
    FeastEntity,
    FeastField,
    FeastOnDemand,
    FeastPart,
    FeastRepository,
    FeastRequest,
    FeastService,
    FeastSource,
    FeastView,
    Note,
)
from mainspring.protocols.feast.expressions import DynamicError, External, Function, Made, Module, Modules, parse

__all__ = ["read_repository"]

_MOST_FILES = 2000
_MOST_BYTES = 4 << 20
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}
_VIEWS = {"FeatureView", "BatchFeatureView", "StreamFeatureView"}
_TABLES = {
    "AthenaSource",
    "BigQuerySource",
    "ClickhouseSource",
    "CouchbaseColumnarSource",
    "MsSqlServerSource",
    "OracleSource",
    "PostgreSQLSource",
    "RaySource",
    "RedshiftSource",
    "SnowflakeSource",
    "SparkSource",
    "TrinoSource",
}
_STREAMS = {"PushSource", "KafkaSource", "KinesisSource"}
_SOURCES = {"FileSource", *_TABLES, *_STREAMS}
_DECORATORS = {"on_demand_feature_view", "stream_feature_view", "batch_feature_view"}
_SILENT = {"Project", "Field", "LoggingConfig", "FileLoggingDestination", "Feature", "FeatureStore"}
_OLD_TYPES = {
    "DOUBLE": "Float64",
    "FLOAT": "Float32",
    "UNIX_TIMESTAMP": "UnixTimestamp",
    "PDF_BYTES": "PdfBytes",
    "IMAGE_BYTES": "ImageBytes",
    "TIME_UUID": "TimeUuid",
}

T = TypeVar("T")


def read_repository(folder: Path) -> FeastRepository:
    """What a repository defines, and what of it could not be read.

    Args:
        folder: that of ``feature_store.yaml``.

    Raises:
        UsageError: MS-2630, there is no such file; MS-2631, it cannot be read; MS-2632, more files than any
            repository has.
    """
    settings = _settings(folder)
    left: list[Note] = []
    files: dict[str, Module] = {}
    for path in _python_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            files[name] = parse(name, _text(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
            line = getattr(error, "lineno", None) or 1
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            left.append(Note(f"file {name}", f"it cannot be read: {why}", f"{name}:{line}", "mend it and import again"))
    project = settings.get("project")
    reader = _Reader(Modules(PurePosixPath(folder.as_posix()), files), left)
    reader.read()
    return FeastRepository(
        str(project),
        folder.as_posix(),
        _store(settings.get("online_store", "sqlite")),
        _store(settings.get("offline_store", "file")),
        str(_store(settings.get("auth", "no_auth")).get("type", "no_auth")),
        tuple(reader.sources.values()),
        tuple(reader.views.values()),
        tuple(reader.on_demand.values()),
        tuple(reader.services.values()),
        tuple(files),
        tuple(left),
    )


def _settings(folder: Path) -> Mapping[str, object]:
    path = folder / "feature_store.yaml"
    if not path.is_file():
        raise UsageError(
            f"{folder.name or folder} holds no feature_store.yaml",
            code="MS-2630",
            why="it is what a Feast repository is known by",
            fix="name the folder that feast apply is run in",
        )
    try:
        held = msgspec.yaml.decode(_text(path).encode())
        why = "" if isinstance(held, dict) else "it is no mapping"
    except (msgspec.DecodeError, UnicodeError, OSError, ValueError) as error:
        held, why = {}, str(error).strip().splitlines()[0]
    if not why and not (isinstance(held.get("project"), str) and held["project"]):
        why = "it names no project"
    if why:
        raise UsageError(
            "feature_store.yaml cannot be read",
            code="MS-2631",
            why=why,
            origin="feature_store.yaml",
            fix="mend it; it needs project: NAME",
        )
    return dict(held)


def _store(value: object) -> Mapping[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {"type": str(value)}


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
    return path.read_text("utf-8-sig")


def _python_files(folder: Path) -> list[Path]:
    """The repository's Python files, in order; what Feast skips, hidden folders and environments are left out."""
    ignored = _ignored(folder)
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED and name[0] != "." and not (Path(place) / name / "pyvenv.cfg").exists()
        )
        paths = [Path(place) / name for name in sorted(names) if name.endswith(".py")]
        found += [path for path in paths if path not in ignored]
        if len(found) > _MOST_FILES:
            raise UsageError(
                f"{folder.name or folder} holds more than {_MOST_FILES} Python files",
                code="MS-2632",
                why="a Feast repository is a folder of definitions",
                fix="name the folder of feature_store.yaml, and leave the rest out by .feastignore",
            )
    return found


def _ignored(folder: Path) -> set[Path]:
    """What ``.feastignore`` names, by patterns relative to the folder."""
    path = folder / ".feastignore"
    found: set[Path] = set()
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        pattern = line.partition("#")[0].strip().strip("/")
        if pattern and ".." not in pattern.split("/"):
            for match in folder.glob(pattern):
                found |= {match, *match.rglob("*.py")}
    return found


class _Reader:
    """The definitions of a repository's modules; what cannot be read goes to `left`."""

    def __init__(self, modules: Modules, left: list[Note]) -> None:
        self.modules = modules
        self.left = left
        self.sources: dict[str, FeastSource] = {}
        self.views: dict[str, FeastView] = {}
        self.on_demand: dict[str, FeastOnDemand] = {}
        self.services: dict[str, FeastService] = {}
        self._entities: dict[str, FeastEntity] = {}
        self._read: dict[int, object] = {}

    def read(self) -> None:
        """Read what is at the top of each file, in the order of files and lines."""
        for module in self.modules.files.values():
            seen: set[int] = set()
            for name, held in module.bindings.items():
                if isinstance(held, ast.FunctionDef):
                    seen |= self._function(module, held)
                elif isinstance(held, ast.expr):
                    seen |= self._top(module, name, held)
                elif isinstance(held, DynamicError):
                    seen |= self._unknown(module, name, held)
            self._dynamic(module, seen)

    def _top(self, module: Module, name: str, node: ast.expr) -> set[int]:
        """A variable: a definition, or something that definitions are made of. Which calls were looked at."""
        calls = {id(call) for call in ast.walk(node) if isinstance(call, ast.Call)}
        try:
            held = self.modules.bound(module, name, node)
            if isinstance(held, Made):
                self._definition(held)
        except DynamicError as error:
            if any(self._defines(module, call) for call in ast.walk(node)):
                self.left.append(_unread(f"{name}", error))
        return calls

    def _unknown(self, module: Module, name: str, why: DynamicError) -> set[int]:
        """A variable that is no definition for certain: told once, if one is made for it at the top of the file."""
        calls: set[int] = set()
        for statement in module.tree.body:
            mine = isinstance(statement, ast.Assign) and name in [ast.unparse(target) for target in statement.targets]
            if mine and any(self._defines(module, call) for call in ast.walk(statement)):
                calls |= {id(call) for call in ast.walk(statement) if isinstance(call, ast.Call)}
        if calls:
            self.left.append(_unread(name, why))
        return calls

    def _function(self, module: Module, node: ast.FunctionDef) -> set[int]:
        calls: set[int] = set()
        for decorator in node.decorator_list:
            called = self._called(module, decorator)
            if called in _DECORATORS:
                calls |= {id(call) for call in ast.walk(decorator) if isinstance(call, ast.Call)}
                if called == "on_demand_feature_view":
                    self._attempt(f"on-demand feature view {node.name}", lambda: self._of_function(module, node))
                else:
                    self._leave(
                        f"feature view {node.name}",
                        "its features are made by a function of a stream engine",
                        module.where(node),
                        "write it as a decorated view: docs/features.md",
                    )
        return calls

    def _dynamic(self, module: Module, seen: set[int]) -> None:
        """Definitions inside functions, loops and conditions: they are made when the file runs, if at all."""
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and id(node) not in seen and self._defines(module, node):
                kind = self._called(module, node)
                if kind not in ("PushSource", "FileSource") or not self._inside_expression(module, node):
                    self._leave(
                        _article(kind),
                        "it is made by code that has to run: a function, a loop, a condition or a list",
                        module.where(node),
                        "declare it in the app by hand",
                    )

    def _inside_expression(self, module: Module, node: ast.Call) -> bool:
        """Whether the call is an argument of another definition, which is told in its place."""
        return any(
            outer is not node and self._defines(module, outer) and any(inner is node for inner in ast.walk(outer))
            for outer in ast.walk(module.tree)
        )

    def _called(self, module: Module, node: ast.AST) -> str:
        """The last name of what of Feast's is called, or "" when it is not Feast's."""
        target = node.func if isinstance(node, ast.Call) else node
        try:
            held = self.modules.value(module, target) if isinstance(target, (ast.Name, ast.Attribute)) else None
        except DynamicError:
            return ""
        feast = isinstance(held, External) and held.name.startswith("feast")
        return held.name.rpartition(".")[2] if isinstance(held, External) and feast else ""

    def _defines(self, module: Module, node: ast.AST) -> bool:
        kind = self._called(module, node) if isinstance(node, ast.Call) else ""
        return kind in _VIEWS | _SOURCES or kind in (
            "Entity",
            "FeatureService",
            "LabelView",
            "OnDemandFeatureView",
            "RequestSource",
        )

    def _leave(self, what: str, why: str, where: str, fix: str) -> None:
        self.left.append(Note(what, why, where, fix))

    def _attempt(self, what: str, read: Callable[[], object]) -> None:
        try:
            read()
        except DynamicError as error:
            self.left.append(_unread(what, error))

    def _definition(self, made: Made) -> None:
        """Read what a variable holds, by the class that it is made with."""
        kind = made.kind
        if kind == "Entity":
            self._attempt(_named("entity", made), lambda: self._entity(made))
        elif kind in _VIEWS:
            self._attempt(_named("feature view", made), lambda: self._view(made))
        elif kind in _SOURCES:
            self._attempt(_named("source", made), lambda: self._source(made))
        elif kind == "RequestSource":
            self._attempt(_named("request source", made), lambda: self._request(made))
        elif kind == "FeatureService":
            self._attempt(_named("feature service", made), lambda: self._service(made))
        elif kind in ("LabelView", "OnDemandFeatureView") or kind.endswith(("View", "Source")):
            fix = "declare it in the app by hand"
            self._leave(_named(kind, made), f"there is nothing like {_article(kind)} here", made.where, fix)
        elif kind not in _SILENT and made.name.count(".") > 1 and made.name.rpartition(".")[0].endswith("View"):
            self._leave(made.variable or kind, f"it is made by .{kind}(...)", made.where, "declare it by hand")

    def _once(self, made: Made, read: Callable[[], T]) -> T:
        """Each call is one object, however many names it has."""
        key = id(made.node)
        if key not in self._read:
            try:
                self._read[key] = read()
            except DynamicError as error:
                self._read[key] = error
        held = self._read[key]
        if isinstance(held, DynamicError):
            raise held
        return held  # type: ignore[return-value]  # what this call was read as

    def _add(self, known: dict[str, T], name: str, value: T, what: str, made_at: str) -> T:
        """Keep a definition; a second one of the same name is told and left out."""
        if name in known and known[name] is not value:
            first = getattr(known[name], "where", "")
            raise DynamicError(f"its name is taken by {first}", made_at)
        known[name] = value
        return value

    # -- what there is ------------------------------------------------------------------------------------------

    def _entity(self, made: Made) -> FeastEntity:
        def read() -> FeastEntity:
            name = _string(made, "name", made.get("name", position=0))
            keys = made.get("join_keys") or (made.get("join_key") or name,)
            if not isinstance(keys, tuple) or len(keys) != 1:
                raise DynamicError("an entity has one join key", made.where)
            given = made.get("value_type")
            kind = "" if given is None else _type(given, made.where)
            entity = FeastEntity(name, _string(made, "join_keys", keys[0]), kind, made.where)
            return self._add(self._entities, name, entity, "entity", made.where)

        return self._once(made, read)

    def _fields(self, made: Made, keyword: str) -> tuple[FeastField, ...]:
        given = made.get(keyword) or ()
        if not isinstance(given, tuple):
            raise DynamicError(f"{keyword} is no list of fields", made.where)
        return tuple(_field(item, made.where) for item in given)

    def _request(self, made: Made) -> FeastRequest:
        return self._once(
            made,
            lambda: FeastRequest(_string(made, "name", made.get("name")), self._fields(made, "schema"), made.where),
        )

    def _source(self, made: Made) -> FeastSource:
        def read() -> FeastSource:
            source = self._streamed(made) if made.kind in _STREAMS else self._table(made)
            return self._add(self.sources, source.name, source, "source", made.where)

        return self._once(made, read)

    def _streamed(self, made: Made) -> FeastSource:
        batch = made.get("batch_source")
        if not isinstance(batch, Made) or batch.kind not in _SOURCES - _STREAMS:
            raise DynamicError("it has no batch source that tells its columns and times", made.where)
        held, name = self._table(batch), _string(made, "name", made.get("name"))
        if made.kind != "PushSource":
            fix = f'set [sources.{name}] url = "kafka://HOST:PORT/TOPIC" if its messages are JSON'
            why = f"{_article(made.kind)} is read here from its batch source only"
            self._leave(f"the stream of source {name}", why, made.where, fix)
        return replace(held, name=name, where=made.where, pushed=True)

    def _table(self, made: Made) -> FeastSource:
        def text(keyword: str) -> str:
            given = made.get(keyword)
            return "" if given is None else _string(made, keyword, given)

        mapping = made.get("field_mapping") or {}
        if not isinstance(mapping, dict):
            raise DynamicError("field_mapping is no dict", made.where)
        form = made.get("file_format") or made.get("reader_type")
        source = FeastSource(
            made.kind,
            "",
            made.where,
            time=text("timestamp_field") or text("event_timestamp_column"),
            created=text("created_timestamp_column"),
            mapping=tuple((str(column), str(name)) for column, name in mapping.items()),
            format=form.kind if isinstance(form, Made) else "" if form is None else str(form),
        )
        unknown: DynamicError | None = None
        try:
            path = made.get("path", position=0 if made.kind == "FileSource" else None)
            parts = [text(keyword) for keyword in ("database", "schema", "table", "table_ref") if made.has(keyword)]
            source = replace(
                source,
                path="" if path is None else str(path),
                table=".".join(part for part in parts if part),
                query=text("query"),
                endpoint=text("s3_endpoint_override"),
            )
        except DynamicError as error:
            unknown = error
        stem = PurePosixPath(source.path).stem if source.path else source.table.rpartition(".")[2]
        name = text("name") or made.variable or stem or made.kind
        if unknown is not None:
            self._leave(f"place of source {name}", unknown.why, unknown.where, f"set [sources.{name}] path or url")
        return replace(source, name=name, unknown=unknown is not None)

    def _view(self, made: Made) -> FeastView:
        return self._once(made, lambda: self._read_view(made))

    def _read_view(self, made: Made) -> FeastView:
        name = _string(made, "name", made.get("name", position=0))
        for keyword in ("udf", "feature_transformation", "aggregations", "sink_source"):
            if made.has(keyword) and not made.says_nothing(keyword):
                raise DynamicError(f"its features are made by {keyword}=, not read from its source", made.where)
        ttl = made.get("ttl") or timedelta(0)
        if not isinstance(ttl, timedelta) or ttl < timedelta(0):
            raise DynamicError("its ttl is no length of time", made.where)
        source = made.get("source") or made.get("stream_source") or made.get("batch_source")
        if not isinstance(source, Made) or source.kind not in _SOURCES:
            raise DynamicError("it is made of no source that is read here", made.where)
        given = made.get("entities") or ()
        if not isinstance(given, tuple):
            raise DynamicError("entities is no list", made.where)
        view = FeastView(
            name,
            tuple(self._whose(item, made) for item in given),
            self._fields(made, "schema") or self._fields(made, "features"),
            ttl,
            bool(made.get("online", True)),
            self._source(source),
            made.where,
        )
        return self._add(self.views, name, view, "feature view", made.where)

    def _whose(self, item: object, made: Made) -> FeastEntity:
        if isinstance(item, str) and item in self._entities:
            return self._entities[item]
        if isinstance(item, Made) and item.kind == "Entity":
            return self._entity(item)
        raise DynamicError(
            f"{item!r} is no entity of the repository" if isinstance(item, str) else "one of its entities is not known",
            made.where,
        )

    def _of_function(self, module: Module, node: ast.FunctionDef) -> FeastOnDemand:
        if id(node) in self._read:
            held = self._read[id(node)]
            if isinstance(held, DynamicError):
                raise held
            return held  # type: ignore[return-value]  # what this function was read as
        try:
            found = self._read_on_demand(module, node)
        except DynamicError as error:
            self._read[id(node)] = error
            raise
        self._read[id(node)] = found
        return found

    def _read_on_demand(self, module: Module, node: ast.FunctionDef) -> FeastOnDemand:
        where = module.where(node)
        if len(node.decorator_list) != 1:
            raise DynamicError("it has other decorators too", where)
        made = self.modules.value(module, node.decorator_list[0])
        if not isinstance(made, Made):
            raise DynamicError("its decorator is called without sources and schema", where)
        given = made.get("sources") or ()
        items = tuple(given.values()) if isinstance(given, dict) else given
        if not isinstance(items, tuple):
            raise DynamicError("sources is no list", where)
        requests = [item for item in items if isinstance(item, Made) and item.kind == "RequestSource"]
        found = FeastOnDemand(
            str(made.get("name") or node.name),
            tuple(self._part(item, where) for item in items if item not in requests),
            tuple(self._request(item) for item in requests),
            self._fields(made, "schema"),
            str(made.get("mode", "pandas")),
            bool(made.get("singleton", False)),
            Function(module, node),
            where,
            bool(made.get("write_to_online_store", False)),
        )
        return self._add(self.on_demand, found.name, found, "on-demand feature view", where)

    def _part(self, item: object, where: str) -> FeastPart:
        """A view, an on-demand view, or some features of one."""
        if isinstance(item, Function):
            return FeastPart(self._of_function(item.module, item.node).name)
        if isinstance(item, Made) and item.kind in _VIEWS:
            return FeastPart(self._view(item).name)
        if isinstance(item, Made) and item.kind == "[]":
            names = self.modules.value(item.module, item.node.args[1])
            if isinstance(names, tuple) and all(isinstance(name, str) for name in names):
                whole = self._part(self.modules.value(item.module, item.node.func), where)
                return FeastPart(whole.name, tuple(str(name) for name in names))
        if isinstance(item, Made):
            raise DynamicError(
                f"it reads .{item.kind}(...) of a view" if "View." in item.name else f"it reads {_article(item.kind)}",
                item.where,
            )
        raise DynamicError("one of the views that it reads is not known", where)

    def _service(self, made: Made) -> FeastService:
        def read() -> FeastService:
            given = made.get("features") or ()
            if not isinstance(given, tuple):
                raise DynamicError("features is no list", made.where)
            name, parts = _string(made, "name", made.get("name", position=0)), []
            for item in given:
                try:
                    parts.append(self._part(item, made.where))
                except DynamicError as error:
                    self.left.append(_unread(f"a part of feature service {name}", error))
            found = FeastService(name, tuple(parts), made.where)
            return self._add(self.services, name, found, "feature service", made.where)

        return self._once(made, read)


def _unread(what: str, error: DynamicError) -> Note:
    return Note(what, error.why, error.where, "declare it in the app by hand")


def _article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIO' else 'a'} {kind}"


def _named(what: str, made: Made) -> str:
    try:
        name = made.get("name", position=0)
    except DynamicError:
        name = None
    return f"{what} {name if isinstance(name, str) else made.variable}"


def _string(made: Made, keyword: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise DynamicError(f"its {keyword} is no text", made.where)
    return value


def _field(item: object, where: str) -> FeastField:
    if not isinstance(item, Made) or item.kind not in ("Field", "Feature"):
        raise DynamicError("its schema holds something that is no Field", where)
    length, doc = item.get("vector_length", 0), _optional(item, "description")
    return FeastField(
        _string(item, "name", item.get("name", position=0)),
        _type(item.get("dtype", position=1), item.where),
        length if isinstance(length, int) else 0,
        doc,
        item.where,
    )


def _optional(made: Made, keyword: str) -> str:
    """A text that nothing depends on, or "" where it is not known."""
    try:
        held = made.get(keyword)
    except DynamicError:
        return ""
    return held if isinstance(held, str) else ""


def _type(value: object, where: str) -> str:
    """A type as Feast spells it."""
    if isinstance(value, External) and value.name.startswith("feast"):
        name = value.name.rpartition(".")[2]
        if name.endswith("_LIST") and "ValueType" in value.name:
            return f"Array({_old(name.removesuffix('_LIST'))})"
        return _old(name) if "ValueType" in value.name else name
    if isinstance(value, Made) and value.kind in ("Array", "Set"):
        return f"{value.kind}({_type(next(_arguments(value), None), where)})"
    if isinstance(value, Made) and value.kind == "Struct":
        return "Struct"
    raise DynamicError("a type is none of Feast's", where)


def _old(name: str) -> str:
    return _OLD_TYPES.get(name) or name.title()


def _arguments(made: Made) -> Iterator[object]:
    for node in (*made.node.args, *(given.value for given in made.node.keywords)):
        yield made.modules.value(made.module, node)
