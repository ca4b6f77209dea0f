"""Model versions: registered with their lineage, and the aliases that point at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.errors import RefusedError
from mainspring.plan.encoding import digest, encode
from mainspring.ports.catalog import Alias, Catalog, Edge, Entity, Event
from mainspring.ports.runtime import Card
from mainspring.training.evaluate import CalibrationBin, Estimate
from mainspring.training.folder import FitReport
from mainspring.training.split import Split

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "KIND",
    "REFUSED",
    "ModelVersion",
    "champion_of",
    "move",
    "point",
    "promote_now",
    "refusal_of",
    "refused_by_gate",
    "register",
    "roll_back",
    "told",
    "version_of",
]

KIND, CHAMPION, CHALLENGER = "model", "champion", "challenger"
REFUSED = "model.refused"
_PAGE = 1000


class ModelVersion(msgspec.Struct, frozen=True):
    """What the catalog keeps of a model version.

    Attributes:
        artifact: digest of the model's folder.
        training_set: id of the pinned training set.
        run: the run that registered it.
        code: digest of the trainer and all that it reaches.
        task: ``binary`` or ``regression``.
        columns: the inputs, in order.
        card: how the model is stored, and why so.
        training: the report of its making.
        split: how the training set was divided.
        metrics: on the newest rows, each with its 95 % interval.
        calibration: tenths of the rows by score.
        slices: the deciding metric by ``column=value``.
        reads: digest of the definitions of what it reads; empty for versions from before these were kept.
    """

    artifact: str
    training_set: str
    run: str
    code: str
    task: str
    columns: tuple[str, ...]
    card: Card
    training: FitReport
    split: Split
    metrics: dict[str, Estimate]
    calibration: tuple[CalibrationBin, ...] = ()
    slices: dict[str, dict[str, Estimate]] = {}
    reads: str = ""


def register(catalog: Catalog, model: str, found: ModelVersion) -> Entity:
    """Record a model version with its lineage; the same artifact from the same training set is the same version."""
    at = now_us()
    content = digest(encode([found.artifact, found.training_set, msgspec.json.encode(found.split)]))
    offered = Entity(new_id(), KIND, model, 0, content, msgspec.to_builtins(found), at)
    edges = [
        Edge(offered.id, "trained_on", found.training_set),
        Edge(offered.id, "built_from", found.artifact),
        Edge(f"/{KIND}/{model}", "built_from", f"/training_set/{model}"),
        Edge(found.run, "produced", offered.id),
    ]
    data: dict[str, object] = {"run": found.run, "artifact": found.artifact, "id": offered.id}
    return catalog.add_entity(offered, edges, Event(at, "training", "model.registered", f"/{KIND}/{model}", data))


def champion_of(catalog: Catalog, model: str) -> tuple[Entity | None, Alias | None]:
    """The champion's version and its alias."""
    alias = catalog.alias(KIND, model, CHAMPION)
    return (None if alias is None else catalog.entity_by_id(alias.entity_id)), alias


def move(
    catalog: Catalog, alias: str, now: Alias | None, to: Entity, actor: str, data: Mapping[str, Any]
) -> Alias | None:
    """Move an alias from where it was seen to a version, with its event, in one transaction.

    Returns:
        The alias as it is now; None when somebody else has moved it meanwhile.
    """
    rev, before = (0, "") if now is None else (now.rev, now.entity_id)
    more: dict[str, object] = {"version": to.version, **data, "before": before, "to": to.id}
    event = Event(now_us(), actor, f"{KIND}.{alias}", f"/{KIND}/{to.name}", more)
    return catalog.move_alias(Alias(KIND, to.name, alias, to.id, rev), event)


def point(catalog: Catalog, alias: str, to: Entity, actor: str, data: Mapping[str, Any]) -> None:
    """Make an alias point at a version, whatever it pointed at."""
    while True:
        now = catalog.alias(KIND, to.name, alias)
        if now is not None and now.entity_id == to.id:
            return
        if move(catalog, alias, now, to, actor, data) is not None:
            return


def told(catalog: Catalog, model: str, what: str) -> list[Event]:
    """All events of one kind about a model, the oldest first."""
    found: list[Event] = []
    after = 0
    subject = f"/{KIND}/{model}"
    while page := catalog.events(after, what=what, subject=subject, limit=_PAGE):
        found += [event for event in page if event.subject == subject and event.what == what]
        after = page[-1].seq
    return found


def refusal_of(catalog: Catalog, model: str, version: Entity, live: Entity) -> Event | None:
    """The newest refusal of a version against a champion, or None."""
    for event in reversed(told(catalog, model, REFUSED)):
        if event.data.get("id") == version.id and event.data.get("live_id") == live.id:
            return event
    return None


def version_of(catalog: Catalog, model: str, version: int) -> Entity:
    """A version of a model.

    Raises:
        RefusedError: MS-5040, there is no such version.
    """
    found = catalog.entity(KIND, model, version)
    if found is None:
        known = [str(item.version) for item in catalog.entities(KIND, model)]
        raise RefusedError(
            f"model {model!r} has no version {version}",
            code="MS-5040",
            why=f"versions: {', '.join(known) or 'none'}",
            fix=f"mainspring show model/{model}" if known else f"mainspring run model/{model}",
        )
    return found


def refused_by_gate(catalog: Catalog, model: str, version: Entity, live: Entity) -> None:
    """Pass on what the gate has said against a version.

    Raises:
        RefusedError: MS-5042, the gate has refused it against this champion.
    """
    refusal = refusal_of(catalog, model, version, live)
    if refusal is not None:
        raise RefusedError(
            f"the gate has refused version {version.version} of model {model!r}",
            code="MS-5042",
            why=f"against version {live.version}: {refusal.data.get('why', '')}",
            fix=f"train a better one, or insist: mainspring promote {model} {version.version} --force",
        )


def promote_now(catalog: Catalog, model: str, version: int, actor: str, *, force: bool = False) -> Entity:
    """Make a version the champion because a person says so.

    Args:
        catalog: the metadata store.
        model: the model's name.
        version: the version's number.
        actor: who says so.
        force: also when the gate has refused this version against the present champion.

    Raises:
        RefusedError: MS-5040, there is no such version; MS-5042, the gate has refused it.
    """
    found = version_of(catalog, model, version)
    live, _ = champion_of(catalog, model)
    refusal = None if live is None else refusal_of(catalog, model, found, live)
    if live is not None and refusal is not None and not force:
        refused_by_gate(catalog, model, found, live)
    why = "promoted by hand" if refusal is None else "promoted by hand against the gate"
    point(catalog, CHAMPION, found, actor, {"why": why})
    return found


def roll_back(catalog: Catalog, model: str, actor: str) -> Entity:
    """Give a model the champion back that it had before; again, and it gets the one before that.

    Raises:
        RefusedError: MS-5041, there was none before.
    """
    while True:
        live, alias = champion_of(catalog, model)
        before = catalog.entity_by_id(earlier[-1]) if (earlier := _before(catalog, model)) else None
        if live is None or before is None:
            raise RefusedError(
                f"model {model!r} has no champion to go back to",
                code="MS-5041",
                why="its champion is the first one" if live is not None else "it has no champion",
                fix=f"mainspring show model/{model}",
            )
        if move(catalog, CHAMPION, alias, before, actor, {"why": "rolled back", "rollback": True}) is not None:
            return before


def _before(catalog: Catalog, model: str) -> list[str]:
    """The champions under the present one, as a stack: a promotion puts one on it, a rollback takes one off."""
    stack: list[str] = []
    for event in told(catalog, model, f"{KIND}.{CHAMPION}"):
        if event.data.get("rollback"):
            stack.pop()
        elif event.data.get("before"):
            stack.append(str(event.data["before"]))
    return stack
