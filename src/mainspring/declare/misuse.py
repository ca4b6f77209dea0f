"""What Python says of a call with an unknown option, in the user's words and with a suggestion."""

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

__all__ = ["unknown_option"]

_SAYS = re.compile(r"(\w+)(?:\.(\w+))?\(\) got an unexpected keyword argument '(\w+)'")
_CLASSES = {kind.__name__: kind for kind in (App, Entity, Field, File, Model)}


def unknown_option(error: Exception, origin: str) -> DeclarationError | None:
    """The error of ``app.model(houldout=0.1)`` (MS-1032); None when it is no such error, or not about Mainspring.

    Args:
        error: what Python raised.
        origin: the user's line.
    """
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
