"""Whether a value, or the result of one function, fits where it is to go; as far as the outermost types tell."""

from __future__ import annotations

import types
import typing

from mainspring.declare.artifact import File, Model
from mainspring.declare.frame import Frame

__all__ = ["feeds", "fits", "spell_type"]

_TABLES = ("polars", "pyarrow", "pandas")
_DATA = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset)


def fits(value: object, wanted: object) -> bool:
    """Whether a value is of the annotated type; what cannot be judged fits."""
    if wanted is None or wanted is type(None):
        return value is None
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(wanted))
    if origin is typing.Annotated:
        return fits(value, typing.get_args(wanted)[0])
    if origin is typing.Literal:
        return value in typing.get_args(wanted)
    kind = origin or wanted
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return _is_of(value, kind)


def _is_of(value: object, kind: type) -> bool:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return True
    if kind in (float, int, bool) and type(value).__module__ == "numpy" and not getattr(value, "shape", None):
        return True
    return isinstance(value, kind)


def feeds(returned: object, wanted: object) -> bool:
    """Whether what one function returns can be what another takes; False only when that is sure to fail."""
    for given in _alternatives(returned):
        for taken in _alternatives(wanted):
            if _may_feed(given, taken):
                return True
    return False


def _alternatives(annotation: object) -> tuple[object, ...]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    if origin is typing.Annotated:
        return (typing.get_args(annotation)[0],)
    return (annotation,)


def _may_feed(given: object, taken: object) -> bool:
    one, other = _sort_of(given), _sort_of(taken)
    if one is None or other is None or one == other:
        return True
    # JSON is restored as the annotation says: a list as a set or a tuple, a whole number as a float.
    return {one, other} <= {"list", "tuple", "set", "frozenset"} or (one, other) in (("int", "float"), ("bool", "int"))


def _sort_of(annotation: object) -> str | None:
    """What kind of thing an annotation means; None when that cannot be told."""
    kind = typing.get_origin(annotation) or annotation
    if kind is None or kind is type(None):
        return "nothing"
    if not isinstance(kind, type):
        return None
    if kind is Frame or kind.__module__.partition(".")[0] in _TABLES:
        return "table"
    if kind in (File, Model):
        return kind.__name__
    return kind.__name__ if kind in _DATA else None


def spell_type(wanted: object) -> str:
    """A type as people write it."""
    if wanted is None or wanted is type(None):
        return "nothing"
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")
