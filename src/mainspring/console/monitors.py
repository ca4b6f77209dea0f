"""What the monitors' pages show: alarms, drift scores against their thresholds, performance with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.console.pages import MUTES, Page, alarm_row
from mainspring.console.state import ConsoleState
from mainspring.declare.duration import microseconds
from mainspring.monitoring.alerts import Alerts
from mainspring.monitoring.references import reference_of
from mainspring.ports.catalog import Event

__all__ = ["change_alarm", "monitor", "monitors"]

_SHOWN_FEATURES = 8
_NEAREST = 12
"""How many scores are seen at once; the others are a click away."""

_UNTOLD = {"method": "", "why": "", "selection": {"js": None, "p": None, "warned": False}}


def monitors(state: ConsoleState) -> Page:
    """All monitors with their open alarms, and every alarm so far."""
    catalog = state.services.catalog
    open_alerts = catalog.alerts(open_only=True)
    return {
        "monitors": [
            {
                "name": node.name,
                "open": sum(alert.monitor == node.name for alert in open_alerts),
                "blocks": len(_evaluations(state, node.name)),
                "false_alarms": node.spec["false_alarms"],
                "on_alarm": node.spec.get("on_alarm", "notify"),
                "watches": node.inputs[0],
            }
            for node in state.plan().of_kind("monitor")
        ],
        "alarms": [alarm_row(alert) for alert in catalog.alerts()],
    }


def monitor(state: ConsoleState, name: str) -> Page | None:
    """One monitor: charts, latest scores, alarms."""
    if state.plan().node(f"/monitor/{name}") is None:
        return None
    evaluations = _evaluations(state, name)
    performance = _of(state, name, "monitor.performance")
    last: Mapping[str, Any] = evaluations[-1].data if evaluations else {}
    return {
        "name": name,
        "mutes": MUTES,
        "alarms": [alarm_row(alert) for alert in state.services.catalog.alerts(monitor=name)],
        "facts": {"blocks judged": len(evaluations)} | ({"alpha": last["alpha"]} if last else {}) | _seen(state, name),
        "block": last.get("block"),
        "failing": list(last.get("failing", ())),
        "scores": _by_nearness([{"segment": "", **finding} for finding in last.get("findings", ())]),
        "nearest": _NEAREST,
        "segments": list(last.get("segments", ())),
        "outside": dict(last.get("outside", {})),
        "reported": [{"feature": feature, **numbers} for feature, numbers in last.get("reported", {}).items()],
        "drift": _drift_charts(evaluations),
        "performance": _performance_chart(performance),
        "measured": {**_UNTOLD, **performance[-1].data} if performance else None,
    }


def change_alarm(
    state: ConsoleState, name: str, identity: str, act: str, form: Mapping[str, str]
) -> dict[str, object] | None:
    """Acknowledge or mute an alarm; the alarm as it is then, or None where there is nothing like that.

    Args:
        state: the console's view of the process.
        name: the monitor; of the data's own alarms ``source/NAME`` or ``feature_view/NAME``.
        identity: the alarm's id.
        act: ``acknowledge`` or ``mute``.
        form: ``by``, who does it; ``for``, how long it is muted: ``4h``.

    Raises:
        UsageError: MS-2613, no open alarm has this id.
        DeclarationError: MS-1001, MS-1002, that is no length of time.
    """
    url = f"/{name}" if "/" in name else f"/monitor/{name}"
    if state.plan().node(url) is None or act not in ("acknowledge", "mute"):
        return None
    alerts, by = Alerts(state.services.catalog, name, state.now), form.get("by", "").strip()[:80] or "console"
    if act == "acknowledge":
        return alarm_row(alerts.acknowledge(identity, by))
    return alarm_row(alerts.mute(identity, state.now() + microseconds(form.get("for", ""), what="for"), by))


def _seen(state: ConsoleState, name: str) -> dict[str, object]:
    """What the monitor has said of its reference."""
    told = reference_of(state.services.catalog, name)
    if told is None:
        return {}
    data: Mapping[str, Any] = told.data
    left = [f"{found['values']} of {column}" for column, found in data["not_watched_apart"].items()]
    return {
        "reference blocks": data["reference_blocks"],
        "weak": "yes: fewer than 30 blocks" if data["weak"] else "no",
        "segments": len(data["segments"]),
        "values not watched apart": ", ".join(left) or "none",
    }


def _evaluations(state: ConsoleState, name: str) -> list[Event]:
    return _of(state, name, "monitor.evaluated")


def _of(state: ConsoleState, name: str, what: str) -> list[Event]:
    found = state.services.catalog.last_events(what=what, subject=f"/monitor/{name}", limit=400)
    latest = {event.data["block"]: event for event in reversed(found)}
    return [latest[block] for block in sorted(latest, key=lambda at: int(str(at)))]


def _by_nearness(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is above its threshold first, then by the share of the threshold that is reached."""

    def reached(score: Mapping[str, Any]) -> float:
        return float(score["score"] / (score["threshold"] or 1.0))

    return sorted(scores, key=lambda score: (score["state"] == "ok", -reached(score)))


def _drift_charts(evaluations: Sequence[Event]) -> list[dict[str, object]]:
    """For each feature the score of its block-by-block location, shape or rate as a share of its threshold."""
    series: dict[str, dict[int, float]] = {}
    for event in evaluations:
        for finding in event.data["findings"]:  # type: ignore[attr-defined]
            if finding["kind"] in ("shape", "location", "rate") and finding["threshold"] and not finding.get("segment"):
                values = series.setdefault(finding["feature"], {})
                block = int(str(event.data["block"]))
                values[block] = max(values.get(block, 0.0), finding["score"] / finding["threshold"])
    charts: list[dict[str, object]] = []
    for feature, values in sorted(series.items(), key=lambda item: -max(item[1].values(), default=0))[:_SHOWN_FEATURES]:
        x = sorted(values)
        drawn: list[dict[str, object]] = [
            {"name": "score / threshold", "y": [values[at] for at in x]},
            {"name": "threshold", "y": [1.0] * len(x), "dash": [4, 4]},
        ]
        charts.append({"title": feature, "x": [at / 1e6 for at in x], "lines": drawn})
    return charts


def _performance_chart(events: Sequence[Event]) -> dict[str, object] | None:
    if not events:
        return None
    return {
        "title": str(events[-1].data["metric"]),
        "x": [int(str(event.data["block"])) / 1e6 for event in events],
        "lines": [
            {"name": "value", "y": [event.data["value"] for event in events]},
            {"name": "low", "y": [event.data["low"] for event in events], "dash": [2, 4]},
            {"name": "high", "y": [event.data["high"] for event in events], "dash": [2, 4]},
        ],
    }
