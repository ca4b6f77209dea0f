"""Converters: a fitted estimator into a format that is fast and safe to serve."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import msgspec

__all__ = ["Converted", "Converter"]


class Converted(msgspec.Struct, frozen=True):
    """A converted model.

    Attributes:
        data: the file's bytes.
        output: the name of the output with the scores.
    """

    data: bytes
    output: str


@runtime_checkable
class Converter(Protocol):
    """Turns fitted estimators into ONNX."""

    def convert(self, estimator: object, columns: int, task: Literal["binary", "regression"]) -> Converted | str:
        """The estimator as ONNX with one float32 input (rows, columns), or why it cannot be converted."""
