"""A function's parameters as a JSON schema that a model can fill in, and what it filled in as arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast, get_type_hints

import msgspec

from mainspring.declare.identity import Identity
from mainspring.declare.origin import of_function
from mainspring.errors import DeclarationError

__all__ = ["Signature", "signature_of"]

_ENTRY = re.compile(r"^\s*(\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters):\s*$")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a tool takes.

    Attributes:
        description: the first paragraph of the function's docstring.
        schema: a JSON schema of an object with the parameters; it allows no others.
        fields: a struct with one field a parameter, to check arguments with.
        caller: the name of the parameter that is handed the caller's `Identity`, or empty.
    """

    description: str
    schema: Mapping[str, object]
    fields: type[msgspec.Struct] = field(compare=False)
    caller: str = ""

    def arguments(self, given: bytes | str, caller: Identity) -> dict[str, object]:
        """The keyword arguments of a call whose arguments are this JSON text.

        Raises:
            msgspec.ValidationError: they do not fit, or are no JSON (`msgspec.DecodeError`); the text says where.
        """
        found = msgspec.json.decode(given or b"{}", type=self.fields)
        values = {name: getattr(found, name) for name in self.fields.__struct_fields__}
        return values | ({self.caller: caller} if self.caller else {})


def signature_of(function: Callable[..., object]) -> Signature:
    """The signature of a tool's function, from its type hints and its docstring's ``Args``.

    Raises:
        DeclarationError: MS-1042, it has no docstring; MS-1043, a parameter has no type, or one JSON has not.
    """
    described = inspect.getdoc(function) or ""
    if not described.strip():
        raise DeclarationError(
            f"tool {function.__name__!r} has no docstring",
            code="MS-1042",
            why="the model reads it to know when to call the tool",
            origin=str(of_function(function)),
            fix="say in a docstring what it does",
        )
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise _refused(
            function,
            "has a type that is not known where it is declared",
            str(error),
            "import or define the type above the function",
        ) from error
    texts, caller = _described(described), ""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if hints.get(name) is Identity:
            caller = name
        else:
            fields.append(_field(function, parameter, hints, texts))
    try:
        struct = msgspec.defstruct(function.__name__, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
        schema = _schema(struct)
    except TypeError as error:
        raise _refused(
            function,
            "has a parameter that JSON cannot carry",
            str(error),
            "take texts, numbers, truths, moments, records, lists and mappings",
        ) from error
    return Signature(described.partition("\n\n")[0].strip(), schema, struct, caller)


def _field(
    function: Callable[..., object], parameter: inspect.Parameter, hints: Mapping[str, Any], texts: Mapping[str, str]
) -> tuple[str, Any] | tuple[str, Any, Any]:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise _refused(
            function,
            f"has the parameter {parameter}, which cannot be given by name",
            "",
            "take each argument by a name of its own",
        )
    if name not in hints:
        raise _refused(
            function,
            f"has the parameter {name!r} without a type",
            "the model is told the type of each argument",
            f"write {name}: str, or what it is",
        )
    kind = Annotated[hints[name], msgspec.Meta(description=texts[name])] if name in texts else hints[name]
    if parameter.default is parameter.empty:
        return (name, kind)
    return (name, kind, parameter.default)


def _schema(struct: type[msgspec.Struct]) -> Mapping[str, object]:
    schema = msgspec.json.schema(struct)
    definitions = dict(cast("dict[str, Any]", schema.pop("$defs", {})))
    own = dict(definitions.pop(str(schema["$ref"]).rpartition("/")[2]))
    own.pop("title", None)
    return own | ({"$defs": definitions} if definitions else {})


def _described(docstring: str) -> dict[str, str]:
    """What a docstring's ``Args`` section says of each parameter."""
    lines = docstring.splitlines()
    begin = next((number for number, line in enumerate(lines) if _SECTION.match(line)), None)
    if begin is None:
        return {}
    texts: dict[str, str] = {}
    name, depth = "", 0
    for line in lines[begin + 1 :]:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            break
        entry = _ENTRY.match(line)
        if entry is not None and (not depth or indent <= depth):
            name, depth = entry[1].lstrip("*"), indent
            texts[name] = entry[2].strip()
        elif name and line.strip():
            texts[name] += " " + line.strip()
    return texts


def _refused(function: Callable[..., object], what: str, why: str, fix: str) -> DeclarationError:
    return DeclarationError(
        f"tool {function.__name__!r} {what}", code="MS-1043", why=why, origin=str(of_function(function)), fix=fix
    )
