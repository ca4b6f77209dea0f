"""What a piece of code can reach, piece by piece.

A piece has a label, ``module:name``: a function, a class, a global of another kind, or a whole module that is passed
around (``module:*``). Its content is its own code and values, in which other pieces stand by their labels; so pieces
may be visited in any order, and cycles end. What has no name of its own (lambdas, inner functions, wrappers,
instances) is written where it is used.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import msgspec

from mainspring.declare.app import App
from mainspring.declare.declaration import Declaration, kind_of, name_of, spec_of
from mainspring.declare.origin import Origin
from mainspring.errors import DeclarationError
from mainspring.plan.bytecode import Chain, Import, parse
from mainspring.plan.distributions import is_project_module
from mainspring.plan.encoding import Encoder, Unencodable, digest, encode, label_of, module_name, tagged
from mainspring.plan.remarks import Remark, of_function, of_value

__all__ = ["Piece", "Reach"]

_BUILTINS = vars(sys.modules["builtins"])
_NAMING = frozenset({"__module__", "__name__", "__qualname__", "__doc__", "__wrapped__"})
_FACTS = frozenset("__file__ __builtins__ __spec__ __loader__ __cached__ __path__ __package__ __doc__".split())  # noqa: SIM905
"""Globals that say where a module lies or how it was found, not what it does."""

_SKIPPED = frozenset(
    "__doc__ __module__ __qualname__ __dict__ __weakref__ __firstlineno__ __static_attributes__ "  # noqa: SIM905
    "__annotations__ __annotate__ __annotate_func__ __annotations_cache__ __slotnames__ _abc_impl".split()
)
"""Members of classes that are names and lines, that caches leave behind, or (annotations) that are followed apart."""

_DESCRIPTORS = (
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
_PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__")


class Piece(msgspec.Struct, frozen=True):
    """A labelled piece of what is reached.

    Attributes:
        digest: of its content.
        labels: of the pieces that it uses.
        packages: the top-level modules outside the project that it uses.
        remarks: what is worth saying about its code, which is not in its content.
    """

    digest: str
    labels: frozenset[str]
    packages: frozenset[str]
    remarks: frozenset[Remark] = frozenset()


class Reach(msgspec.Struct):
    """Follows values; pieces once followed are kept, so one `Reach` serves while no module changes.

    Args:
        load: imports a module by name, for imports in bodies.
    """

    load: Callable[[str], ModuleType]
    pieces: dict[str, Piece] = msgspec.field(default_factory=dict)

    def follow(self, value: object) -> Piece:
        """A value as a piece of its own; all that it reaches is added to the pieces.

        Raises:
            Unencodable: MS-1110, it reaches a lock, an open file or the like.
        """
        waiting: dict[str, tuple[object, _Writer]] = {}
        entry = _Content(self, waiting).piece(value, _Content.value)
        while waiting:
            label, (piece, write) = waiting.popitem()
            try:
                self.pieces[label] = _Content(self, waiting).piece(piece, write)
            except Unencodable as error:
                where = f"{error.why}; {label} reaches it"
                raise Unencodable(error.what, code="MS-1110", why=where, fix=error.fix) from error
        return entry


class _Content:
    """Writes the content of one piece."""

    def __init__(self, reach: Reach, waiting: dict[str, tuple[object, _Writer]]) -> None:
        self._reach = reach
        self._waiting = waiting
        self._labels: set[str] = set()
        self._packages: set[str] = set()
        self._remarks: set[Remark] = set()
        self._written: dict[int, tuple[int, object]] = {}
        self._encode = Encoder(self._special)

    def piece(self, value: object, write: _Writer) -> Piece:
        body = write(self, value)
        return Piece(digest(body), frozenset(self._labels), frozenset(self._packages), frozenset(self._remarks))

    def value(self, value: object) -> bytes:
        return self._encode(value)

    def _ref(self, label: str, value: object, write: _Writer) -> bytes:
        self._labels.add(label)
        if label not in self._reach.pieces and label not in self._waiting:
            self._waiting[label] = (value, write)
        return tagged(b"L", label.encode())

    def _once(self, value: object, write: _Writer) -> bytes:
        """What has no label is written at its first use; later uses count back to it."""
        known = self._written.get(id(value))
        if known is not None:
            return tagged(b"^", b"#%d" % known[0])
        self._written[id(value)] = (len(self._written), value)
        return tagged(b"F", digest(write(self, value)).encode())

    def _leniently(self, value: object) -> bytes:
        """A part of a library's wrapper: its locks and caches are the library's own business."""
        written = dict(self._written)
        try:
            return self._encode(value)
        except Unencodable:
            self._written = written
            return label_of(type(value))

    def _outside(self, module: str, name: str, value: object = None) -> bytes:
        """Code that is not the project's: its name; its distribution's version is in the key, too.

        Code of Mainspring that wants to be told apart within a version says so by a ``__revision__``.
        """
        self._packages.add(module.partition(".")[0])
        revision = getattr(value, "__revision__", None) if isinstance(value, (FunctionType, type)) else None
        return tagged(b"O", encode((module, name, revision)))

    # -- what a value is ----------------------------------------------------------------------------------------------

    def _special(self, value: Any) -> bytes | None:
        for kinds, write in _WRITERS:
            if isinstance(value, kinds):
                return write(self, value)
        if value is os.environ:  # the variables that a step declares are in its key apart
            return self._outside("os", "environ")
        if is_project_module(type(value).__module__):
            return self._instance(value)
        if callable(value):
            return self._wrapper(value)
        if inspect.ismethoddescriptor(value) and hasattr(value, "__dict__"):  # a library's, put into a class of ours
            return tagged(b"instance", self._encode(type(value)) + self._encode.state(vars(value)))
        return None

    def _bound(self, value: MethodType) -> bytes:
        return tagged(b"method", self._encode.all((value.__func__, value.__self__)))

    def _partial(self, value: functools.partial[object]) -> bytes:
        state = {name: part for name, part in vars(value).items() if name not in _NAMING}
        return tagged(b"partial", self._encode.all((value.func, value.args, value.keywords, state)))

    def _method(self, value: staticmethod[Any, Any] | classmethod[Any, Any, Any]) -> bytes:
        return tagged(type(value).__name__.encode(), self._encode(value.__func__))

    def _property(self, value: property) -> bytes:
        return tagged(b"property", self._encode.all((value.fget, value.fset, value.fdel)))

    def _cached_property(self, value: functools.cached_property[object]) -> bytes:
        return tagged(b"property", self._encode(value.func))

    def _builtin(self, value: Any) -> bytes:
        owner = value.__self__
        if owner is None or isinstance(owner, ModuleType):
            return self._outside(value.__module__ or "builtins", value.__qualname__)
        return tagged(b"method", encode(value.__name__) + self._encode(owner))

    def _descriptor(self, value: Any) -> bytes:
        return tagged(b"descriptor", encode(value.__name__))

    def _typing(self, value: Any) -> bytes:
        parts = [getattr(value, name, None) for name in ("__name__", "__bound__", "__constraints__", "__supertype__")]
        return tagged(b"typing", label_of(type(value)) + b"".join([self._leniently(part) for part in parts]))

    def _forward(self, value: typing.ForwardRef) -> bytes:
        return tagged(b"typing", encode(value.__forward_arg__))

    def _declared(self, value: Declaration[object]) -> bytes:
        """Of a declaration of ours, the function that it wraps counts, or else its name."""
        function = getattr(spec_of(value), "function", None)
        if function is not None:
            return self._encode(function)
        name = ""
        with suppress(DeclarationError):  # not named yet
            name = name_of(value)
        return tagged(b"declared", encode((kind_of(value).value, name)))

    def _app(self, value: App) -> bytes:
        return tagged(b"declared", encode(("app", value.name)))

    def _origin(self, value: Origin) -> bytes:
        return tagged(b"origin", b"")

    def _code(self, value: CodeType) -> bytes:
        return tagged(b"code", parse(value).digest.encode())

    def _instance(self, value: Any) -> bytes:
        """An instance of a project class: the class, and the state that it would be rebuilt from."""
        kind = type(value)
        own = [vars(base) for base in kind.__mro__ if is_project_module(base.__module__)]
        if any(name in members for members in own for name in _PICKLING):  # it may hide some of its state
            state = self._encode.state(dict(_attributes(value)))
        else:
            state = self._encode.structure(value)
        return tagged(b"instance", self._encode(kind) + state)

    def _wrapper(self, value: Any) -> bytes | None:
        """A callable object of a library: by name if it is the library's own, else by what it wraps."""
        module, name = (str(getattr(value, part, None) or "") for part in ("__module__", "__name__"))
        if not is_project_module(module) and _resolved(module, getattr(value, "__qualname__", name)) is value:
            return self._outside(module, name)
        wrapped = getattr(value, "__wrapped__", None)
        if wrapped is None:
            return None
        self._packages.add(type(value).__module__.partition(".")[0])
        state = vars(value) if not hasattr(value, "targetoptions") else {"options": value.targetoptions}  # numba's
        parts = [self._leniently(part) for key, part in sorted(state.items()) if key not in _NAMING]
        return tagged(b"wrapper", label_of(type(value)) + self._encode(wrapped) + b"".join(parts))

    # -- functions ----------------------------------------------------------------------------------------------------

    def _function(self, value: FunctionType) -> bytes:
        module = value.__module__ or ""
        if _resolved(module, value.__qualname__) is not value:
            return self._once(value, _Content._function_body)
        if not is_project_module(module):
            return self._outside(module, value.__qualname__, value)
        return self._ref(f"{module_name(module)}:{value.__qualname__}", value, _Content._function_body)

    def _function_body(self, value: Any) -> bytes:
        module = str(value.__globals__.get("__name__", ""))
        if module in sys.modules and not is_project_module(module):
            return self._library_wrapper(value, module)
        parsed = parse(value.__code__)
        self._remarks.update(
            of_function(value, f"{os.path.basename(value.__code__.co_filename)}:{value.__code__.co_firstlineno}")
        )
        reached = [encode((chain.root, chain.attributes)) + self._chain(value, chain) for chain in parsed.chains]
        reached += [self._import(value, item) for item in parsed.imports]
        attributes = {name: part for name, part in vars(value).items() if name not in _NAMING - {"__wrapped__"}}
        return b"".join(
            tagged(b"|", part)
            for part in (
                parsed.digest.encode(),
                self._encode.all((value.__defaults__, value.__kwdefaults__)),
                self._encode.all(_cells(value, parsed.free)),
                b"".join(sorted(set(reached))),
                self._annotations(value.__annotations__, value.__globals__),
                self._encode.state(attributes),
            )
        )

    def _library_wrapper(self, value: Any, module: str) -> bytes:
        """A function made by a library around others: ``contextmanager``, ``singledispatch``, ``retry``."""
        held = [*_cells(value, value.__code__.co_freevars), value.__defaults__, value.__kwdefaults__]
        held += [part for name, part in sorted(vars(value).items()) if name not in _NAMING]
        name = value.__code__.co_qualname
        return self._outside(module, name, value) + b"".join([self._leniently(part) for part in held])

    def _chain(self, function: Any, chain: Chain) -> bytes:
        space = function.__globals__
        if chain.root in _FACTS:
            return b"fact"
        if chain.root not in space:
            return b"builtin" if chain.root in _BUILTINS else b"unresolved"
        module = str(space.get("__name__", ""))
        if vars(sys.modules.get(module, function)) is not space:
            module = ""  # made by exec: its globals have no name that could be a label
        return self._path(module, chain.root, space[chain.root], chain.attributes)

    def _path(self, module: str, name: str, value: object, attributes: tuple[str, ...]) -> bytes:
        """What attributes of a module lead to; a module that is not only looked into counts as a whole."""
        for attribute in attributes:
            if not isinstance(value, ModuleType):
                break
            if not is_project_module(value.__name__):
                return self._outside(value.__name__, "")
            if attribute in _FACTS:
                return b"fact"
            if not hasattr(value, attribute):
                return b"unresolved"
            module, name, value = value.__name__, attribute, getattr(value, attribute)
        return self._global(module, name, value)

    def _global(self, module: str, name: str, value: object) -> bytes:
        if name == "__name__" and isinstance(value, str):
            return encode(module_name(value))
        named = isinstance(value, (ModuleType, Declaration, App))
        if isinstance(value, (FunctionType, type)):
            named = _resolved(value.__module__ or "", value.__qualname__) is value
        if named or not module:
            return self._encode(value)
        label = f"{module_name(module)}:{name}"
        self._remarks.update(of_value(value, label))
        return self._ref(label, value, _Content.value)

    def _import(self, function: Any, item: Import) -> bytes:
        space = function.__globals__
        name = item.module
        with suppress(ImportError):  # a relative import outside a package fails when it runs
            if item.level:
                package = space.get("__package__") or str(space.get("__name__", "")).rpartition(".")[0]
                name = importlib.util.resolve_name("." * item.level + name, package)
        said = encode((name, item.name))
        if not is_project_module(name):
            self._packages.add(name.partition(".")[0])
            return said
        module = self._loaded(name)
        if module is None:
            return said + b"unresolved"
        if item.name is None:
            bound = module if item.whole else sys.modules.get(name.partition(".")[0], module)
            return said + self._uses(bound, item.uses)
        if not hasattr(module, item.name):
            found = self._loaded(f"{name}.{item.name}")
            return said + (b"unresolved" if found is None else self._uses(found, item.uses))
        value = getattr(module, item.name)
        if isinstance(value, ModuleType):
            return said + self._uses(value, item.uses)
        return said + self._global(name, item.name, value)

    def _loaded(self, name: str) -> ModuleType | None:
        try:
            return self._reach.load(name)
        except Exception:  # what fails now fails in the step, where it is the user's to see
            return None

    def _uses(self, module: ModuleType, uses: Iterable[tuple[str, ...]]) -> bytes:
        return b"".join([encode(use) + self._path("", "", module, use) for use in sorted(uses)])

    def _annotations(self, annotations: Mapping[str, object], space: Mapping[str, Any]) -> bytes:
        found = []
        for name, annotation in annotations.items():
            value = _evaluated(annotation, space) if isinstance(annotation, str) else annotation
            named = self._names(value, space) if isinstance(value, str) else b""
            found.append(encode(name) + named + self._leniently(value))
        return b"".join(found)

    def _names(self, text: str, space: Mapping[str, Any]) -> bytes:
        """The classes named in an annotation that cannot be evaluated as a whole."""
        try:
            names = compile(text, "", "eval", dont_inherit=True).co_names
        except (SyntaxError, ValueError):
            return b""
        return b"".join([self._encode(space[name]) for name in names if isinstance(space.get(name), type)])

    # -- modules and classes ------------------------------------------------------------------------------------------

    def _module(self, value: ModuleType) -> bytes:
        if not is_project_module(value.__name__):
            return self._outside(value.__name__, "")
        return self._ref(f"{module_name(value.__name__)}:*", value, _Content._module_body)

    def _module_body(self, value: Any) -> bytes:
        members = sorted((name, part) for name, part in vars(value).items() if not name.startswith("__"))
        return b"".join([encode(name) + self._global(value.__name__, name, part) for name, part in members])

    def _class(self, value: type) -> bytes:
        module = value.__module__ or ""
        if not is_project_module(module):
            return self._outside(module, value.__qualname__, value)
        if _resolved(module, value.__qualname__) is value:
            return self._ref(f"{module_name(module)}:{value.__qualname__}", value, _Content._class_body)
        return self._once(value, _Content._class_body)

    def _class_body(self, value: Any) -> bytes:
        members = {name: part for name, part in vars(value).items() if name not in _SKIPPED}
        space = vars(sys.modules.get(value.__module__, value))
        return b"".join(
            tagged(b"|", part)
            for part in (
                self._encode.all((type(value), *value.__bases__)),
                self._encode.state(members),
                self._annotations(vars(value).get("__annotations__", {}), {**space, **vars(value)}),
            )
        )


_Writer = Callable[[_Content, Any], bytes]

_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[_Content, Any], bytes]], ...] = (
    (FunctionType, _Content._function),
    (ModuleType, _Content._module),
    (type, _Content._class),
    (functools.partial, _Content._partial),
    (MethodType, _Content._bound),
    ((staticmethod, classmethod), _Content._method),
    (property, _Content._property),
    (functools.cached_property, _Content._cached_property),
    ((BuiltinFunctionType, MethodWrapperType), _Content._builtin),
    (_DESCRIPTORS, _Content._descriptor),
    (Declaration, _Content._declared),
    (App, _Content._app),
    (Origin, _Content._origin),
    (CodeType, _Content._code),
    ((typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple, typing.NewType), _Content._typing),
    (typing.ForwardRef, _Content._forward),
)


def _resolved(module: str, name: str) -> object:
    """What a module holds under a dotted name, seen through declarations of ours and static or class methods."""
    found: object = sys.modules.get(module)
    if found is None or "<" in name:
        return None
    for part in name.split("."):
        held = getattr(found, "__dict__", None)
        found = held.get(part) if held is not None else None
    while isinstance(found, (Declaration, staticmethod, classmethod)):
        found = getattr(spec_of(found), "function", None) if isinstance(found, Declaration) else found.__func__
    return found


def _cells(value: Any, order: Iterable[str]) -> list[object]:
    """What the cells of a closure hold, in this order of their names."""
    cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
    found: list[object] = []
    for name in order:
        try:
            found.append(cells[name].cell_contents)
        except ValueError:  # a cell that is not filled yet
            found.append(None)
    return found


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    """The attributes of an object, those in slots included."""
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        for name, member in vars(base).items():
            if isinstance(member, MemberDescriptorType) and hasattr(value, name):
                yield name, getattr(value, name)


def _evaluated(text: str, space: Mapping[str, Any]) -> object:
    """An annotation as what it means; the text itself if it cannot be evaluated (names for the type checker alone)."""
    if text.isidentifier():
        return space.get(text, _BUILTINS.get(text, text))
    try:
        return eval(text, dict(space))
    except Exception:  # an annotation is any expression of the user's
        return text
