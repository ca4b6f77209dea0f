"""Rollouts in the catalog: each move is a new record and a compare-and-swap of the alias that names the newest one.

Whoever dies between two moves leaves one whole record; whoever comes late finds the alias moved, and reads again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.declare.rollout import RolloutStep, spell_step
from mainspring.errors import RefusedError
from mainspring.plan.encoding import digest
from mainspring.ports.catalog import Alias, Catalog, Entity, Event

__all__ = ["CURRENT", "ROLLOUT", "Rollout", "begin", "change", "current", "of_entity", "stop"]

ROLLOUT, CURRENT = "rollout", "current"
"""The kind of the records, and the alias of a model's newest one."""

State = Literal["running", "promoting", "promoted", "stopped"]


class Rollout(msgspec.Struct, frozen=True):
    """A version on its way to take over from another.

    Attributes:
        id: the rollout's id; it also spreads the callers.
        model: the model's name.
        stable: the version that answers the rest.
        stable_id: its id in the catalog.
        canary: the version that is tried.
        canary_id: its id in the catalog.
        steps: the stretches it goes through.
        step: the place of the one under way.
        state: ``running``; ``promoting`` while the champion is moved; ``promoted`` and ``stopped`` are the ends.
        why: why it was begun, or has ended.
        by: who has begun it.
        started: when, UTC microseconds.
        since: when the step began to be served, UTC microseconds; 0 before.
        moved: counts its records.
        before: the counts of calls when the step began, which the step is not judged by; empty in the first one.
        found: the measures at its end or at the beginning of the step, as its judge has seen them.
    """

    id: str
    model: str
    stable: int
    stable_id: str
    canary: int
    canary_id: str
    steps: tuple[RolloutStep, ...]
    step: int = 0
    state: State = "running"
    why: str = ""
    by: str = ""
    started: int = 0
    since: int = 0
    moved: int = 0
    before: dict[str, object] = {}
    found: dict[str, object] = {}

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("promoted", "stopped")

    @property
    def now(self) -> RolloutStep:
        """The step under way."""
        return self.steps[min(self.step, len(self.steps) - 1)]

    def told(self) -> str:
        """What it is at, in a line."""
        head = f"version {self.canary} beside version {self.stable}"
        if self.state == "running":
            return f"{head}: {spell_step(self.now)}, step {self.step + 1} of {len(self.steps)}"
        return f"{head}: {self.state}{f', {self.why}' if self.why else ''}"


def of_entity(entity: Entity) -> Rollout:
    """The rollout of a record."""
    return msgspec.convert(entity.spec, Rollout)


def current(catalog: Catalog, model: str) -> tuple[Rollout | None, Alias | None]:
    """A model's newest rollout, over or not, and the alias that a move of it must find."""
    alias = catalog.alias(ROLLOUT, model, CURRENT)
    entity = None if alias is None else catalog.entity_by_id(alias.entity_id)
    return (None if entity is None else of_entity(entity)), alias


def begin(
    catalog: Catalog, stable: Entity, canary: Entity, steps: tuple[RolloutStep, ...], actor: str, why: str
) -> Rollout:
    """Begin a rollout; one that is under way for another version ends.

    Raises:
        RefusedError: MS-4360, this version's is under way already; MS-4361, it is the one that answers.
    """
    if stable.id == canary.id:
        raise RefusedError(
            f"version {canary.version} of model {canary.name!r} is the champion",
            code="MS-4361",
            why="a rollout goes from the champion to another version",
            fix=f"mainspring show model/{canary.name}",
        )
    while True:
        now, alias = current(catalog, canary.name)
        if now is not None and not now.over:
            if now.canary_id == canary.id:
                raise RefusedError(
                    f"version {canary.version} of model {canary.name!r} is being rolled out already",
                    code="MS-4360",
                    why=now.told(),
                    fix=f"mainspring promote {canary.name} {canary.version}, or mainspring rollback ENDPOINT",
                )
            change(catalog, now, alias, actor, state="stopped", why=f"version {canary.version} came")
            continue
        at = now_us()
        fresh = Rollout(
            new_id(),
            canary.name,
            stable.version,
            stable.id,
            canary.version,
            canary.id,
            steps,
            why=why,
            by=actor,
            started=at,
        )
        if _record(catalog, fresh, alias, actor) is not None:
            return fresh


def change(catalog: Catalog, rollout: Rollout, alias: Alias | None, actor: str, **changes: object) -> Rollout | None:
    """Move a rollout on from where it was seen; None when somebody else has moved it meanwhile."""
    moved = msgspec.structs.replace(rollout, moved=rollout.moved + 1, **changes)
    return None if _record(catalog, moved, alias, actor) is None else moved


def stop(catalog: Catalog, model: str, actor: str, why: str) -> Rollout | None:
    """End a rollout that is under way, so that its version answers nobody; None when there is none.

    One that is at moving the champion goes on: it is too late to stop it, and a rollback undoes it.
    """
    while True:
        now, alias = current(catalog, model)
        if now is None or now.state != "running":
            return None
        if (done := change(catalog, now, alias, actor, state="stopped", why=why)) is not None:
            return done


def _record(catalog: Catalog, rollout: Rollout, alias: Alias | None, actor: str) -> Alias | None:
    at = now_us()
    offered = Entity(
        new_id(), ROLLOUT, rollout.model, 0, digest(msgspec.json.encode(rollout)), msgspec.to_builtins(rollout), at
    )
    entity = catalog.add_entity(offered)
    data: dict[str, object] = {"rollout": rollout.id, "version": rollout.canary, "state": rollout.state}
    data |= {"told": rollout.told()}
    event = Event(at, actor, f"model.rollout.{rollout.state}", f"/model/{rollout.model}", data)
    return catalog.move_alias(
        Alias(ROLLOUT, rollout.model, CURRENT, entity.id, 0 if alias is None else alias.rev), event
    )
