"""Scoring whole tables for clients, on the management listener: begun, asked about, fetched, gone on with, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mainspring.protocols.bodies import coded, decode_object, query_pairs, refuse_other_sites
from mainspring.protocols.http import Fault, Request, Response, Router, json_response

__all__ = ["Result", "ScoringAsked", "ScoringJobs", "add_scoring_routes"]

_FORMATS: Mapping[str, str] = {
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.arrow.stream": "arrows",
}
"""The formats of a table by its content type, as files are named."""
_JSON = ("application/json", "application/x-www-form-urlencoded", "")
"""JSON, what curl says of ``-d``, and nothing."""
_RESULTS = ("parquet", "csv", "arrow")
_PIECE = 1 << 18
_LONGEST = 200


class ScoringAsked(msgspec.Struct, frozen=True):
    """What is to be scored, and how; see `mainspring score`.

    Attributes:
        model: the model's name.
        source: a source that the app declares; empty where the table is sent.
        version: the number of a version, or an alias; the champion when empty.
        time: the column with each row's moment, where features are looked up.
        moment: RFC 3339 with a zone: one moment for all rows instead.
        keep: the columns that the scores begin with; all when there are none.
        set_aside: whether rows that do not fit are collected; else the first of them ends the scoring.
        rows: how many rows a part has; the usual number when 0.
        form: the format of the scores: ``parquet``, ``csv`` or ``arrow``.
    """

    model: str
    source: str = ""
    version: str = ""
    time: str = ""
    moment: str = ""
    keep: tuple[str, ...] = ()
    set_aside: bool = False
    rows: int = 0
    form: str = "parquet"


class Result(msgspec.Struct, frozen=True):
    """A file that is fetched.

    Attributes:
        path: where it is.
        content_type: of it.
    """

    path: Path
    content_type: bytes


class ScoringJobs(Protocol):
    """Who scores; each raises `Fault` for what there is not."""

    def start(self, asked: ScoringAsked, table: bytes, kind: str) -> Mapping[str, object]:
        """Begin."""

    def resume(self, identity: str) -> Mapping[str, object]:
        """Go on."""

    def every(self) -> Sequence[Mapping[str, object]]:
        """All that are kept."""

    def described(self, identity: str) -> Mapping[str, object]:
        """One."""

    def result(self, identity: str, *, aside: bool) -> Result:
        """Its file."""

    def remove(self, identity: str) -> None:
        """Stop and forget it."""


def add_scoring_routes(
    router: Router, jobs: ScoringJobs, max_body: int, run_blocking: Callable[..., Awaitable[Any]]
) -> None:
    """Serve ``/scorings``.

    Args:
        router: where the routes go.
        jobs: who scores.
        max_body: greatest table in bytes, inflated; a longer one is a source, or scored from a command line.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(jobs, run_blocking)
    router.add("POST", "/scorings", coded(routes.scoring_begun, max_body))
    router.add("GET", "/scorings", routes.scorings)
    router.add("GET", "/scorings/*", routes.scoring)
    router.add("POST", "/scorings/*", routes.scoring_resumed)
    router.add("DELETE", "/scorings/*", routes.scoring_removed)
    router.add("GET", "/scorings/*/scores", routes.scoring_scores)
    router.add("GET", "/scorings/*/set-aside", routes.scoring_set_aside)


class _Routes:
    def __init__(self, jobs: ScoringJobs, run_blocking: Callable[..., Awaitable[Any]]) -> None:
        self._jobs = jobs
        self._run = run_blocking

    async def scoring_begun(self, request: Request) -> Response:
        refuse_other_sites(request)
        kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind in _JSON:
            asked, table, form = _asked(decode_object(request.body, '{"model": .., "source": ..}')), b"", ""
            if not asked.source:
                raise Fault(400, "a source is named, or the table is sent as CSV, Parquet or Arrow")
        elif kind in _FORMATS:
            asked, table, form = _asked(_of_query(request)), request.body, _FORMATS[kind]
            if asked.source:
                raise Fault(400, "the table is sent, and a source is named")
        else:
            raise Fault(415, f"a table is {', '.join(_FORMATS)}; a source is named in application/json")
        begun = await self._run(self._jobs.start, asked, table, form)
        return json_response(begun, 202, headers=((b"location", f"/scorings/{begun['id']}".encode()),))

    async def scorings(self, request: Request) -> Response:
        return json_response({"scorings": await self._run(self._jobs.every)})

    async def scoring(self, request: Request) -> Response:
        return json_response(await self._run(self._jobs.described, request.parameters[0]))

    async def scoring_resumed(self, request: Request) -> Response:
        refuse_other_sites(request)
        return json_response(await self._run(self._jobs.resume, request.parameters[0]), 202)

    async def scoring_removed(self, request: Request) -> Response:
        refuse_other_sites(request)
        await self._run(self._jobs.remove, request.parameters[0])
        return Response(204)

    async def scoring_scores(self, request: Request) -> Response:
        return await self._file(request, aside=False)

    async def scoring_set_aside(self, request: Request) -> Response:
        return await self._file(request, aside=True)

    async def _file(self, request: Request, *, aside: bool) -> Response:
        found = await self._run(lambda: self._jobs.result(request.parameters[0], aside=aside))
        name = f'attachment; filename="{found.path.name}"'.encode()
        return Response(
            200, content_type=found.content_type, headers=((b"content-disposition", name),), stream=_pieces(found.path)
        )


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _of_query(request: Request) -> dict[str, Any]:
    """The fields of a query, which are texts: as a document would have them."""
    found: dict[str, Any] = {}
    for name, value in query_pairs(request):
        if name == "keep":
            found.setdefault("keep", []).append(value)
        elif name in found:
            raise Fault(400, f"{name[:40]!r} is there twice")
        elif name == "set_aside":
            found[name] = {"true": True, "false": False}.get(value.lower(), value)
        elif name == "rows":
            found[name] = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
        else:
            found[name] = value
    return found


def _asked(fields: Mapping[str, Any]) -> ScoringAsked:
    """What is asked for, of a document.

    Raises:
        Fault: 400, a field is unknown, or none of its kind.
    """
    if strange := sorted(set(fields) - set(ScoringAsked.__struct_fields__)):
        raise Fault(
            400, f"there is no field {strange[0][:40]!r}; there are {', '.join(ScoringAsked.__struct_fields__)}"
        )
    try:
        asked = msgspec.convert(fields, ScoringAsked)
    except msgspec.ValidationError as error:
        raise Fault(400, str(error)) from None
    texts = (asked.model, asked.source, asked.version, asked.time, asked.moment, *asked.keep)
    if any(len(text) > _LONGEST or not text.isprintable() for text in texts):
        raise Fault(400, f"a text is longer than {_LONGEST} characters, or not printable")
    if any(mark in asked.source for mark in ("/", "\\")) or asked.source.startswith("."):
        raise Fault(400, "a source is named as the app declares it; no path and no address is taken")
    if asked.form not in _RESULTS:
        raise Fault(400, f"form is {', '.join(_RESULTS)}")
    if asked.rows < 0:
        raise Fault(400, "rows is a number of rows")
    return asked
