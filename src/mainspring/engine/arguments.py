"""Arguments as people type them, converted by the annotations of the function that takes them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from mainspring.declare.artifact import File
from mainspring.engine.fitting import spell_type
from mainspring.engine.reference import annotations_of
from mainspring.errors import UsageError

__all__ = ["converted", "value_of"]


def converted(
    function: Callable[..., object],
    texts: Mapping[str, str],
    *,
    filled: int = 0,
    handed: Collection[str] = (),
    over: str | None = None,
) -> dict[str, object]:
    """The arguments of a call, by name.

    A text stays as it is where the annotation says ``str``, names a file where it says `File` or `Path`, and is JSON
    elsewhere; what is no JSON is text. Then it becomes what the annotation says: ``2013-07-01`` a date.

    Args:
        function: a pipeline's or step's function.
        texts: what was typed.
        filled: how many of the first parameters are filled otherwise when they are not given.
        handed: parameters whose values come otherwise.
        over: the parameter that a map goes over; its text is a list.

    Raises:
        UsageError: MS-2608, there is no such parameter, one is missing, or a text does not fit its annotation.
    """
    parameters = inspect.signature(function).parameters
    annotations = annotations_of(function)
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name in texts.keys() - parameters.keys() if not takes_all else ():
        raise _wrong(f"{function.__name__} has no parameter {name!r}", "", parameters)
    for name, parameter in list(parameters.items())[filled:]:
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if plain and parameter.default is parameter.empty and name not in {*texts, *handed}:
            raise _wrong(f"{function.__name__} needs {name}=...", "the parameter has no default", parameters)
    found = {}
    for name, text in texts.items():
        try:
            found[name] = value_of(text, _taken(annotations.get(name, typing.Any), name == over))
        except (msgspec.ValidationError, ValueError) as error:
            wanted = spell_type(annotations[name])
            raise _wrong(f"{name}={text} is not {wanted}", str(error), parameters) from error
    return found


def _taken(wanted: object, mapped: bool) -> object:
    return list[wanted] if mapped else wanted  # type: ignore[valid-type]


def value_of(text: str, wanted: object) -> object:
    """A text as a value of the annotation.

    Raises:
        ValueError: it does not fit; msgspec's own error among them.
    """
    union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    kinds = typing.get_args(wanted) if union else (wanted,)
    if type(None) in kinds and text == "null":
        return None
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, (File, Path)):
            return kind(text)
    if str in kinds:
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    if wanted is typing.Any:
        return value
    try:
        return msgspec.convert(value, wanted, strict=False)
    except TypeError:  # a class that is not built from plain data; whether the value fits is seen where it is used
        return value


def _wrong(what: str, why: str, parameters: Mapping[str, inspect.Parameter]) -> UsageError:
    known = ", ".join(map(str, parameters.values())) or "none"
    return UsageError(what, code="MS-2608", why=why, origin="command line", fix=f"its parameters are {known}")
