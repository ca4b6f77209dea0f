"""What a run came to."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.engine.wire import StoredResult
from mainspring.errors import MainspringError

__all__ = ["RunReport", "StepReport", "StepResult"]

StepResult = Literal["ok", "hit", "failed", "skipped", "stopped", "unknown"]


class StepReport(msgspec.Struct, frozen=True):
    """What a step came to.

    Attributes:
        name: the task's name.
        status: ``ok`` it ran; ``hit`` a kept result was found; ``failed``; ``skipped`` what it needs failed;
            ``stopped``; ``unknown`` a step that must not be repeated, whose worker died.
        key: its cache key; empty when it has none.
        seconds: how long its last attempt took; for a map, from the first item to the last.
        outputs: the digest of its result; empty when there is none.
        result: the stored result, for `load`.
        error: why it failed.
        cacheable: whether the result is kept for other runs.
        note: why it is not, and other things that the user should know.
        items: how many items a map had.
    """

    name: str
    status: StepResult
    key: str = ""
    seconds: float = 0.0
    outputs: str = ""
    result: StoredResult | None = None
    error: MainspringError | None = None
    cacheable: bool = True
    note: str = ""
    items: int = 0


class RunReport(msgspec.Struct, frozen=True):
    """What a run came to.

    Attributes:
        run_id: its id in the catalog.
        status: ``ok`` or ``failed``; a run that is stopped raises KeyboardInterrupt instead.
        steps: inputs before what takes them.
        engine_seconds: the driver's own time: all but waiting for workers.
        wall_seconds: from the call to the return.
        notes: what concerns the run as a whole: how workers were started.
    """

    run_id: str
    status: Literal["ok", "failed"]
    steps: tuple[StepReport, ...]
    engine_seconds: float
    wall_seconds: float
    notes: tuple[str, ...] = ()

    def step(self, name: str) -> StepReport:
        """The report of a task.

        Raises:
            KeyError: there is no such task.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def error(self) -> MainspringError | None:
        """The first failure, or None."""
        return next((step.error for step in self.steps if step.error is not None), None)

    def check(self) -> RunReport:
        """This report, when all went well.

        Raises:
            MainspringError: the first failure.
        """
        if self.error is not None:
            raise self.error
        return self
