"""Carries rollouts on: what each process has seen goes into the catalog, and whoever looks first makes the next move.

Every move is a compare-and-swap, so that several processes may drive at once, and one that dies leaves a whole state:
``promoting`` is recorded before the champion moves, and is finished by whoever finds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from mainspring.catalog.rollouts import ROLLOUT, Rollout, change, current
from mainspring.choose.services import Services
from mainspring.declare.declaration import spec_of
from mainspring.declare.model import ModelDeclaration
from mainspring.declare.record import Kind
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Alias, Block, Catalog
from mainspring.server.rollouts.judge import FIRST_LOOK, Verdict, judged
from mainspring.server.rollouts.ledger import DIFFERENCES, Ledgers
from mainspring.server.rollouts.loading import ModelLoading
from mainspring.server.rollouts.quality import Quality
from mainspring.server.rollouts.reading import shadow_log
from mainspring.serving.predlog.reader import LogReader, compact
from mainspring.serving.rollout.evidence import Counted, summed
from mainspring.serving.rollout.shadow import Differences
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.versions import State
from mainspring.training.versions import CHAMPION, KIND, move

__all__ = ["Before", "Rollouts", "Seen", "described", "following", "seen_of"]

_ACTOR = "rollout"
_KEEP_SEGMENTS = 4


class Before(msgspec.Struct, frozen=True):
    """What had been seen of a rollout when its step began.

    A step is judged by its own calls. With those of other steps, when the versions had other shares, an outage of both
    would be blamed on the version whose share was greater meanwhile.
    """

    stable: Counted = Counted()
    tried: Counted = Counted()


class Seen(msgspec.Struct, frozen=True):
    """What all processes have seen of a rollout.

    Attributes:
        stable: calls of the version that answers the rest.
        canary: calls of the one that is tried.
        differences: between a shadow's scores and those that were given; None where no shadow was asked.
    """

    stable: Counted
    canary: Counted
    differences: Differences | None = None

    def tried(self) -> Counted:
        """The calls of the version that is tried, those that it was asked as a shadow with them."""
        if self.differences is None:
            return self.canary
        return summed((self.canary, Counted(self.differences.calls, self.differences.failed)))

    def of_step(self, rollout: Rollout) -> tuple[Counted, Counted]:
        """The calls of both versions since the step under way began."""
        before = msgspec.convert(rollout.before, Before, strict=False)
        return self.stable.since(before.stable), self.tried().since(before.tried)


def monitor_of(rollout: str) -> str:
    """The name under which a rollout's counts are kept."""
    return f"{ROLLOUT}/{rollout}"


def seen_of(catalog: Catalog, rollout: Rollout) -> Seen:
    """What all processes, those that are gone too, have seen of a rollout."""
    parts: dict[str, list[bytes]] = {}
    for block in catalog.blocks(monitor_of(rollout.id)):
        parts.setdefault(block.feature, []).append(block.state)

    def of(version: int) -> Counted:
        return summed(msgspec.json.decode(state, type=Counted) for state in parts.get(str(version), ()))

    shadows = [msgspec.json.decode(state, type=Differences) for state in parts.get(DIFFERENCES, ())]
    return Seen(of(rollout.stable), of(rollout.canary), _together(shadows) if shadows else None)


def _together(found: Sequence[Differences]) -> Differences:
    return Differences(
        sum(one.calls for one in found),
        sum(one.rows for one in found),
        sum(one.failed for one in found),
        sum(one.dropped for one in found),
        sum(one.flips for one in found),
        sum(one.total for one in found),
        max(one.greatest for one in found),
    )


def following(
    rollout: Rollout, now: int, champion: str, seen: Seen, verdict: Verdict, *, live: bool, broken: str = ""
) -> Mapping[str, object]:
    """What changes of a running rollout: nothing, the beginning of its step, the next step, or its end.

    Args:
        rollout: as it is.
        now: the clock, UTC microseconds.
        champion: the id of the version that the champion's alias points at.
        seen: what came of its calls.
        verdict: what its judge says.
        live: whether this process parts its calls by it.
        broken: why its version cannot be loaded, or nothing.
    """
    if champion == rollout.canary_id:
        return {"state": "promoted", "why": "it was made the champion meanwhile"}
    if champion != rollout.stable_id:
        return {"state": "stopped", "why": "another version is the champion meanwhile"}
    found = list(msgspec.to_builtins(verdict.looks))
    if broken:
        return {"state": "stopped", "why": f"it cannot be loaded: {broken}"}
    if verdict.why:
        return {"state": "stopped", "why": verdict.why, "found": {"looks": found}}
    if not rollout.since:
        return {"since": now} if live else {}
    step, (_, tried) = rollout.now, seen.of_step(rollout)
    calls = tried.calls if not step.shadow else 0 if seen.differences is None else seen.differences.calls
    if not step.for_us or now - rollout.since < step.for_us or calls < FIRST_LOOK:
        return {}
    if rollout.step + 1 < len(rollout.steps):
        before = msgspec.to_builtins(Before(seen.stable, seen.tried()), str_keys=True)
        return {"step": rollout.step + 1, "since": now, "before": before, "found": {"looks": found}}
    return {"state": "promoting", "found": {"looks": found}}


class Rollouts:
    """The rollouts of the models that a process serves.

    Args:
        services: the project's ports.
        plan: the app's graph.
        loading: the versions of this process.
        table: the models.
        metrics: where shares and differences are shown.
        tell: told of every move.
        now: the clock, UTC microseconds.
        ledgers: what all workers have counted.
        lacking: called for the versions that some worker cannot load, with the reason, by model.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        loading: ModelLoading,
        table: ModelTable,
        metrics: Metrics,
        tell: Callable[[str], None],
        now: Callable[[], int],
        ledgers: Ledgers,
        lacking: Callable[[], Mapping[str, Mapping[str, str]]] = lambda: {},
    ) -> None:
        self._ledgers = ledgers
        self._lacking = lacking
        self._services = services
        self._plan = plan
        self._loading = loading
        self._table = table
        self._metrics = metrics
        self._tell = tell
        self._now = now
        self._qualities: dict[str, Quality] = {}
        self._written: dict[str, dict[tuple[str, str, str], bytes]] = {}
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def once(self) -> int:
        """Look at every rollout, and move those on that are due; how many are under way."""
        running = 0
        with self._lock:
            for name in self._loading.names():
                rollout, alias = current(self._services.catalog, name)
                if (before := self._known.get(name)) and (rollout is None or rollout.over or rollout.id != before):
                    self._ledgers.forget(self._known.pop(name))
                if rollout is None or rollout.over:
                    self._qualities.pop(name, None)
                    if rollout is not None:
                        self._ledgers.forget(rollout.id)
                    continue
                self._known[name] = rollout.id
                running += 1
                if rollout.state == "promoting":
                    self._finish(rollout, alias)
                else:
                    self._carry_on(name, rollout, alias)
        return running

    def _carry_on(self, name: str, rollout: Rollout, alias: Alias | None) -> None:
        catalog = self._services.catalog
        self._write(name, rollout)
        champion = catalog.alias(KIND, name, CHAMPION)
        versions = self._table.versions(name)
        live = versions.split is not None and versions.split.rollout == rollout.id
        canary = str(rollout.canary)
        tried = [state for state in versions.waiting if state.version == canary]
        failed = [state.reason for state in tried if state.state is State.UNAVAILABLE]
        failed += [reason for version, reason in self._lacking().get(name, {}).items() if version == canary]
        seen = seen_of(catalog, rollout)
        verdict = self._verdict(name, rollout, seen)
        entity = "" if champion is None else champion.entity_id
        changes = following(rollout, self._now(), entity, seen, verdict, live=live, broken=next(iter(failed), ""))
        self._show(rollout, seen)
        if not changes:
            return
        moved = change(catalog, rollout, alias, _ACTOR, **changes)
        if moved is None:
            return  # somebody was faster: the next look sees what has become of it
        self._tell(f"model {name}: {moved.told()}")
        if moved.state == "promoting":
            self._finish(*current(catalog, name))

    def _finish(self, rollout: Rollout | None, alias: Alias | None) -> None:
        """Move the champion, and then the rollout to its end; each half is repeated without harm."""
        if rollout is None or rollout.state != "promoting":
            return
        catalog = self._services.catalog
        seen = catalog.alias(KIND, rollout.model, CHAMPION)
        if seen is not None and seen.entity_id == rollout.stable_id:
            entity = catalog.entity_by_id(rollout.canary_id)
            assert entity is not None
            data = {"why": "its rollout came to its end", "rollout": rollout.id}
            if move(catalog, CHAMPION, seen, entity, _ACTOR, data) is None:
                return
        elif seen is not None and seen.entity_id != rollout.canary_id:
            change(catalog, rollout, alias, _ACTOR, state="stopped", why="another version is the champion meanwhile")
            return
        if (moved := change(catalog, rollout, alias, _ACTOR, state="promoted", why="")) is not None:
            self._tell(f"model {rollout.model}: {moved.told()}")

    def _verdict(self, name: str, rollout: Rollout, seen: Seen) -> Verdict:
        quality, steps = self._quality(name, rollout), len(rollout.steps)
        if quality is None:
            return judged(*seen.of_step(rollout), steps=steps)
        return judged(*seen.of_step(rollout), quality.once(), binary=quality.binary, steps=steps)

    def _quality(self, name: str, rollout: Rollout) -> Quality | None:
        known = self._qualities.get(name)
        if known is not None and known.rollout.id == rollout.id:
            return known
        node = self._plan.node(f"/{KIND}/{name}")
        if node is None or not self._has_tables():
            return None
        label = spec_of(cast(ModelDeclaration, node.declaration)).label
        readers = []
        for endpoint in self._endpoints(node):
            folder, tables = self._services.state / "predictions", self._services.tables
            readers.append(LogReader(folder / endpoint, endpoint, tables))
            readers.append(LogReader(folder / shadow_log(endpoint), shadow_log(endpoint), tables))
        binary = label.field.type.kind is Kind.BOOLEAN
        found = Quality(rollout, self._services.catalog, readers, binary, label.name)
        self._qualities[name] = found
        return found

    def _endpoints(self, model: Node) -> list[str]:
        return [node.name for node in self._plan.of_kind("endpoint", over="model") if model.url in node.inputs]

    def _has_tables(self) -> bool:
        try:
            self._services.decision("tables")
        except Exception:
            return False
        return True

    def _write(self, name: str, rollout: Rollout) -> None:
        """Record what all workers have seen; the whole of it each time, so that a repeated write adds nothing."""
        now, monitor = self._now(), monitor_of(rollout.id)
        parts = {
            (monitor, feature, kept.writer): state
            for kept in self._ledgers.all(rollout.id)
            for feature, state in kept.parts(str(rollout.stable), str(rollout.canary)).items()
        }
        fresh = {key: state for key, state in parts.items() if self._written.get(name, {}).get(key) != state}
        if fresh:
            self._services.catalog.put_blocks(
                [Block(monitor, feature, "", 0, writer, state, now) for (_, feature, writer), state in fresh.items()]
            )
            self._written[name] = parts

    def _show(self, rollout: Rollout, seen: Seen) -> None:
        labels = {"app": self._plan.app, "model": rollout.model}
        share = 0.0 if rollout.now.shadow else rollout.now.share
        self._metrics.set("mainspring_rollout_share", share, **labels)
        if seen.differences is not None:
            for part in ("rows", "failed", "dropped", "flips", "total", "greatest"):
                self._metrics.set(f"mainspring_shadow_{part}", float(getattr(seen.differences, part)), **labels)

    def described(self) -> Mapping[str, object]:
        """The newest rollout of each model that has had one."""
        found = {name: described(self._services.catalog, name) for name in self._loading.names()}
        return {name: rollout for name, rollout in found.items() if rollout is not None}

    def compact(self) -> None:
        """Move the sealed segments of shadows' logs into the lake."""
        for node in self._plan.of_kind("endpoint", over="model"):
            name = shadow_log(node.name)
            folder = self._services.state / "predictions" / name
            if folder.exists() and self._has_tables():
                compact(folder, self._services.tables, name, keep=_KEEP_SEGMENTS)


def described(catalog: Catalog, model: str) -> dict[str, object] | None:
    """A model's newest rollout with what was seen of it, as the CLI, the API and the console show it."""
    rollout, _ = current(catalog, model)
    if rollout is None:
        return None
    seen = seen_of(catalog, rollout)
    verdict = judged(*seen.of_step(rollout), steps=len(rollout.steps))
    return {
        **msgspec.to_builtins(rollout),
        "told": rollout.told(),
        "calls": {str(rollout.stable): seen.stable.calls, str(rollout.canary): seen.canary.calls},
        "errors": {str(rollout.stable): seen.stable.errors, str(rollout.canary): seen.canary.errors},
        "looks": msgspec.to_builtins(verdict.looks),
        "shadow": None if seen.differences is None else msgspec.to_builtins(seen.differences),
    }
