"""What a model is asked and what it answers, whatever the wire: protocols make calls of bytes, and bytes of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DATATYPES",
    "MAX_ELEMENTS",
    "Array",
    "Call",
    "Inference",
    "Reason",
    "Rejected",
    "Tensor",
    "check_shape",
    "fits",
]

Array: TypeAlias = "np.ndarray[Any, Any]"

DATATYPES: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
    "BF16": "f4",
    "BYTES": "O",
}
"""The Open Inference Protocol's datatypes to NumPy; NumPy has no bfloat16, whose values float32 holds exactly."""

MAX_ELEMENTS = 1 << 26
"""The most elements of a tensor; more is refused before anything is allocated for it."""


class Reason(Enum):
    """Why a call is not answered, each wire has its own statuses for these."""

    INVALID = "what was sent does not fit the model"
    NO_MODEL = "no such model"
    NO_VERSION = "no such version or label"
    TOO_LARGE = "beyond a limit"
    NOT_READY = "known, and not loaded"
    EXPIRED = "nobody waits for it any more"
    BUSY = "too much waits already; later"
    FORBIDDEN = "not for this caller"
    CONFLICT = "at odds with what is there"
    NOT_SERVED = "a part of the wire that this server does not have"


class Rejected(Exception):  # noqa: N818 - it becomes an answer in the wire's own shape, not a traceback
    """A call that is not answered.

    Args:
        reason: of what kind it is.
        message: for the client; it holds no internals.
        retry_after: seconds after which another try makes sense, for BUSY.
    """

    def __init__(self, reason: Reason, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Tensor(msgspec.Struct, frozen=True):
    """What a model takes or gives: name, datatype as in `DATATYPES`, and shape; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Call(msgspec.Struct, frozen=True):
    """One question to a model.

    Attributes:
        model: its name.
        inputs: arrays by the names of the model's inputs, or one by each of its columns; rows are the first dimension.
        protocol: the wire that it came by, for metrics.
        version: the version that is asked for; None is the one that answers.
        label: an alias of a version instead.
        id: the caller's own name of the question.
        parameters: what the caller sets beside.
        outputs: the names of the wanted outputs, in their order; empty is all.
        deadline: the moment of `time.monotonic` after which nobody waits for the answer; None is never.
        priority: 1 is the highest, 0 the default.
        decode_ns: how long its bytes took to become arrays, in nanoseconds.
    """

    model: str
    inputs: Mapping[str, Array]
    protocol: str = ""
    version: str | None = None
    label: str | None = None
    id: str = ""
    parameters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    deadline: float | None = None
    priority: int = 0
    decode_ns: int = 0


class Inference(msgspec.Struct, frozen=True):
    """What a model has answered.

    Attributes:
        model: its name.
        version: the version that answered.
        outputs: the wanted outputs with their arrays, in the wanted order; rows are the first dimension.
        ids: the prediction id of each row; empty when they are not logged.
    """

    model: str
    version: str
    outputs: Sequence[tuple[Tensor, Array]]
    ids: Sequence[str] = ()


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a shape is one that a model takes."""
    return len(shape) == len(declared) and all(wanted in (-1, got) for got, wanted in zip(shape, declared, strict=True))


def check_shape(name: str, shape: Sequence[int], declared: Tensor, max_rows: int) -> int:
    """The number of elements of a shape; nothing is allocated for one that lies.

    Raises:
        Rejected: INVALID, it is not the model's; TOO_LARGE, it has more than `max_rows` rows or 2^26 elements.
    """
    if not fits(shape, declared.shape):
        raise Rejected(
            Reason.INVALID, f"input {name!r} has shape {list(shape)}; the model takes {list(declared.shape)}"
        )
    if shape and shape[0] > max_rows:
        raise Rejected(Reason.TOO_LARGE, f"input {name!r} has {shape[0]} rows; at most {max_rows} are served at once")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise Rejected(Reason.TOO_LARGE, f"input {name!r} has {count} elements; at most {MAX_ELEMENTS} are served")
    return count
