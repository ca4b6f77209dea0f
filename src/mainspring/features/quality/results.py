"""What checks found: results as plain values, and the refusal that they lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.quality import Check
from mainspring.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CheckResult", "ChecksRefusedError", "failed_state", "in_words", "refusal", "refused", "samples_of"]

State = Literal["ok", "refused", "set_aside", "warned", "not_judged"]

_SAMPLES = 3
_WIDE = 80
_STATES: Mapping[str, State] = {"refuse": "refused", "quarantine": "set_aside", "warn": "warned"}


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found in a batch.

    Attributes:
        check: the check, as it is written: ``between(wind, 0, 200)``.
        on_fail: what happens when it fails.
        state: ``ok``; ``refused``, ``set_aside`` or ``warned`` when it failed; ``not_judged`` when there was nothing to
            judge by.
        rows: how many rows were looked at.
        failing: how many of them fail; of a check of the whole, 1 when it fails.
        value: what was measured: an age in seconds, a number of rows, a distance; None for checks of rows.
        why: the finding in words.
        samples: some of the rows that fail, as texts by column.
    """

    check: str
    on_fail: str
    state: State
    rows: int = 0
    failing: int = 0
    value: float | None = None
    why: str = ""
    samples: tuple[dict[str, str | None], ...] = ()


class ChecksRefusedError(DataError):
    """Checks refuse rows (MS-2180).

    Attributes:
        results: what they found.
    """

    results: tuple[CheckResult, ...] = ()


def failed_state(check: Check) -> State:
    """The state of a check that failed."""
    return _STATES[check.on_fail]


def samples_of(rows: pa.Table) -> tuple[dict[str, str | None], ...]:
    """The first rows as texts, each cut to a width that fits a line."""
    shown = [name for name in rows.column_names if not name.startswith("_")]
    return tuple(
        {name: None if value is None else _cut(str(value)) for name, value in row.items()}
        for row in rows.select(shown).slice(0, _SAMPLES).to_pylist()
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def refused(results: Sequence[CheckResult]) -> bool:
    """Whether the batch may not be committed."""
    return any(result.state == "refused" for result in results)


def in_words(result: CheckResult) -> str:
    """One result in a few words: ``between(wind, 0, 200): 3 of 10 rows``."""
    return f"{result.check}: {result.why}"


def refusal(owner: str, results: Sequence[CheckResult], origin: str = "") -> ChecksRefusedError:
    """The error of a batch that checks refuse; it names each, how many rows fail it, and some of them."""
    found = [result for result in results if result.state == "refused"]
    shown = [in_words(result) + "".join(f"; {_row(row)}" for row in result.samples[:2]) for result in found]
    checks = "a check refuses" if len(found) == 1 else f"{len(found)} checks refuse"
    error = ChecksRefusedError(
        f"{checks} the rows of {owner}: {', '.join(result.check for result in found)}",
        code="MS-2180",
        why=" | ".join(shown),
        origin=origin,
        fix='correct the data, or the check; on_fail="quarantine" sets such rows aside, on_fail="warn" lets them in',
    )
    error.results = tuple(results)
    return error


def _row(row: Mapping[str, str | None]) -> str:
    return "(" + ", ".join(f"{name} {value}" for name, value in row.items()) + ")"
