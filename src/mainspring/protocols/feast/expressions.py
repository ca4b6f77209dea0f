"""What Python files say, read as text: constants, names across files, and calls as they are written; nothing is run."""

from __future__ import annotations

import ast
import builtins
import operator
import posixpath
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TypeAlias

import msgspec

__all__ = ["DynamicError", "External", "Function", "Made", "Module", "Modules", "parse"]

_CHANGING = frozenset(
    ("append", "extend", "insert", "update", "pop", "remove", "clear", "setdefault", "sort", "reverse", "add")
)
_OPERATORS: Mapping[type[ast.operator], Callable[[object, object], object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_MOST = 100_000
"""The longest text or list that an expression may make: ``"a" * 10**12`` is refused."""


class DynamicError(Exception):
    """A value is not known before the file runs.

    Args:
        why: what makes it so, as a clause.
        where: the line, as ``driver.py:12``.
    """

    def __init__(self, why: str, where: str) -> None:
        super().__init__(why)
        self.why = why
        self.where = where


class External(msgspec.Struct, frozen=True):
    """Something that no file of the repository defines, by its full name: ``feast.types.Int64``."""

    name: str


_Bound: TypeAlias = ast.expr | ast.FunctionDef | External | DynamicError


class Module(msgspec.Struct, frozen=True):
    """A file: its text, its tree, and what its top level binds.

    Attributes:
        path: relative to the repository, with slashes.
        bindings: by name, an expression, a function, the full name of what is imported, or why it is not known.
        stars: modules whose names are all imported.
    """

    path: str
    text: str
    tree: ast.Module
    bindings: Mapping[str, _Bound]
    stars: tuple[str, ...]

    def where(self, node: ast.AST) -> str:
        """The line of a node: ``driver.py:12``."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


class Function(msgspec.Struct, frozen=True, eq=False):
    """A function at the top of a file."""

    module: Module
    node: ast.FunctionDef


class Made(msgspec.Struct, frozen=True, eq=False):
    """A call of something external, whose arguments are read when they are asked for.

    Attributes:
        name: the full name of what is called: ``feast.FeatureView``.
        variable: the variable that holds what it returns, or "".
    """

    name: str
    module: Module
    node: ast.Call
    variable: str
    modules: Modules

    @property
    def kind(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def where(self) -> str:
        """The line of the call."""
        return self.module.where(self.node)

    def has(self, keyword: str) -> bool:
        """Whether the argument is given, by its name."""
        return any(given.arg == keyword for given in self.node.keywords)

    def says_nothing(self, keyword: str) -> bool:
        """Whether the argument is written as None or an empty list."""
        given = next((given.value for given in self.node.keywords if given.arg == keyword), None)
        return given is None or ast.unparse(given) in ("None", "[]", "()")

    def get(self, keyword: str, default: object = None, *, position: int | None = None) -> object:
        """An argument by its name, or by its position where that is told.

        Raises:
            DynamicError: it is not known before the file runs, or is passed by ``**``.
        """
        for given in self.node.keywords:
            if given.arg == keyword:
                return self.modules.value(self.module, given.value)
        if position is not None and position < len(self.node.args):
            return self.modules.value(self.module, self.node.args[position])
        if any(given.arg is None for given in self.node.keywords):
            raise DynamicError("its arguments are passed by **", self.where)
        return default


def parse(path: str, text: str) -> Module:
    """A file as a module.

    Raises:
        SyntaxError: it is no Python.
        ValueError: it holds a null byte.
        RecursionError: it is nested too deep.
    """
    binder = _Binder(path)
    tree = ast.parse(text, path)
    for statement in tree.body:
        binder.take(statement)
    return Module(path, text, tree, binder.bindings, tuple(binder.stars))


class _Binder:
    """What the statements at the top of a file bind."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.bindings: dict[str, _Bound] = {}
        self.stars: list[str] = []

    def take(self, statement: ast.stmt) -> None:
        """Bind what a statement sets: to what it says, or to why that is not known."""
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self._import(statement)
        elif isinstance(statement, ast.FunctionDef):
            self._bind(statement.name, statement, statement)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is not None:
                self._bind(statement.target.id, statement.value, statement)
        elif isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
            for target in statement.targets:
                assert isinstance(target, ast.Name)
                self._bind(target.id, statement.value, statement)
        elif not _is_main(statement):
            for name, why, line in _touched(statement):
                self.bindings[name] = DynamicError(why, f"{self._path}:{line}")

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        origin = _from(self._path, statement) if isinstance(statement, ast.ImportFrom) else ""
        for item in statement.names:
            if not origin and isinstance(statement, ast.Import):
                self._bind(item.asname or item.name.partition(".")[0], _imported(item), statement)
            elif item.name == "*":
                self.stars.append(origin)
            else:
                self._bind(item.asname or item.name, External(f"{origin}.{item.name}"), statement)

    def _bind(self, name: str, value: _Bound, at: ast.stmt) -> None:
        again = name in self.bindings and self.bindings[name] != value
        where = f"{self._path}:{at.lineno}"
        self.bindings[name] = DynamicError(f"{name} is set more than once", where) if again else value


def _imported(item: ast.alias) -> External:
    return External(item.name if item.asname else item.name.partition(".")[0])


def _from(path: str, statement: ast.ImportFrom) -> str:
    """The module that is imported from, without leading points."""
    if not statement.level:
        return statement.module or ""
    package = PurePosixPath(path).parts[: -statement.level]
    return ".".join((*package, *([statement.module] if statement.module else [])))


def _is_main(statement: ast.stmt) -> bool:
    """``if __name__ == "__main__":``, which Feast does not run."""
    test = statement.test if isinstance(statement, ast.If) else None
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _touched(statement: ast.stmt) -> Iterator[tuple[str, str, int]]:
    """The names that a statement sets or changes while it runs, and how."""
    words = {ast.ClassDef: "class", ast.AsyncFunctionDef: "async def"}
    if isinstance(statement, (ast.ClassDef, ast.AsyncFunctionDef)):
        yield statement.name, f"it is a {words[type(statement)]} of the repository's own", statement.lineno
        return
    block = type(statement).__name__.lower()
    plain = isinstance(statement, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete))
    for node in ast.walk(statement):
        line = getattr(node, "lineno", statement.lineno)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield (
                node.id,
                f"{node.id} is set by a statement that has to run" if plain else (f"{node.id} is set inside a {block}"),
                line,
            )
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, f"{node.name} is defined inside a {block}", line
        elif isinstance(node, ast.alias):
            name = node.asname or node.name.partition(".")[0]
            yield name, f"{name} is imported inside a {block}", line
        elif (changed := _changed(node)) is not None:
            yield changed, f"{changed} is changed after it is set", line


def _changed(node: ast.AST) -> str | None:
    """The name of what ``a[0] = ..``, ``a.b = ..`` and ``a.append(..)`` change."""
    if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
        return node.value.id if isinstance(node.value, ast.Name) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
        return node.func.value.id if isinstance(node.func.value, ast.Name) else None
    return None


class Modules(msgspec.Struct, frozen=True):
    """The files of a repository, whose names may stand for one another's.

    Attributes:
        folder: the repository's folder, as its files' ``__file__`` begins.
        files: the modules by path.
    """

    folder: PurePosixPath
    files: Mapping[str, Module]
    _known: dict[tuple[str, str], object] = msgspec.field(default_factory=dict)
    _open: set[tuple[str, str]] = msgspec.field(default_factory=set)
    _slices: dict[int, ast.Call] = msgspec.field(default_factory=dict)

    def bound(self, module: Module, name: str, at: ast.AST) -> object:
        """What a name of a module stands for.

        Raises:
            DynamicError: it is not known before the file runs.
        """
        key = (module.path, name)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            raise DynamicError(f"{name} is made from itself", module.where(at))
        self._open.add(key)
        try:
            found = self._known[key] = self._bound(module, name, at)
        finally:
            self._open.discard(key)
        return found

    def _bound(self, module: Module, name: str, at: ast.AST) -> object:
        held = module.bindings.get(name)
        if isinstance(held, DynamicError):
            raise held
        if isinstance(held, ast.FunctionDef):
            return Function(module, held)
        if isinstance(held, External):
            return self._external(held.name, module, at)
        if held is not None:
            return self.value(module, held, name)
        if name == "__file__":
            return str(self.folder / module.path)
        for star in module.stars:
            other = self._file(star)
            if other is None and star.partition(".")[0] == "feast" and not hasattr(builtins, name):
                return External(f"{star}.{name}")
            if other is not None and name in other.bindings:
                return self.bound(other, name, at)
        if hasattr(builtins, name):
            return External(f"builtins.{name}")
        raise DynamicError(f"{name} is defined nowhere in the repository", module.where(at))

    def _external(self, name: str, module: Module, at: ast.AST) -> object:
        """What an imported name stands for: another file's, or something external."""
        origin, _, last = name.rpartition(".")
        other = self._file(origin)
        if other is None:
            return External(name)
        if other is module or self._file(name) is not None:
            return External(name)
        if last in other.bindings or other.stars:
            return self.bound(other, last, at)
        raise DynamicError(f"{other.path} has no {last}", module.where(at))

    def _file(self, name: str) -> Module | None:
        """The repository's file of a module's name, with the repository's own folder before it or not."""
        parts = name.split(".") if name else []
        for tail in (parts, parts[1:] if parts[:1] == [self.folder.name] else []):
            path = "/".join(tail)
            found = self.files.get(f"{path}.py") or self.files.get(f"{path}/__init__.py")
            if found is not None and tail:
                return found
        return None

    def value(self, module: Module, node: ast.expr, variable: str = "") -> object:
        """What an expression says.

        Raises:
            DynamicError: it is not known before the file runs.
        """
        try:
            return self._value(module, node, variable)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise DynamicError(f"{_shown(node)} cannot be worked out: {error}", module.where(node)) from None
        except RecursionError:
            raise DynamicError("it is nested too deep", module.where(node)) from None

    def _value(self, module: Module, node: ast.expr, variable: str) -> object:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.bound(module, node.id, node)
        if isinstance(node, (ast.List, ast.Tuple)):
            return tuple(self.value(module, item) for item in node.elts)
        if isinstance(node, ast.Dict) and None not in node.keys:
            keys = [self.value(module, key) for key in node.keys if key is not None]
            return dict(zip(keys, (self.value(module, item) for item in node.values), strict=True))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return operator.neg(self.value(module, node.operand))  # type: ignore[arg-type]  # a TypeError is caught
        if isinstance(node, ast.BinOp):
            return self._operation(module, node)
        if isinstance(node, ast.Call):
            return self._call(module, node, variable)
        return self._part(module, node)

    def _part(self, module: Module, node: ast.expr) -> object:
        if isinstance(node, ast.JoinedStr):
            return "".join(self._piece(module, piece) for piece in node.values)
        if isinstance(node, ast.Attribute):
            return self._attribute(module, node)
        if isinstance(node, ast.Subscript):
            held = self.value(module, node.value)
            if isinstance(held, (Made, Function)):
                name = held.name if isinstance(held, Made) else "feast"
                return Made(f"{name}.[]", module, self._slice(node), "", self)
            return held[self.value(module, node.slice)]  # type: ignore[index]  # a TypeError is caught
        raise DynamicError(f"{_shown(node)} has to run", module.where(node))

    def _slice(self, node: ast.Subscript) -> ast.Call:
        """``view[["a"]]`` as a call, the same one each time: of the view, with the names as its second argument."""
        return self._slices.setdefault(id(node), _sliced(node))

    def _operation(self, module: Module, node: ast.BinOp) -> object:
        left, right = self.value(module, node.left), self.value(module, node.right)
        if isinstance(left, PurePosixPath) and isinstance(node.op, ast.Div):
            return left / str(right)
        work = _OPERATORS.get(type(node.op))
        plain = (int, float, str, tuple, timedelta)
        if work is None or not isinstance(left, plain) or not isinstance(right, plain):
            raise DynamicError(f"{_shown(node)} has to run", module.where(node))
        if _size(left, node.op, right) > _MOST or (isinstance(left, str) and isinstance(node.op, ast.Mod)):
            raise DynamicError(f"{_shown(node)} may be too long", module.where(node))
        return work(left, right)

    def _piece(self, module: Module, piece: ast.expr) -> str:
        if isinstance(piece, ast.FormattedValue):
            if piece.format_spec is not None or piece.conversion != -1:
                raise DynamicError(f"{_shown(piece.value)} is formatted", module.where(piece))
            held = self.value(module, piece.value)
        else:
            held = self.value(module, piece)
        if not isinstance(held, (str, int, float, PurePosixPath)):
            raise DynamicError(f"{_shown(piece)} is no text", module.where(piece))
        if isinstance(held, str) and len(held) > _MOST:
            raise DynamicError("a text is too long", module.where(piece))
        return str(held)

    def _attribute(self, module: Module, node: ast.Attribute) -> object:
        held = self.value(module, node.value)
        if isinstance(held, External):
            return self._external(f"{held.name}.{node.attr}", module, node)
        if isinstance(held, PurePosixPath) and node.attr in ("parent", "name", "stem"):
            return getattr(held, node.attr)
        if isinstance(held, Made) and node.attr in ("name",):
            return held.get("name")
        raise DynamicError(f"{_shown(node)} has to run", module.where(node))

    def _call(self, module: Module, node: ast.Call, variable: str) -> object:
        if isinstance(node.func, ast.Attribute):
            try:
                held = self.value(module, node.func.value)
            except DynamicError:
                held = None
            if isinstance(held, PurePosixPath) and node.func.attr in ("resolve", "absolute", "as_posix"):
                return str(held) if node.func.attr == "as_posix" else held
            if isinstance(held, Made):
                return Made(f"{held.name}.{node.func.attr}", module, node, variable, self)
        called = self.value(module, node.func)
        if not isinstance(called, External):
            raise DynamicError(f"{_shown(node.func)}(...) has to run", module.where(node))
        if called.name.partition(".")[0] == "feast" or called.name.startswith("feast_"):
            return Made(called.name, module, node, variable, self)
        return self._known_call(module, node, called.name)

    def _known_call(self, module: Module, node: ast.Call, name: str) -> object:
        """The few functions of the standard library that paths and lengths of time are written with."""
        if name not in _FUNCTIONS or any(given.arg is None for given in node.keywords):
            raise DynamicError(f"{_shown(node.func)}(...) is called when the file runs", module.where(node))
        arguments = [self.value(module, item) for item in node.args]
        keywords = {str(given.arg): self.value(module, given.value) for given in node.keywords}
        return _FUNCTIONS[name](*arguments, **keywords)


_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "datetime.timedelta": timedelta,
    "os.path.join": lambda *parts: posixpath.join(*(str(part) for part in parts)),
    "os.path.dirname": lambda path: posixpath.dirname(str(path)),
    "os.path.abspath": lambda path: posixpath.normpath(str(path)),
    "os.path.realpath": lambda path: posixpath.normpath(str(path)),
    "pathlib.Path": PurePosixPath,
    "builtins.str": lambda value: str(value) if isinstance(value, (str, int, PurePosixPath)) else _no_text(value),
}


def _size(left: object, work: ast.operator, right: object) -> int:
    """How long the text or list becomes that an operation makes."""
    long = [len(item) if isinstance(item, (str, tuple)) else 0 for item in (left, right)]
    if isinstance(work, ast.Mult):
        return max(long[0] * right if isinstance(right, int) else 0, long[1] * left if isinstance(left, int) else 0)
    return sum(long)


def _no_text(value: object) -> str:
    raise TypeError(f"{type(value).__name__} is no text")


def _sliced(node: ast.Subscript) -> ast.Call:
    """``view[["a"]]`` as a call that takes the view and the names."""
    return ast.copy_location(ast.Call(node.value, [node.value, node.slice], []), node)


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
