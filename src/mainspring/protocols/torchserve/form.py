"""Forms of several parts (RFC 7578): what TorchServe's clients wrap their data in."""

from __future__ import annotations

import re

import msgspec

from mainspring.protocols.http import Fault

__all__ = ["Part", "boundary_of", "parts_of"]

_BOUNDARY = re.compile(rb'multipart/form-data\s*;(?:.*;)?\s*boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*\bname="([^"\r\n]*)"', re.IGNORECASE)
_TYPE = re.compile(rb"content-type:[ \t]*([^\r\n]+)", re.IGNORECASE)
_MOST = 1024


class Part(msgspec.Struct, frozen=True):
    """One field of a form."""

    name: str
    content_type: bytes
    body: bytes


def boundary_of(content_type: bytes) -> bytes | None:
    """What parts a form, by its content type; None for what is no form."""
    found = _BOUNDARY.match(content_type.strip())
    return None if found is None else found[1]


def parts_of(body: bytes, boundary: bytes) -> list[Part]:
    """The fields of a form.

    Raises:
        Fault: 400, it is broken; 413, it has too many parts.
    """
    mark = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(mark, _MOST + 2)
    if len(pieces) > _MOST + 2:
        raise Fault(413, f"the form has more than {_MOST} parts")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise Fault(400, "the form does not end with its boundary")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, empty, data = piece.partition(b"\r\n\r\n")
    name, kind = _NAME.search(head), _TYPE.search(head)
    if not empty or name is None:
        raise Fault(400, "a part of the form has no name")
    return Part(name[1].decode("utf-8", "replace"), b"" if kind is None else kind[1].strip(), data)
