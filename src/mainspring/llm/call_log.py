"""The record of LLM requests as it is read: the last ones, and totals per day."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import StoreError

__all__ = ["CallLog", "CallRow", "DayRow"]

_DAY_NS = 86_400_000_000_000
_DAYS = 7
_SECONDS = 5.0


class CallRow(msgspec.Struct, frozen=True):
    """One request; the attributes are columns of ``llm_call``.

    Attributes:
        id: of the request.
        at_ns: when it came, UTC nanoseconds since 1970.
        endpoint: the name that it went by.
        api: the wire that it came by; ``inside`` for what ran in the process.
        key_id: the client's key, or empty.
        upstream: the model that answered, or empty.
        model_version: the engine's own name of it.
        status: ``ok``, ``error`` or ``left``.
        error_kind: of the fault, or empty.
        finish_reason: why the answer ended.
        attempt: how many tries there were.
        cache: ``exact`` or ``semantic`` where an answer was given again.
        prompt_tokens: of the prompt, those from the engine's cache included.
        cached_tokens: of the prompt, reused.
        completion_tokens: of the answer.
        queue_us: microseconds until it was sent.
        ttft_us: microseconds until the first token; 0 when there was none.
        total_us: microseconds until its end.
        cost_micro: micro-units of money.
        similarity: how alike the two questions are, where `cache` is ``semantic``.
    """

    id: str
    at_ns: int
    endpoint: str
    api: str
    key_id: str
    upstream: str
    model_version: str
    status: str
    error_kind: str
    finish_reason: str
    attempt: int
    cache: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_us: int
    ttft_us: int
    total_us: int
    cost_micro: int
    similarity: float | None = None


class DayRow(msgspec.Struct, frozen=True):
    """What the requests of one day (UTC) came to; tokens, and money in micro-units.

    Attributes:
        day: ``2026-11-27``.
        requests: all.
        errors: those that failed.
        left: those whose client left.
        cached: those that were answered from the cache.
        prompt_tokens: of all prompts.
        completion_tokens: of all answers.
        cost_micro: micro-units of money.
    """

    day: str
    requests: int
    errors: int
    left: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost_micro: int


class CallLog:
    """Reads the file that a `CallStore` writes; each method opens it, for reading only. Safe in any thread.

    Args:
        path: the file; one that is not there has no requests.
        clock_ns: UTC nanoseconds since 1970.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock_ns = clock_ns

    def last(self, names: Sequence[str], limit: int = 50) -> list[CallRow]:
        """The last requests of a week that went by one of these names or to an upstream of one, the newest first.

        Raises:
            StoreError: MS-4187, the file cannot be read.
        """
        columns = ", ".join(CallRow.__struct_fields__)
        return [CallRow(*row) for row in self._rows(columns, names, _DAYS, "order by at_ns desc limit ?", limit)]

    def days(self, names: Sequence[str], days: int = _DAYS) -> list[DayRow]:
        """Totals of each of the last days (UTC) that had a request, the newest first.

        Raises:
            StoreError: MS-4187, the file cannot be read.
        """
        columns = (
            f"date(at_ns / {_DAY_NS} * 86400, 'unixepoch'), count(*), sum(status = 'error'), sum(status = 'left'), "
            "sum(cache <> ''), sum(prompt_tokens), sum(completion_tokens), sum(cost_micro)"
        )
        return [DayRow(*row) for row in self._rows(columns, names, days, "group by 1 order by 1 desc limit ?", days)]

    def _rows(self, columns: str, names: Sequence[str], days: int, end: str, limit: int) -> list[Any]:
        since = (self._clock_ns() // _DAY_NS - days + 1) * _DAY_NS
        marks = ", ".join("?" * len(names))
        which = f"at_ns >= ? and (endpoint in ({marks}) or upstream in ({marks}))"
        sql = f"select {columns} from llm_call where {which} {end}"
        if not self._path.exists():
            return []
        try:
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, timeout=_SECONDS, uri=True)) as database:
                return database.execute(sql, (since, *names, *names, limit)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(
                f"the log of LLM requests cannot be read: {self._path.name}",
                code="MS-4187",
                why=str(error),
                fix="remove a damaged file: requests are answered without it",
            ) from error
