"""What is worth saying about reached code: that it asks the clock, draws random numbers, or names files as text.

None of it enters a key. A clock or an unseeded draw gives another result each time, and a kept result hides that; a
file whose name is text may be read by native code that nobody sees. Pure: whether a text names a file that is there
is for the engine to find out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Literal

import msgspec

from mainspring.plan.bytecode import Chain, Import, parse

__all__ = ["Remark", "of_function", "of_value"]


class Remark(msgspec.Struct, frozen=True, order=True):
    """One thing that code does or holds.

    Attributes:
        kind: ``clock``, ``random`` (drawn without a seed), ``seeds`` (a seed is set), ``text`` (what may name a file).
        what: what is called (``time.time``), or the text.
        place: ``shop.py:31``, where the function begins, or ``shop:PATH`` for a global.
    """

    kind: Literal["clock", "random", "seeds", "text"]
    what: str
    place: str


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLOCKS = {
    "datetime.datetime": _names("now utcnow today"),
    "datetime.date": _names("today"),
    "time": _names("time time_ns localtime gmtime ctime"),
}
_DRAWS = {
    "random": _names(
        "random randint randrange uniform choice choices sample shuffle gauss normalvariate betavariate expovariate "
        "gammavariate lognormvariate triangular vonmisesvariate paretovariate weibullvariate getrandbits randbytes"
    ),
    "numpy.random": _names(
        "rand randn randint random random_sample choice shuffle permutation normal uniform standard_normal binomial "
        "poisson exponential beta gamma bytes"
    ),
    "uuid": _names("uuid1 uuid4"),
    "secrets": _names("token_bytes token_hex token_urlsafe randbelow choice randbits"),
    "os": _names("urandom getrandom"),
}
_SEEDS = {"random": _names("seed"), "numpy.random": _names("seed")}
_QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"")
_CODE = (".py", ".pyc", ".pyi", ".so")
_LONGEST = 1024


def of_function(function: FunctionType, place: str) -> Iterator[Remark]:
    """What the code of a function, inner ones included, does and holds.

    Args:
        function: the function.
        place: where it begins, as people read it.
    """
    parsed = parse(function.__code__)
    for chain in parsed.chains:
        yield from _called(_owner_of(chain, function.__globals__), place)
    for item in parsed.imports:
        for owner in _owners_of(item):
            yield from _called(owner, place)
    for text in _constants(function.__code__, function.__doc__):
        yield from _named(text, place)


def of_value(value: object, place: str) -> Iterator[Remark]:
    """The texts that a global holds, one deep."""
    parts: list[object] = list(value.values()) if isinstance(value, dict) else [value]
    for part in [*value] if isinstance(value, (list, tuple, set, frozenset)) else parts:
        if isinstance(part, (str, os.PathLike)):
            yield from _named(str(part), place)


def _called(dotted: tuple[str, str] | None, place: str) -> Iterator[Remark]:
    if dotted is None:
        return
    owner, name = dotted
    for kind, table in (("clock", _CLOCKS), ("random", _DRAWS), ("seeds", _SEEDS)):
        if name in table.get(owner, ()):
            yield Remark(kind, f"{owner}.{name}", place)  # type: ignore[arg-type]


def _owner_of(chain: Chain, space: Mapping[str, Any]) -> tuple[str, str] | None:
    """The module or class, and the name in it, that a chain of attributes leads to."""
    value = space.get(chain.root)
    for number, attribute in enumerate(chain.attributes):
        if isinstance(value, ModuleType):
            inner = vars(value).get(attribute)
            if number == len(chain.attributes) - 1 and not isinstance(inner, (ModuleType, type)):
                return value.__name__, attribute
            value = inner
        elif isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}", attribute
        else:
            return None
    if isinstance(value, (BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType)):
        owner = value.__module__ or type(getattr(value, "__self__", None)).__module__
        return owner.removesuffix(".mtrand"), value.__name__
    return None


def _owners_of(item: Import) -> Iterator[tuple[str, str]]:
    path = ".".join(filter(None, [item.module, item.name]))
    for use in item.uses:
        *owner, name = [*path.split("."), *use]
        yield ".".join(owner), name


def _constants(code: CodeType, doc: str | None) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant, None)
        else:
            for text in constant if isinstance(constant, (tuple, frozenset)) else [constant]:
                if isinstance(text, str) and text != doc:
                    yield text


def _named(text: str, place: str) -> Iterator[Remark]:
    """The text, and the quoted texts in it if it is SQL, that look like names of files."""
    for one in [text, *(first or second for first, second in _QUOTED.findall(text))]:
        plain = 0 < len(one) < _LONGEST and "\n" not in one and "\0" not in one and "://" not in one
        if plain and ("." in one.strip(".") or os.sep in one.strip(os.sep)) and not one.endswith(_CODE):
            yield Remark("text", one, place)
