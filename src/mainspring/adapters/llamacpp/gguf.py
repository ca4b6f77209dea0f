"""What a GGUF file says of its model: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

__all__ = ["ModelFile", "read_model_file"]

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
_MOST_TEXT = 16 << 20
_MOST_PAIRS = 65_536


class ModelFile(msgspec.Struct, frozen=True):
    """A model's own words about itself.

    Attributes:
        path: the file.
        architecture: ``llama``.
        name: its title, or empty.
        context: tokens it was trained with, or 0 when it does not say.
        template: its chat template, or empty: it takes bare prompts only.
    """

    path: Path
    architecture: str
    name: str
    context: int
    template: str


def read_model_file(path: Path) -> ModelFile:
    """Read the head of a file; weights are not touched.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no GGUF file of these versions.
    """
    with path.open("rb") as file:
        found = _pairs(file)
    architecture = str(found.get("general.architecture", ""))
    context = found.get(f"{architecture}.context_length", 0)
    return ModelFile(
        path,
        architecture,
        str(found.get("general.name", "")),
        context if isinstance(context, int) else 0,
        str(found.get("tokenizer.chat_template", "")),
    )


def _pairs(file: BinaryIO) -> Mapping[str, object]:
    magic, version, _, count = struct.unpack("<4sIQQ", _bytes(file, 24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it is no GGUF file of version 2 or 3")
    if count > _MOST_PAIRS:
        raise ValueError("it is damaged")
    found: dict[str, object] = {}
    for _ in range(count):
        key = _text(file)
        (kind,) = struct.unpack("<I", _bytes(file, 4))
        found[key] = _value(file, kind)
    return found


def _value(file: BinaryIO, kind: int) -> object:
    if kind == _TEXT:
        return _text(file)
    if kind == _ARRAY:
        _skip(file)
        return None
    if kind not in _SCALARS:
        raise ValueError("it is damaged")
    return struct.unpack(_SCALARS[kind], _bytes(file, struct.calcsize(_SCALARS[kind])))[0]


def _skip(file: BinaryIO) -> None:
    """Pass over an array."""
    kind, count = struct.unpack("<IQ", _bytes(file, 12))
    if kind in _SCALARS:
        file.seek(struct.calcsize(_SCALARS[kind]) * count, 1)
    elif kind == _TEXT:
        for _ in range(count):
            (size,) = struct.unpack("<Q", _bytes(file, 8))
            file.seek(size, 1)
    else:
        raise ValueError("it is damaged")


def _text(file: BinaryIO) -> str:
    (size,) = struct.unpack("<Q", _bytes(file, 8))
    if size > _MOST_TEXT:
        raise ValueError("it is damaged")
    return _bytes(file, size).decode("utf-8", "replace")


def _bytes(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise ValueError("it is no GGUF file, or it is cut")
    return found
