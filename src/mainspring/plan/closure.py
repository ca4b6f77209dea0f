"""The exact cache key: everything a function can reach, and the eight parts of a step's key.

From a function (and the project classes in its annotations) every code object is followed: globals it loads, cells,
imports in its body. Code of the project (outside the standard library and site-packages; editable installs are the
project's) enters by its canonical bytecode, other code by its qualified name and the versions of its distribution and
all that requires. Mainspring itself counts as a distribution: its version stands for its code.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, get_type_hints

from mainspring.plan.bytecode import Chain, Import, parse
from mainspring.plan.distributions import distributions_of, is_project_module
from mainspring.plan.encoding import Unencodable, digest, encode

__all__ = ["Closure", "KeyParts", "closure_of", "explain", "key_parts", "step_key"]

SCHEMA = 1
"""The version of the key itself; a change of these rules changes every key."""

_SKIPPED = frozenset(
    {"__doc__", "__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
)
_BUILTINS = vars(sys.modules["builtins"])


@dataclass(frozen=True, slots=True)
class Closure:
    """All that a function can reach.

    Attributes:
        digest: over the entry and all labels with their local digests.
        labels: local digest of each piece of project code, by ``module:qualname``, sorted.
        distributions: ``name==version`` of the distributions reached and of all they require, sorted.
    """

    digest: str
    labels: Mapping[str, str]
    distributions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The fields of a step's key, each as text, so that `why` can name the one that differs."""

    closure: str
    labels: Mapping[str, str]
    params: Mapping[str, str]
    inputs: Mapping[str, str]
    seed: str
    env: Mapping[str, str]
    distributions: tuple[str, ...]
    python: str
    schema: int = SCHEMA


def closure_of(function: Callable[..., Any] | type) -> Closure:
    """Follow everything that a function or class can reach.

    Raises:
        Unencodable: MS-1110, it reaches a value without a canonical form (a lock, an open file).
    """
    walk = _Walk()
    entry = walk.reach(function)
    labels = dict(sorted(walk.labels.items()))
    found = sorted({name for top in walk.packages for name in distributions_of(top)})
    return Closure(digest(entry, encode(labels)), labels, tuple(found))


def key_parts(
    closures: Sequence[Closure],
    params: Mapping[str, object],
    inputs: Sequence[tuple[str, str]],
    *,
    seed: int | None = None,
    env: Mapping[str, str] | None = None,
    encoder: Callable[[Any], bytes | None] = lambda value: None,
) -> KeyParts:
    """The parts of a step's key.

    Args:
        closures: of the function and of what it is said to reach, in order.
        params: the parameters, bound to the signature with defaults.
        inputs: pairs (parameter, content digest), in order.
        seed: the seed.
        env: the declared environment variables with their values.
        encoder: encodes values that `encode` does not know, such as files by content.
    """
    labels = {label: local for closure in closures for label, local in closure.labels.items()}
    return KeyParts(
        digest(*(closure.digest.encode() for closure in closures)),
        labels,
        {name: digest(encode(value, encoder)) for name, value in params.items()},
        dict(inputs),
        "" if seed is None else str(seed),
        {name: digest(encode(value)) for name, value in sorted((env or {}).items())},
        tuple(sorted({name for closure in closures for name in closure.distributions})),
        f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}",
    )


def step_key(parts: KeyParts) -> str:
    """blake2b-160 in hex over the tagged, length-prefixed parts."""
    return digest(
        encode(parts.schema),
        encode(parts.closure),
        encode(sorted(parts.params.items())),
        encode(list(parts.inputs.items())),
        encode(parts.seed),
        encode(sorted(parts.env.items())),
        encode(parts.distributions),
        encode(parts.python),
    )


def explain(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two sets of labels: ``changed shop:price``, ``added ...``, ``removed ...``."""
    lines = [f"changed {name}" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    lines += [f"added {name}" for name in sorted(new.keys() - old.keys())]
    return lines + [f"removed {name}" for name in sorted(old.keys() - new.keys())]


@dataclass(slots=True)
class _Walk:
    labels: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)

    def reach(self, value: object) -> bytes:
        """The bytes that stand for a value where it is used; what it reaches is added to the labels."""
        special = self._special(value)
        return encode(value, self._special) if special is None else special

    def _special(self, value: object) -> bytes | None:
        if isinstance(value, ModuleType):
            return self._module(value)
        if isinstance(value, functools.partial):
            return b"partial" + self.reach(value.func) + self.reach(value.args) + self.reach(value.keywords)
        if isinstance(value, MethodType):
            return b"method" + self.reach(value.__func__) + self.reach(value.__self__)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value).__name__.encode() + self.reach(value.__func__)
        if isinstance(value, property):
            return b"property" + b"".join(self.reach(part) for part in (value.fget, value.fset, value.fdel))
        if isinstance(value, functools.cached_property):
            return b"property" + self.reach(value.func)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        return self._instance(value)

    def _outside(self, value: Any) -> bytes:
        module = str(getattr(value, "__module__", "") or "")
        self.packages.add(module.partition(".")[0])
        return f"outside:{module}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}".encode()

    def _label(self, module: str, name: str) -> str:
        if module == "__main__":
            spec = getattr(sys.modules["__main__"], "__spec__", None)
            file = getattr(sys.modules["__main__"], "__file__", "") or ""
            module = spec.name if spec is not None else file.rpartition("/")[2].removesuffix(".py")
        return f"{module}:{name}"

    def _function(self, value: FunctionType) -> bytes:
        module = str(value.__globals__.get("__name__", ""))
        if not is_project_module(module):
            return self._outside(value)
        # The code's own name: functools.wraps gives a wrapper the name of what it wraps.
        label = self._unique(value, self._label(module, value.__code__.co_qualname))
        if label not in self.labels:
            self.labels[label] = ""  # a function that reaches itself is on the way
            self.labels[label] = digest(*self._function_parts(value))
        return b"label:" + label.encode()

    def _unique(self, value: FunctionType, label: str) -> str:
        """Lambdas and closures share qualified names: tell them apart by their code and cells."""
        if "<" not in label:
            return label
        told = [parse(value.__code__).digest.encode()]
        told += [self.reach(cell) for cell in _cells(value) if not callable(cell)]
        return f"{label}#{digest(*told)[:8]}"

    def _function_parts(self, value: FunctionType) -> Iterator[bytes]:
        parsed = parse(value.__code__)
        yield parsed.digest.encode()
        yield self.reach(value.__defaults__)
        yield self.reach(value.__kwdefaults__)
        for cell in _cells(value):
            yield self.reach(cell)
        for chain in parsed.chains:
            yield encode((chain.root, chain.attributes)) + self._chain(value.__globals__, chain)
        for item in parsed.imports:
            yield self._import(item, value.__globals__)
        for kind in _annotated(value):
            if isinstance(kind, type) and is_project_module(kind.__module__):
                yield self.reach(kind)
        if (wrapped := getattr(value, "__wrapped__", None)) is not None:
            yield self.reach(wrapped)

    def _chain(self, namespace: Mapping[str, Any], chain: Chain) -> bytes:
        if chain.root not in namespace:
            return b"builtin" if chain.root in _BUILTINS else b"unresolved"
        value = namespace[chain.root]
        for attribute in chain.attributes:
            if not isinstance(value, ModuleType):
                break
            if not is_project_module(value.__name__):
                self.packages.add(value.__name__.partition(".")[0])
                return f"outside:{value.__name__}".encode()
            if not hasattr(value, attribute):
                return b"unresolved"
            value = getattr(value, attribute)
        return self.reach(value)

    def _import(self, item: Import, namespace: Mapping[str, Any]) -> bytes:
        name = item.module
        if item.level:
            name = importlib.util.resolve_name("." * item.level + name, str(namespace.get("__package__") or ""))
        if not is_project_module(name):
            self.packages.add(name.partition(".")[0])
            return f"import:{name}:{item.name}".encode()
        module = importlib.import_module(name)
        if item.name is None:
            return self.reach(module)
        if not hasattr(module, item.name):
            return self.reach(importlib.import_module(f"{name}.{item.name}"))
        return self.reach(getattr(module, item.name))

    def _module(self, module: ModuleType) -> bytes:
        if not is_project_module(module.__name__):
            self.packages.add(module.__name__.partition(".")[0])
            return f"module:{module.__name__}".encode()
        label = f"{module.__name__}:*"
        if label not in self.labels:
            self.labels[label] = ""
            parts = [
                name.encode() + self.reach(value)
                for name, value in sorted(vars(module).items())
                if not name.startswith("__")
            ]
            self.labels[label] = digest(*parts)
        return b"label:" + label.encode()

    def _class(self, kind: type) -> bytes:
        if not is_project_module(kind.__module__ or ""):
            return self._outside(kind)
        label = self._label(kind.__module__, kind.__qualname__)
        if label not in self.labels:
            self.labels[label] = ""
            parts = [self.reach(type(kind)), *(self.reach(base) for base in kind.__bases__)]
            for name, member in sorted(vars(kind).items()):
                if name not in _SKIPPED:
                    parts.append(name.encode() + self._member(member))
            self.labels[label] = digest(*parts)
        return b"label:" + label.encode()

    def _member(self, member: object) -> bytes:
        try:
            return self.reach(member)
        except Unencodable:
            # Slots and other descriptors carry nothing of their own; the class that made them is what counts.
            return b"descriptor" + self.reach(type(member))

    def _instance(self, value: object) -> bytes | None:
        """An instance of a project class by its class and state; a declaration of ours by what it wraps."""
        kind = type(value)
        wrapped = getattr(kind, "__wrapped__", None) is not None or "__wrapped__" in getattr(value, "__dict__", {})
        if wrapped:
            return b"wrapped" + self.reach(value.__dict__["__wrapped__"] if hasattr(value, "__dict__") else kind)
        if isinstance(value, BuiltinFunctionType) or kind.__module__ == "builtins":
            return self._outside(value) if callable(value) else None
        if is_project_module(kind.__module__) and not hasattr(value, "__arrow_c_stream__"):
            state = getattr(value, "__dict__", None)
            if state is not None and not hasattr(kind, "__struct_fields__"):
                return b"instance" + self.reach(kind) + self.reach(dict(state))
        elif kind.__module__.partition(".")[0] == "mainspring" and hasattr(value, "_origin"):
            return f"declared:{getattr(value, '_kind', '')}:{getattr(value, '_name', '')}".encode()
        elif callable(value) and hasattr(value, "__name__"):
            return self._outside(value)
        return None


def _cells(value: FunctionType) -> list[object]:
    """What the cells of a closure hold, in the order of their first use, so that their names do not count."""
    cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
    found = []
    for name in dict.fromkeys([*parse(value.__code__).free, *cells]):
        if name in cells:
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                found.append(cells[name].cell_contents)
    return found


def _annotated(value: FunctionType) -> list[object]:
    try:
        return list(get_type_hints(value).values())
    except Exception:  # an annotation that cannot be evaluated cannot lead anywhere
        return []
