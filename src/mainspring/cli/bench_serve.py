"""``mainspring bench serve``: an endpoint under load, and what an answer costs."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.options import ended_like_stopped, open_app, project_options
from mainspring.cli.output import emit, lines, table, tell
from mainspring.config.settings import Setting, reveal
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.plan.graph import Plan
from mainspring.server.http.callers import named_keys
from mainspring.server.measuring.trial import LoadPlan, Trial, measure_here, measure_there
from mainspring.server.planning import plan_of

__all__ = ["serve"]


@click.command("serve", short_help="an endpoint under load: answers a second, latency, cost and where it goes")
@click.argument("endpoint", required=False)
@click.option("--concurrency", default="1,16,64", show_default=True, help="requests under way at once, one load each")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="of each load")
@click.option("--batch", type=click.IntRange(1, 100_000), default=1, show_default=True, help="rows a request")
@click.option(
    "--rows", "questions", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a file of them"
)
@click.option("--url", help="a server that runs already, over HTTP; it logs the load as it logs everything")
@click.option("--key", help="a key of it, as a secret reference: env:NAME")
@project_options
def serve(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    endpoint: str | None,
    concurrency: str,
    seconds: float,
    batch: int,
    questions: Path | None,
    url: str | None,
    key: str | None,
) -> int:
    """Ask ENDPOINT as fast as it answers, and tell what an answer costs.

    It is served in a process of its own, with everything on that is on in production. Asked are the newest rows of the
    source that its labels belong to, or those of --rows, an object a line; monitors see nothing of it. ENDPOINT may be
    left out when the app has one.
    """
    services, app = open_app(project, profile)
    try:
        plan = plan_of(app)
        name = _endpoint_of(plan, endpoint)
        many = _numbers(concurrency)
        given = [] if questions is None else _questions(questions)
        loads, told = LoadPlan(batch, many, seconds), (lambda _: None) if as_json else tell
        with ended_like_stopped():
            if url is None:
                secret = next((one.decode() for _, one, _ in named_keys(services.settings)), "")
                found = measure_here(services, plan, name, given, loads, key=secret, told=told)
            else:
                secret = "" if key is None else reveal(Setting("--key", key, "--key"), services.project)
                found = measure_there(services, plan, url, name, given, loads, key=secret, told=told)
    finally:
        services.close()
    if as_json:
        emit(msgspec.to_builtins(found))
    else:
        _tell_load(found)
    return 0


def _endpoint_of(plan: Plan, name: str | None) -> str:
    known = [node.name for node in plan.of_kind("endpoint", over="model")]
    own = None if name is None else name.strip("/").removeprefix("endpoint/")
    if own is None and len(known) == 1:
        return known[0]
    if own is None:
        raise UsageError(
            "which endpoint?" if known else "the app has no endpoint of a model",
            code="MS-2795",
            why=f"the app has {', '.join(known)}" if known else "a load is put on one",
            fix=f"mainspring bench serve {known[0]}" if known else "declare one: app.endpoint(model)",
        )
    if own not in known:
        raise UsageError(f"no endpoint is called {own!r}", code="MS-2602", fix=did_you_mean(own, known))
    return own


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 1 <= int(part) <= 4096 for part in parts):
        raise UsageError(
            f"--concurrency {text!r} is no list of numbers from 1 to 4096", code="MS-2796", fix="--concurrency 1,16,64"
        )
    return [int(part) for part in parts]


def _questions(path: Path) -> list[dict[str, object]]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=dict[str, object]))
        except msgspec.DecodeError as error:
            raise UsageError(
                f"line {number} of {path.name} is no JSON object",
                code="MS-2797",
                why=str(error),
                fix='{"origin": "JFK", "distance": 1089}',
            ) from error
    if not found:
        raise UsageError(f"{path.name} has no rows", code="MS-2797", fix="an object a line")
    return found


def _tell_load(found: Trial) -> None:
    rows = f"{found.rows:,} different rows" + (f", {found.batch} a request" if found.batch > 1 else "")
    lines([f"{found.endpoint}, answered by {found.model} version {found.version}: {rows}"])
    table(
        ("at once", "answers/s", "p50", "p99", "CPU an answer", "failed"),
        [
            (
                one.concurrency,
                f"{one.per_second:,.0f}",
                f"{one.p50_ms:.2f} ms",
                f"{one.p99_ms:.2f} ms",
                "elsewhere" if one.cpu_us is None else f"{one.cpu_us:,.0f} us",
                one.failed,
            )
            for one in found.loads
        ],
    )
    if (cost := found.cost) is not None:
        parts = f"HTTP {cost.http:,.0f}, the model {cost.model:,.0f}, JSON, features and the log {cost.rest:,.0f}"
        lines([f"of {cost.total:,.0f} us: {parts}", f"a core gives {1e6 / cost.total:,.0f} answers a second"])
    if found.promised_ms is not None:
        late = [one.concurrency for one in found.loads if one.p99_ms > found.promised_ms]
        kept = f"not kept at {', '.join(map(str, late))} at once" if late else "kept"
        lines([f"the promise of {found.promised_ms:g} ms for 99 in 100 is {kept}"])
    if busy := [one.concurrency for one in found.loads if one.generator > 0.9]:
        at = ", ".join(map(str, busy))
        lines([f"at {at} at once the load generator had a whole core to do: the server may give more"])
