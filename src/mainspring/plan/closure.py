"""The exact cache key: everything a function can reach, and the eight parts of a step's key.

From a function (and the project classes in its annotations) every code object is followed: globals it loads, cells,
imports in its body. Code of the project (outside the standard library and site-packages; editable installs are the
project's) enters by its canonical bytecode, other code by its qualified name and the versions of its distribution and
all that requires. Mainspring itself counts as a distribution: its version stands for its code.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinFunctionType, MethodType, MethodWrapperType
from typing import Any

import msgspec

from mainspring.plan.distributions import distributions_of, is_project_module
from mainspring.plan.encoding import digest, encode, module_name
from mainspring.plan.reach import Piece, Reach
from mainspring.plan.remarks import Remark

__all__ = [
    "Closure",
    "KeyParts",
    "closure_of",
    "encode_code",
    "explain",
    "is_code",
    "key_parts",
    "new_reach",
    "step_key",
]

SCHEMA = 1
"""The version of the key itself; a change of these rules changes every key."""

_SEEN = frozenset({"mainspring", "numpy", "builtins"})
"""Libraries that open files by Python's own ways alone."""


class Closure(msgspec.Struct, frozen=True):
    """All that a function can reach.

    Attributes:
        digest: over the entry and all labels with their local digests.
        labels: local digest of each piece of project code, by ``module:qualname``, sorted.
        distributions: ``name==version`` of the distributions reached and of all they require, sorted.
        remarks: what is worth saying about the code, sorted; no part of the key.
        native: whether a library is used that may read files without Python seeing it.
    """

    digest: str
    labels: Mapping[str, str]
    distributions: tuple[str, ...]
    remarks: tuple[Remark, ...] = ()
    native: bool = False


class KeyParts(msgspec.Struct, frozen=True):
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


def new_reach() -> Reach:
    """What `closure_of` shares between functions; valid until a module, a global or a default changes."""
    return Reach(importlib.import_module)


def closure_of(function: Callable[..., Any] | type, reach: Reach | None = None) -> Closure:
    """Follow everything that a function or class can reach.

    Code of the project enters by its canonical bytecode and values; other code by its name, and its distribution by
    its version. Mainspring counts as a distribution, also when it is installed from its sources: its name, its version
    and, for a function or class that defines one, its ``__revision__`` stand for its code.

    Args:
        function: a function, class, method, partial or other callable.
        reach: from `new_reach`, shared by functions that have helpers in common; a fresh one by default.

    Raises:
        Unencodable: MS-1110, it reaches a value without a canonical form (a lock, an open file).
    """
    found = new_reach() if reach is None else reach
    entry = found.follow(function)
    reached = _reached(found, entry)
    labels = {label: found.pieces[label].digest for label in reached}
    name = _name(function)
    if name and name not in labels:  # it is wrapped by what the module holds under its name
        labels[name] = entry.digest
    labels = dict(sorted(labels.items()))
    packages = entry.packages.union(*(found.pieces[label].packages for label in reached))
    names = sorted({name for package in packages for name in distributions_of(package)})
    remarks = sorted(entry.remarks.union(*(found.pieces[label].remarks for label in reached)))
    native = not packages <= _SEEN | sys.stdlib_module_names
    return Closure(digest(entry.digest.encode(), encode(labels)), labels, tuple(names), tuple(remarks), native)


def _reached(reach: Reach, entry: Piece) -> set[str]:
    found: set[str] = set()
    waiting = set(entry.labels)
    while waiting:
        label = waiting.pop()
        found.add(label)
        waiting |= reach.pieces[label].labels - found
    return found


def _name(function: object) -> str:
    if not (isinstance(function, type) or inspect.isfunction(function)) or not is_project_module(function.__module__):
        return ""
    return f"{module_name(function.__module__)}:{function.__qualname__}"


def is_code(value: Any) -> bool:
    """Whether a value is a class, a function or a method."""
    kind: Any = type(value)
    return isinstance(value, type) or _has_routines(kind)


@functools.lru_cache(maxsize=4096)
def _has_routines(kind: Any) -> bool:
    """What `inspect.isroutine` says of the instances of a class: all of them are routines, or none is."""
    known = (BuiltinFunctionType, MethodType, MethodWrapperType)
    return issubclass(kind, known) or (hasattr(kind, "__get__") and not hasattr(kind, "__set__"))


def encode_code(value: Any) -> bytes | None:
    """Functions, classes, methods and partials by all they can reach; None for other values."""
    if is_code(value) or isinstance(value, functools.partial):
        return b"code:" + closure_of(value).digest.encode()
    return None


def key_parts(
    closures: Sequence[Closure],
    params: Mapping[str, object],
    inputs: Sequence[tuple[str, str]],
    *,
    seed: int | None = None,
    env: Mapping[str, str] | None = None,
    encoder: Callable[[Any], bytes | None] = encode_code,
) -> KeyParts:
    """The parts of a step's key.

    Args:
        closures: of the function and of what it is said to reach, in order.
        params: the parameters, bound to the signature with defaults.
        inputs: pairs (parameter, content digest), in order.
        seed: the seed.
        env: the declared environment variables with their values.
        encoder: encodes values that `encode` does not know, such as files by content; by default functions and classes,
            by what they reach.
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
