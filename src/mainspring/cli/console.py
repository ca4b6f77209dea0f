"""The console for the verbs that serve: loaded when it is shown, not for a server without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.lazy import lazy
from mainspring.server.answering.talking import Talking
from mainspring.server.http.asgi import AsgiApp
from mainspring.server.listeners import Ask, MakeConsole
from mainspring.server.state import WorkerState

if TYPE_CHECKING:
    import mainspring.console.app as app
    import mainspring.console.state as state
else:
    app, state = lazy("mainspring.console.app"), lazy("mainspring.console.state")

__all__ = ["console_of"]


def console_of(services: Services) -> MakeConsole:
    """Builds the console over a serving process's state."""

    def make(worker: WorkerState, ask: Ask, talking: Talking) -> AsgiApp:
        shown = state.ConsoleState(services, lambda: worker.plan, worker.report, ask, talking, now_us)
        return cast(AsgiApp, app.console_app(shown))

    return make
