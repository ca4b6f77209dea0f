"""How a serving process is: what `/actuator/health` says of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.assistants.outside import Outside
from mainspring.errors import MainspringError
from mainspring.server.state import WorkerState

__all__ = ["health_of"]

_ASKED = ("catalog", "online")
"""The stores that a served request needs; they are asked for the health page."""


def health_of(state: WorkerState, outside: Mapping[str, Outside]) -> Mapping[str, tuple[str, Mapping[str, object]]]:
    """The status and facts of each part, by its name.

    Args:
        state: the process's.
        outside: the MCP servers that its assistants use.
    """
    ready = state.ready()
    models = {name: live.version for name, live in state.models.all().items()}
    found: dict[str, tuple[str, Mapping[str, object]]] = {
        "models": ("UP" if ready else "OUT_OF_SERVICE", {"versions": models})
    }
    if late := state.watch.late():  # the old versions go on: readiness does not depend on it
        found["versions"] = ("DOWN", {"waiting": late})
    for port in (*_ASKED, *(("budgets",) if state.services.settings.section("budgets") else ())):
        try:
            found[port] = ("UP", state.services.health(port))
        except MainspringError as error:
            found[port] = ("DOWN", {"error": error.what})
    for name, one in outside.items():  # assistants answer without them
        found[f"mcp.{name}"] = ("DOWN", {"error": one.fault.partition("\n")[0]}) if one.fault else ("UP", {})
    logs = state.logs.values()
    facts: dict[str, object] = {"rows": sum(log.rows for log in logs), "dropped": sum(log.dropped for log in logs)}
    faults = {name: log.fault for name, log in state.logs.items() if log.fault}
    if faults:  # answers go on: readiness does not depend on it
        facts["faults"] = faults
    found["predictionLog"] = ("DOWN" if faults else "UP", facts)
    return found
