"""On-demand functions of Feast as functions here: arithmetic on pandas columns in Polars, Python as it is."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Mapping

import msgspec

from mainspring.protocols.feast.definitions import FeastOnDemand
from mainspring.protocols.feast.expressions import DynamicError, External, Module

__all__ = ["Carried", "carry"]

_NUMBERS = {"Int32", "Int64", "Float32", "Float64"}
_DTYPES = {
    "Int32": "pl.Int64",
    "Int64": "pl.Int64",
    "Float32": "pl.Float64",
    "Float64": "pl.Float64",
    "String": "pl.String",
    "Bool": "pl.Boolean",
    "Bytes": "pl.Binary",
}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)


class Carried(msgspec.Struct, frozen=True):
    """A function that can be called here and means the same.

    Attributes:
        inputs: the features and request fields that it takes, in order.
        table: whether it takes a DataFrame, else scalars.
        body: its statements, each of which may be of several lines; RECORD stands for what it returns.
        before: the code that it calls, as it was written, under the name that `called` says.
        called: the name of the copied function, or "".
        imports: lines of imports; constants: lines of constants, both by the name that they bind.
    """

    inputs: tuple[str, ...]
    table: bool
    body: tuple[str, ...]
    before: str = ""
    called: str = ""
    imports: Mapping[str, str] = msgspec.field(default_factory=dict)
    constants: Mapping[str, str] = msgspec.field(default_factory=dict)


def carry(view: FeastOnDemand, inputs: Mapping[str, str]) -> Carried:
    """A function that makes of the same inputs the same features.

    Args:
        view: the on-demand view.
        inputs: the type of each feature and request field that it may read.

    Raises:
        DynamicError: it cannot be called faithfully, and why.
    """
    function, where = view.function.node, view.where
    if len(function.args.args) != 1 or function.args.vararg or function.args.kwarg or function.args.kwonlyargs:
        raise DynamicError("its function does not take one parameter, its inputs", where)
    outputs = tuple(item.name for item in view.fields)
    if view.mode == "pandas":
        return _arithmetic(view, inputs, outputs)
    if view.mode == "python":
        return _copied(view, inputs, outputs)
    raise DynamicError(f"its mode is {view.mode}; functions of pandas and python are read", where)


# -- pandas -----------------------------------------------------------------------------------------------------


class _Columns:
    """The columns of a pandas function, as expressions of Polars over its inputs."""

    def __init__(self, view: FeastOnDemand, inputs: Mapping[str, str]) -> None:
        self._module: Module = view.function.module
        self._parameter = view.function.node.args.args[0].arg
        self._types = inputs
        self._tables: set[str] = set()
        self._values: dict[str, ast.expr] = {}
        self.made: dict[str, ast.expr] = {}
        self.used: dict[str, None] = {}
        self.done = False

    def statement(self, node: ast.stmt) -> None:
        """Take in a statement of the body."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and node.value.id in self._tables:
            self.done = True
            return
        if self.done or not isinstance(node, ast.Assign) or len(node.targets) != 1:
            raise self._unlike(node)
        target = node.targets[0]
        if isinstance(target, ast.Name):
            if self._is_new_table(node.value) and not self._tables:
                self._tables.add(target.id)
            elif target.id != self._parameter and target.id not in self._tables:
                self._values[target.id] = self._expression(node.value)
            else:
                raise self._unlike(node)
        elif (name := self._column(target, self._tables)) is not None:
            self.made[name] = self._expression(node.value)
        else:
            raise self._unlike(node)

    def _is_new_table(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Call)
            and not node.args
            and not node.keywords
            and ast.unparse(node.func) in ("pd.DataFrame", "pandas.DataFrame", "DataFrame")
        )

    def _column(self, node: ast.expr, tables: set[str]) -> str | None:
        """The name in ``table["name"]``."""
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in tables):
            return None
        return node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else None

    def _expression(self, node: ast.expr) -> ast.expr:
        """A column as an expression of Polars; a number alone is no column."""
        made, of_rows = self._term(node)
        if not of_rows:
            raise self._unlike(node)
        return made

    def _term(self, node: ast.expr) -> tuple[ast.expr, bool]:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node, False
        if isinstance(node, ast.Name) and node.id in self._values:
            return self._values[node.id], True
        if (name := self._column(node, {self._parameter})) is not None:
            return self._input(name, node), True
        if (name := self._column(node, self._tables)) is not None and name in self.made:
            return self.made[name], True
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner, of_rows = self._term(node.operand)
            return ast.UnaryOp(node.op, inner), of_rows
        if isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
            left, right = self._term(node.left), self._term(node.right)
            return ast.BinOp(left[0], node.op, right[0]), left[1] or right[1]
        raise self._unlike(node)

    def _input(self, name: str, node: ast.expr) -> ast.expr:
        if name not in self._types:
            raise DynamicError(
                f"it reads {name!r}, which is neither a feature nor a request field", self._module.where(node)
            )
        if self._types[name] not in _NUMBERS:
            raise DynamicError(
                f"it computes with {name!r}, which is {self._types[name]} and no number", self._module.where(node)
            )
        self.used[name] = None
        return ast.Name(f'pl.col("{name}")', ast.Load())

    def _unlike(self, node: ast.AST) -> DynamicError:
        return DynamicError(
            f"its pandas code is more than arithmetic: {ast.unparse(node).splitlines()[0][:60]}",
            self._module.where(node),
        )


def _arithmetic(view: FeastOnDemand, inputs: Mapping[str, str], outputs: tuple[str, ...]) -> Carried:
    columns = _Columns(view, inputs)
    for statement in view.function.node.body:
        columns.statement(statement)
    missing = [name for name in outputs if name not in columns.made]
    if missing or not columns.done:
        raise DynamicError(f"its function does not make {', '.join(missing) or 'a table that it returns'}", view.where)
    made = [f"{name}={ast.unparse(columns.made[name])}" for name in outputs]
    text = "\n".join(("return rows.select(", *(f"    {line}," for line in made), ")"))
    return Carried(tuple(columns.used), True, (text,), imports={"pl": "import polars as pl"})


# -- Python -----------------------------------------------------------------------------------------------------


def _copied(view: FeastOnDemand, inputs: Mapping[str, str], outputs: tuple[str, ...]) -> Carried:
    """The function itself, and a function here that hands it what Feast would."""
    node, module = view.function.node, view.function.module
    used = _read_of(view, inputs)
    imports, constants = _reached(node, module)
    source = ast.get_source_segment(module.text, node) or ""
    called = f"_{node.name}_of_feast"
    before = re.sub(rf"^def\s+{re.escape(node.name)}\b", f"def {called}", source, count=1)
    if view.singleton:
        given = (f'        "{name}": {name},' for name in used)
        taken = (f'    {name}=made["{name}"],' for name in outputs)
        body: tuple[str, ...] = (
            "\n".join((f"made = {called}(", "    {", *given, "    }", ")")),
            "\n".join(("return RECORD(", *taken, ")")),
        )
    else:
        imports["pl"] = "import polars as pl"
        columns = [f'    pl.Series("{name}", made["{name}"], dtype={kind}),' for name, kind in _dtypes(view)]
        made = "\n".join(("return pl.DataFrame(", "    [", *(f"    {line}" for line in columns), "    ]", ")"))
        body = (f"made = {called}(rows.to_dict(as_series=False))", made)
    return Carried(used, not view.singleton, body, before, called, imports, constants)


def _dtypes(view: FeastOnDemand) -> list[tuple[str, str]]:
    unknown = [item.name for item in view.fields if item.type not in _DTYPES]
    if unknown:
        raise DynamicError(f"its feature {unknown[0]} has no type that a column of Polars is made with", view.where)
    return [(item.name, _DTYPES[item.type]) for item in view.fields]


def _read_of(view: FeastOnDemand, inputs: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs that a function reads by name; all of them where it hands them on."""
    node = view.function.node
    parameter = node.args.args[0].arg
    by_name: dict[str, ast.AST] = {}
    named: set[int] = set()
    for inner in ast.walk(node):
        held, key = _looked_up(inner)
        if isinstance(held, ast.Name) and held.id == parameter and isinstance(key, ast.Constant):
            by_name[str(key.value)] = inner
            named.add(id(held))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id == parameter and id(inner) not in named:
            return tuple(inputs)
    for name, inner in by_name.items():
        if name not in inputs:
            raise DynamicError(
                f"it reads {name!r}, which is neither a feature nor a request field", view.function.module.where(inner)
            )
    return tuple(name for name in inputs if name in by_name)


def _looked_up(node: ast.AST) -> tuple[ast.AST | None, ast.AST | None]:
    """What of what: ``inputs["a"]`` and ``inputs.get("a")``."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        return node.value, node.slice
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return node.func.value, node.args[0] if node.args else None
    return None, None


def _reached(node: ast.FunctionDef, module: Module) -> tuple[dict[str, str], dict[str, str]]:
    """The imports and constants that a function needs, by the name that it knows them by."""
    imports: dict[str, str] = {}
    constants: dict[str, str] = {}
    for name, line in _free(node):
        held = module.bindings.get(name)
        where = f"{module.path}:{line}"
        if isinstance(held, External):
            imports[name] = _import(name, held.name, where)
        elif isinstance(held, ast.Constant):
            constants[name] = f"{name} = {ast.unparse(held)}"
        elif held is not None or not hasattr(builtins, name):
            raise DynamicError(f"it calls or reads {name}, which is neither a constant nor imported", where)
    return imports, constants


def _import(name: str, full: str, where: str) -> str:
    origin, _, last = full.rpartition(".")
    if full.partition(".")[0] not in sys.stdlib_module_names | {"numpy"}:
        raise DynamicError(f"it needs {full}, which is no part of Python or of mainspring", where)
    renamed = "" if name == last else f" as {name}"
    return f"from {origin} import {last}{renamed}" if origin else f"import {full}{renamed}"


def _free(node: ast.FunctionDef) -> Iterator[tuple[str, int]]:
    """Names that a function reads and does not set, with a line; its own name is one of them if it calls itself."""
    own = {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
    own |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load)}
    for inner in ast.walk(node):
        if inner is not node and isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
            own.add(inner.name)
        elif isinstance(inner, ast.alias):
            own.add(inner.asname or inner.name.partition(".")[0])
        elif isinstance(inner, ast.ExceptHandler) and inner.name:
            own.add(inner.name)
    seen: set[str] = set()
    skipped = {id(part) for decorator in node.decorator_list for part in ast.walk(decorator)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and id(inner) not in skipped and inner.id not in own | seen:
            seen.add(inner.id)
            yield inner.id, inner.lineno
