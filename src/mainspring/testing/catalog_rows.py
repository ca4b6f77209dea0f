"""Rows for the tests of a catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.ports.catalog import Alert, Artifact, Catalog, Edge, Entity, Event, OutputRow, Run, StepCommit, StepRow

if TYPE_CHECKING:
    import hypothesis
else:
    hypothesis = lazy("hypothesis")

__all__ = ["Opening", "a_commit", "a_run", "a_step", "an_alert", "an_entity", "an_event", "for_all"]

Opening = Callable[[], Catalog]
"""Opens the same catalog each time; it can be pickled."""


def a_run(number: int, *, pipeline: str = "train", owner: str = "driver", until: int = 1000) -> Run:
    """A run that has begun at `number`."""
    return Run(f"{number:032x}", pipeline, "running", number, lease_owner=owner, lease_until=until)


def a_step(run: Run, idx: int = 0, map_idx: int = 0, attempt: int = 1, key: str = "") -> StepRow:
    """An attempt that has begun."""
    return StepRow(run.id, idx, map_idx, attempt, f"step{idx}", "running", key or f"key{idx}", 10 + idx)


def a_commit(row: StepRow, owner: str = "driver", mark: str = "a") -> StepCommit:
    """All that a finished attempt can record; `mark` tells one commit from another."""
    digest = mark * 40
    done = replace(
        row, status="ok", ended=20, outputs=(OutputRow("result", digest, "json", 3),), log_digest="log" + mark
    )
    return StepCommit(
        done,
        owner,
        (Artifact(digest, "json", 3, "application/json", {"by": mark}),),
        (Edge(digest, "produced", row.run_id),),
        Event(20, owner, "step.ok", row.name, {"mark": mark}),
    )


def an_entity(number: int, *, name: str = "delay", digest: str = "", kind: str = "model") -> Entity:
    """A version that was made at `number`; its own version number is not yet known."""
    return Entity(f"{number:032x}", kind, name, 0, digest or f"{number:040x}", {"n": number, "é": [1, None]}, number)


def an_event(number: int, what: str = "thing.done", subject: str = "/thing") -> Event:
    """An event at `number`."""
    return Event(number, "tester", what, subject, {"n": number})


def an_alert(identity: str, fingerprint: str = "f", opened: int = 1, monitor: str = "delays") -> Alert:
    """An alarm that fires."""
    return Alert(identity, fingerprint, monitor, "", "shape", "firing", 5, opened, 9.5, 4.0, 0.25, ("x", "y"), {"w": 7})


def for_all(check: Callable[..., None], *drawn: object) -> None:
    """Check what hypothesis draws from strategies, inside a test that has fixtures of its own."""
    settings = hypothesis.settings(max_examples=60, deadline=None, database=None)
    settings(hypothesis.given(*drawn)(check))()
