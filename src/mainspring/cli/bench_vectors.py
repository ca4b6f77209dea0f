"""``mainspring bench vectors``: the choice of a vector store, measured on your own index."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.options import ended_like_stopped, open_app, project_options
from mainspring.cli.output import emit, lines, table, tell
from mainspring.declare.data import did_you_mean
from mainspring.errors import ServiceError, UsageError
from mainspring.plan.graph import Plan
from mainspring.rag.choosing import Measured
from mainspring.rag.trial import Trial, candidates, try_stores
from mainspring.server.planning import plan_of

__all__ = ["vectors"]

_COLUMNS = (
    "store", "recall", "questions/CPU s", "questions/s", "1 % filter", "k hits", "build CPU s", "disk", "memory",
)  # fmt: skip


@click.command("vectors", short_help="vector stores compared on your own index, and one recommended")
@click.argument("index", required=False)
@click.option("--rows", type=click.IntRange(min=1), default=100_000, show_default=True, help="most rows, by sample")
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="hits of a question")
@click.option(
    "--store", "given", multiple=True, metavar="NAME=URL", help="also this service, such as pgvector=env:DATABASE_URL"
)
@project_options
def vectors(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    index: str | None,
    rows: int,
    k: int,
    given: tuple[str, ...],
) -> int:
    """Build the rows of INDEX in every vector store that is here, ask each the same, and recommend one.

    Measured are the embedded stores and those whose URL a profile has or --store gives. INDEX may be left out when
    the app has one. The index itself is only read; what is built to compare is removed, also when this is stopped.
    """
    services, app = open_app(project, profile)
    name = _index_of(plan_of(app), index)
    try:
        with ended_like_stopped():
            found = candidates(services, _parsed(given))
            say = (lambda _: None) if as_json else tell
            trial = try_stores(services, name, found, limit=rows, k=k, progress=say)
    finally:
        services.close()
    if not trial.report.measured:
        raise ServiceError(
            "no vector store could be measured",
            code="MS-4280",
            why="; ".join(f"{store}: {why}" for store, why in trial.left_out.items()),
            fix="mainspring conditions vectors tells what each needs",
        )
    if as_json:
        emit(_plain(trial))
    else:
        _tell(trial)
    return 0


def _index_of(plan: Plan, name: str | None) -> str:
    known = [node.name for node in plan.of_kind("index")]
    own = None if name is None else name.strip("/").removeprefix("index/")
    if own is None and len(known) == 1:
        return known[0]
    if own is None:
        raise UsageError(
            "which index?" if known else "the app has no index",
            code="MS-2693",
            why=f"the app has {', '.join(known)}" if known else "vector stores are compared on the rows of one",
            fix=f"mainspring bench vectors {known[0]}" if known else "declare one: app.index(app.documents(...))",
        )
    if own not in known:
        raise UsageError(f"no index is called {own!r}", code="MS-2602", fix=did_you_mean(own, known))
    return own


def _parsed(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, sign, url = text.partition("=")
        if not sign or not name or not url:
            raise UsageError("--store is not NAME=URL", code="MS-2640", fix="--store pgvector=env:DATABASE_URL")
        found[name] = url
    return found


def _plain(trial: Trial) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(trial)
    report = trial.report
    stores = [
        {
            **msgspec.to_builtins(one),
            "questions_per_cpu_second": one.plain.per_cpu_second,
            "questions_per_second": one.plain.per_second,
            "build_cpu_seconds": one.build.cpu,
        }
        for one in report.measured
    ]
    plain["report"] = {**msgspec.to_builtins(report), "measured": stores}
    return plain


def _tell(trial: Trial) -> None:
    report = trial.report
    sample = f" of {trial.of:,}" if trial.of > report.rows else ""
    where = "left out of what is indexed" if trial.held_out else "which are in the index too: few rows flatter recall"
    lines(
        [
            f"{trial.index} version {trial.version}, in {trial.current}: {report.rows:,} rows{sample}",
            f"{trial.questions:,} questions are rows {where}",
        ]
    )
    table(_COLUMNS, [_row(one) for one in report.measured])
    for one in report.measured:
        for way, asked in (("", one.plain), (" under the filter", one.filtered)):
            if asked.why_fewer:
                print(f"  {one.store}{way} has fewer than {asked.asked_for} hits: {asked.why_fewer}")
    lines(f"  {store} is left out: {why}" for store, why in trial.left_out.items())
    lines([_advice(trial)])
    lines(f"  {why}" for why in report.why)


def _row(one: Measured) -> tuple[object, ...]:
    away = "elsewhere"
    return (
        one.store,
        f"{one.plain.recall:.3f}",
        away if one.elsewhere else f"{one.plain.per_cpu_second:,.0f}",
        f"{one.plain.per_second:,.0f}",
        f"{one.filtered.recall:.3f}",
        f"{one.filtered.complete:.0%} of {one.filtered.asked_for}",
        away if one.elsewhere else f"{one.build.cpu:.2f}",
        f"{one.build.bytes_allocated / 1e6:,.1f} MB",
        away if one.elsewhere else f"{one.memory / 1e6:,.1f} MB",
    )


def _advice(trial: Trial) -> str:
    chosen = trial.report.recommended
    if not chosen:
        return "none is recommended"
    if chosen == trial.current:
        return f"stay with {chosen}"
    return f'take {chosen}: vectors.adapter = "{chosen}", then mainspring apply builds the index there'
