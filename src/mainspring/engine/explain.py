"""Why a step ran, what differs between two runs, and what steps wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mainspring.engine.context import EngineServices
from mainspring.engine.logs import LogLine, follow_logs, read_logs
from mainspring.errors import UsageError
from mainspring.plan.closure import explain
from mainspring.ports.catalog import Catalog, Run, StepRow

__all__ = ["Difference", "LogLine", "RunDiff", "StepDiff", "Why", "diff", "logs", "run_called", "since", "why"]

_RUNS = 200
_MEANT = ("model", "step", "feature_view", "source")


class Difference(msgspec.Struct, frozen=True):
    """One thing in which two keys differ.

    Attributes:
        part: ``code``, ``param``, ``input``, ``seed``, ``env``, ``library``, ``python`` or ``schema``.
        name: which one: ``changed shop:price``, ``rate``, ``rows``.
        before: its value, or the start of its digest; empty when it was not there.
        after: likewise.
        by: for an input, the step that made it.
    """

    part: str
    name: str
    before: str = ""
    after: str = ""
    by: str = ""

    def __str__(self) -> str:
        change = f": {self.before or 'nothing'} -> {self.after or 'nothing'}" if self.before or self.after else ""
        return f"{self.part} {self.name}{change}" + (f" (made by {self.by})" if self.by else "")


class Why(msgspec.Struct, frozen=True):
    """Why a step ran, or did not, in its latest run.

    Attributes:
        name: the step.
        run_id: the run that is explained.
        status: what the step came to in it.
        against: the run it is compared with; empty when there is none.
        reasons: what differs in the key since then.
        words: the answer in one sentence.
        causes: the same for the steps whose results differ.
    """

    name: str
    run_id: str
    status: str
    against: str
    reasons: tuple[Difference, ...]
    words: str
    causes: tuple[Why, ...] = ()


class StepDiff(msgspec.Struct, frozen=True):
    """A step in two runs; a status is empty where the step was not part of the run."""

    name: str
    before: str
    after: str
    same_result: bool
    reasons: tuple[Difference, ...]
    seconds_before: float
    seconds_after: float


class RunDiff(msgspec.Struct, frozen=True):
    """What differs between two runs: steps, metrics (key, before, after) and where they ran."""

    before: Run
    after: Run
    steps: tuple[StepDiff, ...]
    metrics: tuple[tuple[str, float | None, float | None], ...]
    environment: tuple[Difference, ...]


# -- why --------------------------------------------------------------------------------------------------------------


def why(services: EngineServices, name: str, *, run_id: str | None = None) -> Why:
    """Why a step ran in its latest run, or in a given one, compared with the run before.

    Args:
        services: where runs are recorded.
        name: the task's name, or its last part: ``step/clean`` or ``clean``; of several tasks with that last part,
            the model, else the step, the feature view, the source.
        run_id: the run to explain: its id, the start of it, or ``latest``.

    Raises:
        UsageError: MS-2611, no run knows the step; MS-2612, there is no such run.
    """
    chosen = None if run_id is None else run_called(services.catalog, run_id).id
    found = _appearances(services.catalog, name, chosen)
    if not found:
        raise UsageError(
            f"no run has a step {name!r}",
            code="MS-2611",
            why="only what has run, or was looked up by a run, can be explained",
            fix="mainspring show run lists runs and their steps",
        )
    return _why(services.catalog, found[0], found[1] if len(found) > 1 else None, depth=0)


def since(catalog: Catalog, name: str, detail: Mapping[str, Any]) -> tuple[Difference, ...]:
    """In what the parts of a task's key differ from those of its last attempt; nothing when there was none."""
    rows = catalog.step_history(name, limit=1)
    return tuple(_differences(_detail(catalog, rows[0]), detail)) if rows else ()


def _appearances(catalog: Catalog, name: str, run_id: str | None) -> list[StepRow]:
    """The step's last attempt in each run, the newest run first; at most two."""
    found: list[StepRow] = []
    begun = run_id is None
    for run in catalog.runs(limit=_RUNS):
        begun = begun or run.id == run_id
        row = _row_of(catalog.steps(run.id), name) if begun else None
        if row is not None:
            found.append(row)
        if len(found) == 2:
            break
    return found


def _row_of(rows: list[StepRow], name: str) -> StepRow | None:
    """The last attempt of a step; a bare name means the model, else the step, the view, the source of that name."""
    whole = [row for row in rows if row.map_idx < 0]
    for wanted in (name, *(f"{kind}/{name}" for kind in _MEANT)):
        if own := [row for row in whole if row.name == wanted]:
            return own[-1]
    own = [row for row in whole if row.name.rpartition("/")[2] == name]
    return own[-1] if own else None


def _why(catalog: Catalog, row: StepRow, before: StepRow | None, depth: int) -> Why:
    against = before.run_id if before is not None else ""
    if before is None:
        return Why(row.name, row.run_id, row.status, "", (), _first(row))
    if row.cache_key == before.cache_key:
        return Why(row.name, row.run_id, row.status, against, (), _same_key(row, before))
    reasons = _differences(_detail(catalog, before), _detail(catalog, row))
    causes = []
    for reason in reasons:
        if reason.part == "input" and reason.by and depth < _RUNS:
            rows = [_row_of(catalog.steps(one.run_id), reason.by) for one in (row, before)]
            if rows[0] is not None and rows[1] is not None:
                causes.append(_why(catalog, rows[0], rows[1], depth + 1))
    differs = "; ".join(map(str, reasons)) or "its parts are no longer recorded"
    words = f"{row.name} has a new key: {differs}"
    if row.status == "hit":
        kept = catalog.cached([row.cache_key]).get(row.cache_key)
        by = f"run {kept.run_id}" if kept is not None else "an earlier run"
        words = f"{row.name} was not run: {by} has left a result of the same key; since the run before, {differs}"
    return Why(row.name, row.run_id, row.status, against, tuple(reasons), words, tuple(causes))


def _first(row: StepRow) -> str:
    kept = "a result of the same key was kept" if row.status == "hit" else "it had never been recorded before"
    return f"{row.name}: {kept}"


def _same_key(row: StepRow, before: StepRow) -> str:
    if row.status == "hit":
        return f"{row.name} was not run: nothing it can reach has changed"
    if before.status not in ("ok", "hit"):
        return f"{row.name} ran because it had not finished before ({before.status})"
    if before.note or row.note:
        return f"{row.name} ran although nothing has changed: {before.note or row.note}"
    return f"{row.name} ran although nothing has changed: its kept result was forced aside, gone, or may not be kept"


def _detail(catalog: Catalog, row: StepRow) -> Mapping[str, Any]:
    """The parts of a row's key; a hit's are with the attempt that computed it."""
    if "closure" in row.detail:
        return row.detail
    kept = catalog.cached([row.cache_key]).get(row.cache_key)
    if kept is None:
        return {}
    for one in catalog.steps(kept.run_id):
        if (one.idx, one.map_idx) == (kept.idx, kept.map_idx) and "closure" in one.detail:
            return one.detail
    return {}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    if not before or not after:
        return []
    found = [Difference("code", text) for text in explain(before["labels"], after["labels"])]
    found += _pairs("param", before["params"], after["params"], before.get("shown", {}), after.get("shown", {}))
    for one in _pairs("input", before["inputs"], after["inputs"], {}, {}):
        found.append(Difference("input", one.name, one.before, one.after, after.get("from", {}).get(one.name, "")))
    found += _pairs("env", before["env"], after["env"], {}, {})
    for part in ("seed", "python", "schema"):
        if before[part] != after[part]:
            found.append(Difference(part, "", str(before[part]), str(after[part])))
    versions = [dict(item.split("==") for item in side["distributions"]) for side in (before, after)]
    found += _pairs("library", versions[0], versions[1], versions[0], versions[1])
    if not found and before["closure"] != after["closure"]:
        found.append(Difference("code", "a function that the step calls through a library"))
    return found


def _pairs(
    part: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    shown_before: Mapping[str, str],
    shown_after: Mapping[str, str],
) -> list[Difference]:
    def spell(name: str, shown: Mapping[str, str], digests: Mapping[str, str]) -> str:
        return shown[name] if name in shown else digests.get(name, "").rpartition(":")[2][:12]

    return [
        Difference(part, name, spell(name, shown_before, before), spell(name, shown_after, after))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


# -- diff -------------------------------------------------------------------------------------------------------------


def diff(services: EngineServices, before: str, after: str) -> RunDiff:
    """What differs between two runs.

    Args:
        services: where runs are recorded.
        before: a run's id, the start of it, or ``latest``.
        after: likewise.

    Raises:
        UsageError: MS-2612, there is no such run.
    """
    catalog = services.catalog
    first, second = run_called(catalog, before), run_called(catalog, after)
    rows = [{row.name: row for row in catalog.steps(run.id) if row.map_idx < 0} for run in (first, second)]
    names = list(dict.fromkeys([*rows[0], *rows[1]]))
    steps = tuple(_step_diff(catalog, name, rows[0].get(name), rows[1].get(name)) for name in names)
    metrics = _metrics(*(_numbers(catalog, run, by.values()) for run, by in zip((first, second), rows, strict=True)))
    sides = [{key: str(value) for key, value in run.environment.items()} for run in (first, second)]
    return RunDiff(first, second, steps, metrics, tuple(_pairs("environment", *sides, *sides)))


def _numbers(catalog: Catalog, run: Run, rows: Iterable[StepRow]) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers that a run has measured, and those of the runs whose kept results it has used."""
    own = {metric.key: metric.value for metric in catalog.metrics(run.id)}
    kept = catalog.cached({row.cache_key for row in rows if row.status == "hit" and row.cache_key})
    used: dict[str, float] = {}
    for run_id in sorted({row.run_id for row in kept.values()} - {run.id}):
        used |= {metric.key: metric.value for metric in catalog.metrics(run_id)}
    return own, {**used, **own}


def _metrics(
    before: tuple[dict[str, float], dict[str, float]], after: tuple[dict[str, float], dict[str, float]]
) -> tuple[tuple[str, float | None, float | None], ...]:
    """What either run has measured, and what both have taken over, side by side."""
    keys = dict.fromkeys([*before[0], *after[0], *(key for key in before[1] if key in after[1])])
    return tuple((key, before[1].get(key), after[1].get(key)) for key in keys)


def run_called(catalog: Catalog, text: str) -> Run:
    """A run by its id, by the start of it when only one begins so, or by ``latest``.

    Raises:
        UsageError: MS-2612, there is no such run, or several begin so.
    """
    found = catalog.run(text)
    if found is not None:
        return found
    runs = catalog.runs(limit=1 if text == "latest" else _RUNS)
    near = [run for run in runs if run.id.startswith(text) or text == "latest"]
    if len(near) == 1:
        return near[0]
    raise UsageError(
        f"there is no run {text!r}" if not near else f"{len(near)} runs begin with {text!r}",
        code="MS-2612",
        why=f"such as {near[0].id} and {near[1].id}" if near else "",
        fix="mainspring show run lists them; the start of an id is enough, and latest is the newest",
    )


def _step_diff(catalog: Catalog, name: str, before: StepRow | None, after: StepRow | None) -> StepDiff:
    reasons: list[Difference] = []
    if before is not None and after is not None and before.cache_key != after.cache_key:
        reasons = _differences(_detail(catalog, before), _detail(catalog, after))
    results = [_result(catalog, row) for row in (before, after)]
    return StepDiff(
        name,
        before.status if before is not None else "",
        after.status if after is not None else "",
        results[0] == results[1] != "",
        tuple(reasons),
        _seconds(before),
        _seconds(after),
    )


def _result(catalog: Catalog, row: StepRow | None) -> str:
    if row is None:
        return ""
    if row.outputs:
        return f"{row.outputs[0].kind}:{row.outputs[0].digest}"
    kept = catalog.cached([row.cache_key]).get(row.cache_key) if row.status == "hit" else None
    return f"{kept.outputs[0].kind}:{kept.outputs[0].digest}" if kept is not None else ""


def _seconds(row: StepRow | None) -> float:
    return (row.ended - row.started) / 1e6 if row is not None and row.ended is not None else 0.0


# -- logs -------------------------------------------------------------------------------------------------------------


def logs(
    services: EngineServices,
    name: str,
    *,
    follow: bool = False,
    run_id: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[LogLine]:
    """What a step has written in its latest run, or in a given one, attempt by attempt.

    Args:
        services: where runs are recorded.
        name: the task's name, or its last part; of a run's name or id, the lines of all its steps.
        follow: go on until the run ends.
        run_id: the run: its id, the start of it, or ``latest``.
        sleep: waits between two looks.

    Raises:
        UsageError: MS-2611, no run knows the step; MS-2612, there is no such run.
    """
    wanted = None if run_id is None else run_called(services.catalog, run_id).id
    chosen, step = _logged(services.catalog, name, wanted)
    folder = Path(services.state, "log", chosen.id)
    if not follow:
        return read_logs(folder, step)
    return follow_logs(folder, step, lambda: _is_over(services.catalog, chosen.id), sleep)


def _logged(catalog: Catalog, name: str, run_id: str | None) -> tuple[Run, str]:
    """The run whose logs are wanted, and the step; an empty step is all of them."""
    for run in catalog.runs(limit=_RUNS):
        if run_id is not None and run.id != run_id:
            continue
        if name in (run.id, run.pipeline, run.pipeline.rpartition("/")[2]):
            return run, ""
        row = _row_of(catalog.steps(run.id), name)
        if row is not None:
            return run, row.name
    raise UsageError(
        f"no run has a step {name!r}", code="MS-2611", fix="mainspring show run lists runs and their steps"
    )


def _is_over(catalog: Catalog, run_id: str) -> bool:
    run = catalog.run(run_id)
    return run is None or run.status != "running"
