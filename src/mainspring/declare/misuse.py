"""What Python says of a call that does not fit its options, in the user's words and with a suggestion."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from mainspring.declare import aggregate
from mainspring.declare.app import App
from mainspring.declare.artifact import File, Model
from mainspring.declare.data import Entity, did_you_mean
from mainspring.declare.record import Field
from mainspring.errors import DeclarationError

__all__ = ["misused"]

_SAYS = re.compile(r"(\w+)(?:\.(\w+))?\(\) got an unexpected keyword argument '(\w+)'")
_COUNTS = re.compile(r"(\w+)(?:\.(\w+))?\(\) (?:takes .*|missing \d+ required .*)")
_DECORATORS = ("model", "step")
_CLASSES = {kind.__name__: kind for kind in (App, Entity, Field, File, Model)}


def misused(error: Exception, origin: str) -> DeclarationError | None:
    """The error of a call that does not fit; None when it is no such error, or not about Mainspring.

    Args:
        error: what Python raised: of ``app.model(houldout=0.1)`` (MS-1032), of a bare ``@app.model`` (MS-1042).
        origin: the user's line.
    """
    return _unknown_option(error, origin) or _other_arguments(error, origin)


def _other_arguments(error: Exception, origin: str) -> DeclarationError | None:
    """More arguments than there may be, or fewer than there must be (MS-1042)."""
    said = _COUNTS.fullmatch(str(error)) if isinstance(error, TypeError) else None
    function = _function(*said.groups()) if said is not None else None
    if said is None or function is None:
        return None
    shown = said[1] if said[2] in (None, "__init__") else f"{said[1]}.{said[2]}"
    bare = said[2] in _DECORATORS and " takes " in str(error)
    return DeclarationError(
        f"{shown} is called with other arguments than it takes",
        code="MS-1042",
        why="it takes options; the function stands below it" if bare else str(error),
        origin=origin,
        fix=f"write {_call(shown.replace('App.', 'app.'), function, said[2])}",
    )


def _call(shown: str, function: Callable[..., object], method: str | None) -> str:
    """A call, or a decorator, with all that it must be given."""
    if method == "pipeline":
        return "@app.pipeline above the function, without ()"
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name != "self" and _must(one)]
    wanted = [f"{one.name}=..." if one.kind is one.KEYWORD_ONLY else one.name.upper() for one in parameters]
    return f"{'@' if method in _DECORATORS else ''}{shown}({', '.join(wanted)})"


def _must(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )


def _unknown_option(error: Exception, origin: str) -> DeclarationError | None:
    said = _SAYS.match(str(error)) if isinstance(error, TypeError) else None
    if said is None:
        return None
    first, method, option = said.groups()
    function = _function(first, method)
    if function is None:
        return None
    shown = first if method in (None, "__init__") else f"{first}.{method}"
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    return DeclarationError(
        f"{shown} has no option {option!r}", code="MS-1032", origin=origin, fix=did_you_mean(option, known)
    )


def _function(first: str, method: str | None) -> Callable[..., object] | None:
    if method is None:
        return getattr(aggregate, first) if first in aggregate.__all__ else None
    return getattr(_CLASSES.get(first), method, None)
