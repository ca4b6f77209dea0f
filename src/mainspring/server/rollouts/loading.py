"""The versions of models that a process has loaded: as the catalog's aliases, rollouts and the endpoints' policies say.

A version is loaded and warmed before anything leads to it; then the model's versions are swapped whole, and what they
leave out drains. Of several workers each proposes what it has warm, and all swap at one moment (`Agreement`).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
from msgspec.structs import replace

from mainspring.catalog.rollouts import CURRENT, ROLLOUT, Rollout, of_entity
from mainspring.choose.services import Services
from mainspring.declare.declaration import spec_of
from mainspring.declare.model import Endpoint
from mainspring.declare.rollout import Versions
from mainspring.errors import MainspringError, UserCodeError
from mainspring.features.online.computed import SelectionPlan
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Alias, Entity
from mainspring.server.rollouts.agreement import ABSTAINS, Agreement, Named, Refused
from mainspring.server.rollouts.asked import Asked, AskedFile
from mainspring.server.rollouts.ledger import Ledger
from mainspring.server.rollouts.unpacking import unpacked
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.endpoint import ModelColumn
from mainspring.serving.models import LiveModel
from mainspring.serving.rollout.shadow import Shadow
from mainspring.serving.rollout.split import Split
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.versions import STANDING, ModelVersions, Policy, State, VersionState, wanted_versions
from mainspring.training.versions import CHALLENGER, CHAMPION, KIND, move, promote_now

__all__ = ["ModelLoading", "Own", "policy_of"]

_LIST_SECONDS = 2.0
"""How often the registry is asked for new versions, where a policy loads what nobody has named."""

_RESERVED = frozenset({*STANDING, CHALLENGER, "canary", "shadow"})
"""Labels that move by other ways than a person's."""

Own = tuple[SelectionPlan, tuple[ModelColumn, ...], tuple[int, ...]]
"""What a version reads by other definitions than the app's: its read plan, its columns and which of them are dates."""


_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
"""Until what could not be loaded is tried again: twice as long each time."""


class _Trouble(msgspec.Struct):
    """A model of which what is wanted cannot be loaded, and when it is tried again."""

    token: int
    refused: Refused
    pause: float
    due: float


class _Wanted(msgspec.Struct, frozen=True):
    """What a model's versions should be.

    Attributes:
        named: what the aliases say.
        rollout: the rollout under way.
        policy: which others are loaded.
        registered: the versions there are, as far as the policy asks.
        extra: versions that somebody has asked this process to load.
    """

    named: Named
    rollout: Rollout | None
    policy: Policy
    registered: tuple[int, ...]
    extra: frozenset[int]


class ModelLoading:
    """Loads versions and swaps them in.

    Args:
        services: the project's ports.
        plan: the app's graph.
        table: where the versions go.
        metrics: where the version that answers is shown.
        served: the models of this process.
        reads: what a version reads by other definitions than the app's; called before it takes traffic.
        tell: told what a person should know.
        bring: loads a version from its folder and warms it, with a queue of its own.
        agreement: with the other workers of the server; None is a process by itself.
        ledger: makes what the calls of a rollout, by its id, are counted in.
        asked: what clients have asked of other workers; None is a process by itself.
        clock: seconds that only grow.

    Attributes:
        loads: versions that were loaded since the start.
        before_flip: called with a model whose versions are warm, before the other workers are told.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        table: ModelTable,
        metrics: Metrics,
        served: Callable[[], Sequence[Node]],
        reads: Callable[[Node, Entity, LiveModel], Own | None],
        tell: Callable[[str], None],
        bring: Callable[[str, Entity, Path], LiveModel],
        agreement: Agreement | None = None,
        ledger: Callable[[str], Ledger] = lambda rollout: Ledger(),
        asked: AskedFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._agreement = agreement
        self._ledger = ledger
        self._asked = asked
        self._clock = clock
        self._bring = bring
        self._plan = plan
        self._table = table
        self._metrics = metrics
        self._served = served
        self._reads = reads
        self._tell = tell
        self._lock = threading.Lock()
        self._unloaded: frozenset[str] = frozenset()
        self._extra: dict[str, frozenset[int]] = {}
        self._policies: dict[str, Policy] = {}
        self._applied: dict[str, _Wanted] = {}
        self._listed: dict[str, tuple[float, tuple[int, ...]]] = {}
        self._own: weakref.WeakKeyDictionary[LiveModel, Own] = weakref.WeakKeyDictionary()
        self._ledgers: dict[str, Ledger] = {}
        self._shadows: dict[str, Shadow] = {}
        self._seen: dict[str, tuple[str | None, Split | None]] = {}
        self._warm: dict[str, int] = {}
        self._troubles: dict[str, _Trouble] = {}
        self.loads = 0
        self.before_flip: Callable[[str], None] = lambda model: None

    # -- what others ask -----------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        """The models that this process may serve."""
        return [node.name for node in self._served()]

    def registered(self, name: str) -> Sequence[int]:
        """The versions of a model, loaded or not."""
        return [entity.version for entity in self._services.catalog.entities(KIND, name)]

    def own(self, live: LiveModel) -> Own | None:
        """What a version reads, where that is not what the app declares."""
        return self._own.get(live)

    def unloaded(self) -> frozenset[str]:
        """The models that somebody has unloaded."""
        return self._unloaded

    def close(self) -> None:
        """End what runs beside."""
        for shadow in self._shadows.values():
            shadow.stop()

    # -- keeping up ----------------------------------------------------------------------------------------------

    def refresh(self) -> list[str]:
        """Take over what has moved in the catalog; the models of which another version answers now."""
        with self._lock:
            return self._refresh()

    def _take_over(self) -> None:
        """Do what clients have asked of other workers."""
        for name, asked in (self._asked.news() or {} if self._asked is not None else {}).items():
            if asked == self._said(name) or name not in self.names():
                continue
            policy = None if asked.policy is None else Policy(*asked.policy)
            self._extra[name] = frozenset(asked.extra)
            self._policies.pop(name, None)
            if policy is not None:
                self._policies[name] = policy
            for known in (self._listed, self._applied, self._troubles):
                known.pop(name, None)
            if asked.unloaded:
                self._forget(name)
            else:
                self._unloaded -= {name}

    def _said(self, name: str) -> Asked:
        """What this worker does of a model because somebody has asked for it."""
        policy = self._policies.get(name)
        return Asked(
            name in self._unloaded,
            tuple(sorted(self._extra.get(name, ()))),
            None if policy is None else (policy.latest, policy.every, policy.specific),
        )

    def _share(self, name: str) -> None:
        """Let the other workers do the same."""
        if self._asked is not None:
            self._asked.say(name, self._said(name))
            self._take_over()

    def _forget(self, name: str) -> None:
        self._unloaded |= {name}
        self._applied.pop(name, None)
        self._extra.pop(name, None)
        self._troubles.pop(name, None)
        self._table.remove(name)
        self._seen.pop(name, None)
        if self._agreement is not None:
            self._agreement.abstain(name)

    def _wait(self, name: str, holds: Callable[[str, tuple[str, ...]], bool]) -> None:
        if self._asked is not None:
            self._asked.wait(name, holds)

    def _refresh(self) -> list[str]:
        self._take_over()
        catalog = self._services.catalog
        aliases: dict[str, list[Alias]] = {}
        for alias in catalog.aliases(KIND):
            aliases.setdefault(alias.name, []).append(alias)
        rollouts = {alias.name: alias for alias in catalog.aliases(ROLLOUT) if alias.alias == CURRENT}
        changed, faults = [], []
        for node in self._served():
            if node.name in self._unloaded:
                continue
            named = self._named(node.name, aliases.get(node.name, ()), rollouts.get(node.name))
            try:
                if named is not None:
                    self._follow(node, self._wanted(node, named))
            except Exception as error:  # of one model; it is tried again, and the others go on
                faults.append(error)
            if self._moved(node.name):
                changed.append(node.name)
        if faults:
            raise faults[0]
        return changed

    def _named(self, model: str, aliases: Sequence[Alias], moved: Alias | None) -> Named | None:
        """What is wanted of a model: of one that does not answer here yet what the other workers have agreed on."""
        if self._agreement is not None and (not self._agreement.joined or self._table.get(model) is None):
            agreed = self._agreement.agreed_text(model)
            if agreed is not None:
                return msgspec.json.decode(agreed, type=Named)
        champion = next((alias.entity_id for alias in aliases if alias.alias == CHAMPION), None)
        if champion is None:
            return None
        labels = {alias.alias: alias.entity_id for alias in aliases if alias.alias not in (CHAMPION, CHALLENGER)}
        return Named(champion, labels, "" if moved is None else moved.entity_id)

    def _wanted(self, node: Node, named: Named) -> _Wanted:
        policy = self._policies.get(node.name) or policy_of(self._plan, node)
        known = self._applied.get(node.name)
        same = known is not None and known.named.rollout == named.rollout
        return _Wanted(
            named,
            known.rollout if known is not None and same else self._rollout(named.rollout),
            policy,
            self._registered(node.name, policy),
            self._extra.get(node.name, frozenset()),
        )

    def _rollout(self, moved: str) -> Rollout | None:
        """The rollout under way: it is read only when its alias has moved."""
        entity = self._services.catalog.entity_by_id(moved) if moved else None
        found = None if entity is None else of_entity(entity)
        return None if found is None or found.over else found

    def _registered(self, model: str, policy: Policy) -> tuple[int, ...]:
        if not (policy.every or policy.latest > 1 or policy.specific):
            return ()
        at, known = self._listed.get(model, (0.0, ()))
        if not at or time.monotonic() - at > _LIST_SECONDS:
            known = tuple(self.registered(model))
            self._listed[model] = (time.monotonic(), known)
        return known

    def _follow(self, node: Node, wanted: _Wanted) -> None:
        """Take over what is wanted, unless that was done, or failed just now."""
        name, token = node.name, wanted.named.token()
        trouble = self._troubles.get(name)
        if wanted == self._applied.get(name):
            self._troubles.pop(name, None)
            return
        if trouble is not None and trouble.token == token and self._clock() < trouble.due:
            return
        try:
            self._apply(node, wanted)
        except Exception as error:
            told = trouble is not None and trouble.token == token
            self._fail(name, wanted, error, trouble if told else None)
            if told:
                return  # it was said before
            raise
        self._troubles.pop(name, None)
        self._applied[name] = wanted

    def _fail(self, name: str, wanted: _Wanted, error: Exception, before: _Trouble | None) -> None:
        entity = self._services.catalog.entity_by_id(wanted.named.champion)
        what = error.what if isinstance(error, MainspringError) else type(error).__name__
        code = error.code if isinstance(error, MainspringError) else ""
        pause = _PAUSE_S if before is None else min(2 * before.pause, _LONGEST_PAUSE_S)
        refused = Refused(0 if entity is None else entity.version, what, code)
        self._troubles[name] = _Trouble(wanted.named.token(), refused, pause, self._clock() + pause)

    def _moved(self, name: str) -> bool:
        """Follow a swap up, whoever has made it; whether another version answers since."""
        now = self._table.versions(name)
        default, split = self._seen.get(name, (None, None))
        self._seen[name] = now.default, now.split  # and no version: its memory is free when it answers no more
        if split is not None and (now.split is None or now.split.shadow is not split.shadow):
            self._end_shadow(split)
        if split is not None and (now.split is None or now.split.rollout != split.rollout):
            self._ledgers.pop(split.rollout, None)
        if now.default is not None:
            self._metrics.set("mainspring_model_version", float(now.default), app=self._plan.app, model=name)
        return now.default is not None and now.default != default

    def _apply(self, node: Node, wanted: _Wanted) -> None:
        catalog, name, named = self._services.catalog, node.name, wanted.named
        champion = catalog.entity_by_id(named.champion)
        if champion is None:
            return
        found = {label: catalog.entity_by_id(entity) for label, entity in named.labels.items()}
        labels = {label: entity for label, entity in found.items() if entity is not None}
        rollout = wanted.rollout
        held = [champion.version, *(entity.version for entity in labels.values()), *wanted.extra]
        held += [rollout.canary] if rollout is not None else []
        alone = self._agreement is None or not self._agreement.joined
        wished = wanted_versions(wanted.policy, wanted.registered, held)
        ready = {number: live for number, live in self._table.loaded(name).items() if int(number) in wished}
        default = str(champion.version)
        if default not in ready:
            ready[default] = self._loaded(node, champion)
            if alone and len(ready) < len(wished):  # it need not wait for those beside it
                early = dict(ready)
                self._table.change(name, lambda now: ModelVersions(default, {**now.ready, **early}))
        waiting: list[VersionState] = []
        for version in sorted(wished, reverse=True):
            if str(version) not in ready and (live := self._beside(node, version, waiting)) is not None:
                ready[str(version)] = live
        split = None if rollout is None else self._split(rollout, ready, default)
        numbers = {label: str(entity.version) for label, entity in labels.items() if str(entity.version) in ready}
        self._offer(name, named, ModelVersions(default, ready, numbers, split, tuple(waiting)))
        self._warm[name] = champion.version

    def _offer(self, name: str, named: Named, versions: ModelVersions) -> None:
        """Swap versions in that are warm: at once, or when all workers have them."""
        agreement, token = self._agreement, named.token()
        if agreement is None or not agreement.joined:
            self._table.swap(name, versions)
            return
        self._table.prepare(name, token, versions, lambda: agreement.agreed(name))
        self.before_flip(name)
        if agreement.propose(name, token, named.text()) != token and self._table.get(name) is not None:
            # Whoever asks for it by its number may have it already.
            self._table.change(
                name, lambda now: replace(now, ready={**versions.ready, **now.ready}, waiting=versions.waiting)
            )
        self._table.keep(name, token)

    def votes(self) -> Mapping[str, tuple[int, bytes]]:
        """What this process has warm of each of its models: the token, and the text that it is of; 0 for nothing."""
        found = {name: (ABSTAINS if name in self._unloaded else 0, b"") for name in self.names()}
        return found | {name: (one.named.token(), one.named.text()) for name, one in self._applied.items()}

    def warm(self) -> Mapping[str, int]:
        """The champion's version that this process has warm, by model; it answers when all workers have it."""
        return self._warm

    def refused(self) -> Mapping[str, Refused]:
        """The models of which what is wanted cannot be loaded here: their old versions go on."""
        return {name: trouble.refused for name, trouble in self._troubles.items()}

    def lacking(self) -> Mapping[str, Mapping[str, str]]:
        """The versions beside that cannot be loaded here, with the reason, by model."""
        return {
            name: {state.version: state.reason for state in versions.waiting if state.state is State.UNAVAILABLE}
            for name in self.names()
            if (versions := self._table.versions(name)).waiting
        }

    def _beside(self, node: Node, version: int, waiting: list[VersionState]) -> LiveModel | None:
        """A version that others do not depend on: what is wrong with it is told, and stops nothing."""
        entity = self._services.catalog.entity(KIND, node.name, version)
        if entity is None:
            return None
        try:
            return self._loaded(node, entity)
        except Exception as error:
            reason = error.what if isinstance(error, MainspringError) else type(error).__name__
            waiting.append(VersionState(str(version), State.UNAVAILABLE, reason))
            self._tell(f"model {node.name} version {version} cannot be loaded: {reason}")
            return None

    def _loaded(self, node: Node, entity: Entity) -> LiveModel:
        """A version, loaded and warm; it is shown as LOADING meanwhile."""
        name, number = node.name, str(entity.version)
        if self._table.versions(name).default is not None:
            loading = VersionState(number, State.LOADING)
            self._table.change(
                name,
                lambda now: replace(
                    now, waiting=(*(state for state in now.waiting if state.version != number), loading)
                ),
            )
        folder = unpacked(self._services, str(entity.spec["artifact"]))
        live = self._bring(name, entity, folder)
        own = self._reads(node, entity, live)
        if own is not None:
            self._own[live] = own
        self.loads += 1
        return live

    def _split(self, rollout: Rollout, ready: Mapping[str, LiveModel], default: str) -> Split | None:
        """How a rollout parts the calls; not at all before its version is warm, or once the champion has moved."""
        stable, canary = str(rollout.stable), str(rollout.canary)
        if default != stable or canary not in ready or rollout.state != "running":
            return None
        ledger = self._ledgers.get(rollout.id)
        if ledger is None:
            ledger = self._ledgers[rollout.id] = self._ledger(rollout.id)
        shadow = None
        if rollout.now.shadow:
            shadow = self._shadows.get(rollout.id)
            if shadow is None:
                binary = ready[stable].card.task == "binary"
                shadow = self._shadows[rollout.id] = Shadow(binary=binary, tally=ledger.shadow)
        share = 0.0 if rollout.now.shadow else rollout.now.share
        return Split(rollout.id, stable, canary, share, shadow, {stable: ledger.stable, canary: ledger.canary})

    def _end_shadow(self, split: Split) -> None:
        if split.shadow is not None:
            self._shadows.pop(split.rollout, None)
            split.shadow.stop()

    # -- what people ask -----------------------------------------------------------------------------------------

    def load(self, name: str, version: str | None = None) -> None:
        """Load a model's champion and let it answer, or a version beside it; see `Registry.load`."""
        node = self._known(name)
        number = None if version is None else self._number(name, version)
        with self._lock:
            self._unloaded -= {name}
            self._troubles.pop(name, None)
            if number is not None:
                self._extra[name] = self._extra.get(name, frozenset()) | {number}
            self._share(name)
            self._applied.pop(node.name, None)
            try:
                self._refresh()
            except UserCodeError as error:  # it does not warm up
                raise Rejected(Reason.NOT_READY, error.what) from error
            if number is not None and str(number) not in self._table.versions(name).ready:
                self._extra[name] -= {number}
                self._share(name)
                raise Rejected(Reason.NOT_READY, f"version {number} of model {name!r} cannot be loaded")
        if self._table.get(name) is None:
            raise Rejected(Reason.NOT_READY, f"model {name!r} has no champion yet")
        self._wait(name, lambda answers, ready: bool(answers) and (number is None or str(number) in ready))

    def unload(self, name: str, version: str | None = None) -> None:
        """Let a model answer no more until it is loaded again, or one of its versions; see `Registry.unload`."""
        self._known(name)
        with self._lock:
            if version is None:
                self._forget(name)
                self._share(name)
        if version is None:
            self._wait(name, lambda answers, ready: not answers)
            return
        with self._lock:
            versions = self._table.versions(name)
            number = self._number(name, version)
            if version not in versions.ready:
                raise Rejected(Reason.NO_VERSION, f"version {version} of model {name!r} is not loaded")
            if labels := sorted(label for label, held in versions.all_labels().items() if held == version):
                told = ", ".join(labels)
                raise Rejected(Reason.CONFLICT, f"version {version} of model {name!r} is {told}: move that first")
            policy = self._policies.get(name) or policy_of(self._plan, self._known(name))
            keep = frozenset(int(ready) for ready in versions.ready if ready != version) - {int(versions.default or 0)}
            self._extra[name] = self._extra.get(name, frozenset()) - {number}
            if policy != Policy():  # what the policy would load again: from here on it is these, and no others
                self._policies[name] = Policy(latest=1, specific=tuple(sorted(keep)))
            self._listed.pop(name, None)
            self._share(name)
            self._refresh()
        self._wait(name, lambda answers, ready: version not in ready)

    def keep(self, name: str, policy: Policy) -> None:
        """Load the versions of a policy, and no others; see `Registry.keep`."""
        self._known(name)
        if strange := sorted(set(policy.specific) - set(self.registered(name))):
            raise Rejected(Reason.NO_VERSION, f"model {name!r} has no version {strange[0]}")
        with self._lock:
            self._unloaded -= {name}
            self._policies[name] = policy
            self._extra.pop(name, None)
            self._listed.pop(name, None)
            self._applied.pop(name, None)
            self._share(name)
            self._refresh()

    def label(self, name: str, label: str, version: str) -> None:
        """Let a label name a version; see `Registry.label`."""
        self._known(name)
        catalog, number = self._services.catalog, self._number(name, version)
        standing = label in STANDING
        seen = catalog.alias(KIND, name, CHAMPION if standing else label)
        if label in _RESERVED and not standing:
            raise Rejected(Reason.INVALID, f"the label {label!r} moves with a rollout or a training alone")
        if not label.replace("-", "").replace("_", "").replace(".", "").isalnum() or label.isdigit() or len(label) > 64:
            raise Rejected(Reason.INVALID, f"{label[:80]!r} is no label: letters, digits, - _ . and no number")
        state = self._state(name, version)
        if state is not State.READY:
            told = "not loaded" if state is None else state.value
            raise Rejected(Reason.CONFLICT, f"version {version} of model {name!r} is {told}, not READY: load it first")
        entity = catalog.entity(KIND, name, number)
        assert entity is not None
        if seen is not None and seen.entity_id == entity.id:
            return
        if standing:
            promote_now(catalog, name, number, "management")
        elif move(catalog, label, seen, entity, "management", {"why": "labelled"}) is None:
            raise Rejected(Reason.CONFLICT, f"the label {label!r} of model {name!r} was moved meanwhile")
        self.refresh()

    def _state(self, name: str, version: str) -> State | None:
        versions = self._table.versions(name)
        if version in versions.ready:
            return State.READY
        return next((state.state for state in versions.waiting if state.version == version), None)

    def _known(self, name: str) -> Node:
        found = next((node for node in self._served() if node.name == name), None)
        if found is None:
            raise Rejected(Reason.NO_MODEL, f"no model of this app is called {name!r}; models are loaded by name")
        return found

    def _number(self, name: str, version: str) -> int:
        """A version's number, when it is registered: no path and no address is one."""
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        if not number or self._services.catalog.entity(KIND, name, number) is None:
            raise Rejected(Reason.NO_VERSION, f"model {name!r} has no version {version[:40]!r}")
        return number


def policy_of(plan: Plan, model: Node) -> Policy:
    """Which versions the endpoints over a model ask for; the most that any of them does."""
    every, latest, specific = False, 1, set[int]()
    for node in plan.of_kind("endpoint", over="model"):
        if model.url not in node.inputs:
            continue
        asked: Versions = spec_of(cast(Endpoint, node.declaration)).versions
        if isinstance(asked, str):
            every = True
        elif isinstance(asked, int):
            latest = max(latest, asked)
        else:
            specific |= set(asked)
    return Policy(latest, every, tuple(sorted(specific)))
