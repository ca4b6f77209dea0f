"""What a gate found, as plain data: written where anybody's change may steer, read where comments are made."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Check", "Row", "Verdict", "read_verdict"]

_FORMAT = 1
_MOST_BYTES = 1 << 20
_MOST = 200


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: of the check.
        state: ``passed``, ``failed``, or ``skipped`` where it does not apply.
        why: in words, with the numbers.
    """

    name: str
    state: Literal["passed", "failed", "skipped"]
    why: str


class Row(msgspec.Struct, frozen=True):
    """A metric of the two versions on the same rows; the interval is of the difference."""

    name: str
    new: float | None
    live: float | None
    low: float | None = None
    high: float | None = None


class Verdict(msgspec.Struct, frozen=True, tag_field="made_by", tag="mainspring gate"):
    """What a gate found of a model.

    Attributes:
        format: 1.
        app: the app.
        model: the model.
        commit: the commit that was trained, or empty.
        version: the challenger's number.
        champion: the number of the version that it is compared with; None for the first.
        training_set: the pinned training set's id.
        checks: in order.
        rows: metrics side by side.
        slices: of the deciding metric.
    """

    format: Literal[1]
    app: str
    model: str
    commit: str
    version: int
    champion: int | None
    training_set: str
    checks: tuple[Check, ...]
    rows: tuple[Row, ...] = ()
    slices: tuple[Row, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.state != "failed" for check in self.checks)


def read_verdict(data: bytes) -> Verdict:
    """A verdict from a file that is not to be trusted.

    Raises:
        ValueError: it is none, or larger than any gate writes.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes; a verdict has at most {_MOST_BYTES}")
    found = msgspec.json.decode(data, type=Verdict)
    if max(len(found.checks), len(found.rows), len(found.slices)) > _MOST:
        raise ValueError(f"it lists more than {_MOST} things")
    return found
