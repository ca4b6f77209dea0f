"""``mainspring show``: list or describe anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from mainspring.choose.services import Services
from mainspring.cli.describe import (
    index_of,
    prediction_lines,
    quality_lines,
    quality_of,
    rollout_lines,
    rollout_of,
    source_lines,
    table_of,
    version_rows,
)
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import ago, emit, lines, moment, table
from mainspring.cli.plan import told
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import DeclaredKind
from mainspring.errors import UsageError
from mainspring.features.logs.unused import Unused
from mainspring.features.steps import sources_of
from mainspring.plan.graph import Plan
from mainspring.server.answering.evaluations import Evaluated
from mainspring.server.answering.prompts import shares_of
from mainspring.server.features.sweeping import unused_in
from mainspring.server.features.vector_indexes import described_named
from mainspring.server.loop import online_views
from mainspring.server.planning import plan_of
from mainspring.server.trace import trace_prediction
from mainspring.server.workers.status import Flip, flips, read_statuses

__all__ = ["command"]

_DECLARED = tuple(kind.value for kind in DeclaredKind if kind is not DeclaredKind.ENTITY)
_SEEN = ("reference_blocks", "weak", "alpha", "features", "sources", "segments", "not_watched_apart")
_REPORTED = ("psi", "ks", "wasserstein", "chi2", "chi2_df", "chi2_p", "mean", "sd")
_RECORDED = ("run", "alert", "event", "alias", "unused")
_TABLES = ("source", "feature_view")
_KEPT = ("feature_view", "vector_index")
"""What leaves something behind that is swept a day after nothing reads it."""
_PLURAL = {kind + ("es" if kind[-1] in "sx" else "s"): kind for kind in (*_DECLARED, *_RECORDED, "prediction")}
"""Kinds as people say them of many: ``mainspring show runs``."""


@click.command(short_help="list or describe anything")
@click.argument("what", required=False)
@project_options
def command(what: str | None, project: Path | None, profile: str | None, as_json: bool) -> int:
    """List what there is, or of one KIND (source, model, run, alert, unused, ...), or describe KIND/NAME.

    prediction/ID leads from an answer back to the model version, its training rows, the run and the commit.
    """
    services, app = open_app(project, profile)
    plan = plan_of(app)
    word, _, name = (what or "").strip("/").partition("/")
    kind = _PLURAL.get(word, word)
    if not kind:
        _list(plan, _DECLARED, as_json)
    elif name:
        _describe(services, plan, kind, name, as_json)
    elif kind in _RECORDED:
        _recorded(services, plan, kind, as_json)
    elif kind in _DECLARED:
        _list(plan, (kind,), as_json)
    else:
        raise UsageError(f"there is no kind {kind!r}", code="MS-2602", fix=did_you_mean(kind, (*_DECLARED, *_RECORDED)))
    return 0


def _list(plan: Plan, kinds: tuple[str, ...], as_json: bool) -> None:
    nodes = [node for node in plan.nodes if node.kind in kinds]
    if as_json:
        emit(
            [{"url": node.url, "inputs": node.inputs, "origin": str(node.origin), "spec": node.spec} for node in nodes]
        )
        return
    rows = [(node.kind, node.name, ", ".join(node.inputs), str(node.origin)) for node in nodes]
    table(("kind", "name", "made from", "declared"), rows)


def _recorded(services: Services, plan: Plan, kind: str, as_json: bool) -> None:
    catalog = services.catalog
    readers: Mapping[str, Callable[[], list[dict[str, object]]]] = {
        "run": lambda: [_plain(item) for item in catalog.runs()],
        "alert": lambda: [_plain(item) for item in catalog.alerts()],
        "event": lambda: [_plain(item) for item in catalog.last_events()],
        "alias": lambda: [_plain(item) for item in catalog.aliases()],
        "unused": lambda: [msgspec.structs.asdict(one) for one in _unused(services, plan)],
    }
    columns = {
        "run": ("id", "pipeline", "status", "started", "reason"),
        "alert": ("id", "monitor", "segment", "kind", "state", "since", "features", "acked_by", "muted_until"),
        "event": ("seq", "at", "actor", "what", "subject"),
        "alias": ("kind", "name", "alias", "entity_id", "rev"),
        "unused": ("subject", "what", "since_us", "sweep_us"),
    }[kind]
    rows = readers[kind]()
    if as_json:
        emit(rows)
    else:
        table(columns, [[_cell(column, row[column]) for column in columns] for row in rows])


def _unused(services: Services, plan: Plan, of: str = "") -> list[Unused]:
    """What is kept and nothing reads; of one thing, as ``feature view NAME``, if that is given."""
    found = unused_in(services, plan, online_views(services, plan), sources_of(plan))
    return [one for one in found if not of or f"{of}, " in f"{one.what}, "]


def _plain(record: msgspec.Struct) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(record)
    return plain


def _cell(column: str, value: object) -> object:
    if column in ("started", "at", "since", "muted_until", "since_us", "sweep_us") and isinstance(value, int):
        return moment(value)
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _describe(services: Services, plan: Plan, kind: str, name: str, as_json: bool) -> None:
    if kind == "run":
        _describe_run(services, name, as_json)
        return
    if kind == "prediction":
        _describe_prediction(services, plan, name, as_json)
        return
    node = plan.node(f"/{kind}/{name}")
    if node is None:
        known = [other.name for other in plan.of_kind(kind)]
        raise UsageError(f"no {kind} is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
    versions = services.catalog.entities(kind, name)
    history = services.catalog.step_history(f"{kind}/{name}", limit=5)
    kept = _unused(services, plan, f"{kind.replace('_', ' ')} {name}") if kind in _KEPT else []
    if as_json:
        emit(
            {
                "url": node.url,
                "spec": node.spec,
                "inputs": node.inputs,
                "origin": str(node.origin),
                "columns": {field.name: str(field.type) for field in node.fields},
                "versions": [_plain(item) for item in versions],
                "aliases": [_plain(item) for item in services.catalog.aliases(kind, name)],
                "steps": [_plain(item) for item in history],
                **({"monitor": _watched(services, name)} if kind == "monitor" else {}),
                **({"table": table_of(services, plan, kind, name)} if kind in _TABLES else {}),
                **({"quality": quality_of(services, kind, name)} if kind in _TABLES else {}),
                **({"unused": kept} if kept else {}),
                **({"rollout": rollout_of(services, plan, node)} if kind in ("endpoint", "model") else {}),
                **({"flips": msgspec.to_builtins(_flips(services, name))} if kind == "model" else {}),
                **({"index": index_of(services, name)} if kind == "index" else {}),
                **({"vector_index": described_named(services, plan, name)} if kind == "vector_index" else {}),
            }
        )
        return
    lines([f"{node.url}  declared at {node.origin}", *(f"  from {url}" for url in node.inputs)])
    lines(f"  {key}: {value}" for key, value in node.spec.items() if key != "code" and value is not None)
    if kind == "model" and versions:
        metric = str(node.spec["metric"])
        rows = version_rows(versions, services.catalog.aliases(kind, name), metric)
        table(("version", "registered", metric, "format", "alias"), rows)
    for step in history:
        took = "" if step.ended is None else ago(step.ended - step.started)
        print(f"  {moment(step.started)}  {step.status}  {took}  {step.note or step.error}")
    _describe_more(services, plan, kind, name)
    lines(f"  kept, and nothing reads it: {text}" for text in told(kept))
    if kind in ("endpoint", "model"):
        lines(rollout_lines(rollout_of(services, plan, node)))
    if kind == "model":
        lines(f"  {flip.told()}" for flip in _flips(services, name))


def _flips(services: Services, model: str) -> list[Flip]:
    """Versions that the workers of the server of this project do not answer with yet."""
    return [flip for flip in flips(read_statuses(services.state)) if flip.model == model]


def _describe_more(services: Services, plan: Plan, kind: str, name: str) -> None:
    """What only one kind of thing has."""
    if kind in _TABLES:
        lines(source_lines(table_of(services, plan, kind, name)))
        lines(quality_lines(quality_of(services, kind, name)))
    elif kind == "index":
        _describe_index(index_of(services, name))
    elif kind == "vector_index":
        found = described_named(services, plan, name)
        lines(f"  {key}: {found[key]}" for key in ("dims", "state", "entities", "behind", "collection"))
    elif kind == "prompt":
        _describe_prompt(services, name)
    elif kind == "evaluation":
        _describe_evaluation(services, name)
    elif kind == "monitor":
        _describe_monitor(_watched(services, name))


def _describe_prompt(services: Services, name: str) -> None:
    catalog = services.catalog
    rows = [(str(one.version), moment(one.created), one.digest) for one in catalog.entities("prompt", name)]
    table(("version", "declared", "id"), rows)
    for alias in catalog.aliases("prompt_split", name):
        shares = shares_of(catalog, name, alias.alias)
        told = ", ".join(f"version {version} {share:.0%}" for version, share in sorted(shares.items()))
        print(f"  {alias.alias}: {told}")


def _describe_evaluation(services: Services, name: str) -> None:
    for event in services.catalog.last_events(what="evaluation.done", subject=f"/evaluation/{name}", limit=1):
        done = msgspec.convert(event.data, Evaluated)
        table(("measure", "mean"), [(key, f"{value:.4g}") for key, value in sorted(done.scores.items())])
        lines(f"  {one[name]:.3g}  {one['question']}" for one in done.worst)


def _describe_index(found: Mapping[str, Any]) -> None:
    lines(f"  put aside: {name}: {reason}" for name, reason in found["quarantined"].items())
    rows = [
        (item["version"], item["state"], item["rows"], item["embedder_id"], moment(item["created_us"]))
        for item in found["versions"]
    ]
    table(("version", "state", "chunks", "embedder", "made"), rows)
    for move in found["moves"][:5]:
        print(f"  {moment(move['at_us'])}  version {move['version']} live, {move['reason']}, by {move['by']}")


def _watched(services: Services, name: str) -> dict[str, Any]:
    """What a monitor has said last: of its reference, of a block, of a block's labels; and its open alarms."""
    found: dict[str, Any] = {}
    for what in ("reference", "evaluated", "performance"):
        told = services.catalog.last_events(what=f"monitor.{what}", subject=f"/monitor/{name}", limit=1)
        found[what] = told[0].data if told else None
    return {**found, "alarms": [_plain(a) for a in services.catalog.alerts(open_only=True, monitor=name)]}


def _describe_monitor(found: Mapping[str, Any]) -> None:
    reference, evaluated, performance = found["reference"], found["evaluated"], found["performance"]
    if reference is not None:
        lines(f"  {key}: {reference[key]}" for key in _SEEN)
    for alarm in found["alarms"]:
        where = f" in {alarm['segment']}" if alarm["segment"] else ""
        print(f"  alarm {alarm['id']}: {alarm['kind']} of {', '.join(alarm['features'])}{where}, {alarm['state']}")
    if performance is not None:
        share = f"{performance['n']} labels, coverage {_short(performance['coverage'])}"
        bounds = f"[{_short(performance['low'])}, {_short(performance['high'])}]"
        when = moment(performance["block"])
        print(f"  {performance['metric']} {_short(performance['value'])} {bounds} on {share}, block {when}")
    if evaluated is None:
        return
    failing = ", ".join(evaluated.get("failing", ()))
    print(f"block {moment(evaluated['block'])}" + (f", muted: {failing} failed" if failing else ""))
    numbers = ("score", "threshold", "effect", "floor")
    table(
        ("feature", "segment", "kind", "window", *numbers, "state"),
        [
            (f["feature"], f.get("segment", ""), f["kind"], f["window"], *(_short(f[n]) for n in numbers), f["state"])
            for f in evaluated["findings"]
        ],
    )
    print("reported only; these decide nothing")
    table(
        ("feature", *_REPORTED),
        [
            (feature, *(_short(numbers[name]) for name in _REPORTED))
            for feature, numbers in evaluated.get("reported", {}).items()
        ],
    )


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _describe_prediction(services: Services, plan: Plan, name: str, as_json: bool) -> None:
    found = trace_prediction(services, plan, name)
    if found is None:
        raise UsageError(
            f"no prediction is called {name!r}",
            code="MS-2602",
            why="no endpoint's log has it; answers that were not logged (log=) cannot be traced",
            fix="use the id of an answer of POST /endpoint/NAME",
        )
    if as_json:
        emit(msgspec.to_builtins(found))
    else:
        lines(prediction_lines(found))


def _describe_run(services: Services, run_id: str, as_json: bool) -> None:
    matching = [item for item in services.catalog.runs(limit=1000) if item.id.startswith(run_id) or run_id == "latest"]
    if not matching:
        raise UsageError(f"no run is called {run_id!r}", code="MS-2602", fix="mainspring show run")
    run = matching[0]
    steps = services.catalog.steps(run.id)
    if as_json:
        emit({"run": _plain(run), "steps": [_plain(step) for step in steps]})
        return
    lines([f"run {run.id}  {run.pipeline}  {run.status}  {moment(run.started)}"])
    rows = [
        (
            step.name,
            step.status,
            "" if step.ended is None else f"{(step.ended - step.started) / 1e6:.3f}",
            step.note or step.error,
        )
        for step in steps
    ]
    table(("step", "status", "seconds", "note"), rows)
